"""The generate stage on a few problems."""

from sampling.stages.generate import generate
from stepverify.jsonl import read_records
from stepverify.records import Solution
from tests.helpers.engines import FakeEngine
from tests.helpers.problems import Given, problem

THREE = Given(*map(problem, range(3)))


def run(output, engine=None, problems=THREE, num_samples=4, **options):
    engine = engine or FakeEngine()
    generate(engine, problems, output, num_samples=num_samples, **options)
    return engine, {s.id: s for s in read_records(output, Solution)}
