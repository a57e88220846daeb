"""The four stages that a job array divides, on a few problems and without a model; and what they leave."""

import json

from sampling.labelling import Consensus, EarlyStop, Rollouts
from sampling.search import BeamSearch, Expansion, SearchResult, Values
from sampling.stages.generate import generate
from sampling.stages.label import label
from sampling.stages.score import score
from sampling.stages.search import search
from stepverify.jsonl import MANIFEST, read_records
from stepverify.records import Judgement, Rollout, Solution
from tests.helpers.judges import PLAIN, Judge, third_zero
from tests.helpers.labels import TEMPLATE
from tests.helpers.searches import Lawful, Valued, problems
from tests.helpers.walks import Walk

KINDS = {
    "": Solution, "rollouts": Rollout, "judge": Judgement, "expansions": Expansion, "values": Values,
    "results": SearchResult,
}  # fmt: skip


class Stages:
    """Run stages, and count what engines and scorers are asked.

    Args:
        given: folder of solutions, the input of ``label`` and ``score``.
    """

    def __init__(self, given):
        self.given, self.asked = given, []

    def generate(self, output, num_problems=9, **options):
        engine = Walk()
        generate(engine, problems(num_problems, answer="5"), output, num_samples=3, template=TEMPLATE, **options)
        self.asked += engine.asked

    def label(self, output, given=None, **options):
        walk, judge = Walk(), Judge(third_zero)
        rollouts = Rollouts(walk, EarlyStop(max_rollouts=4, round_size=2), template=TEMPLATE)
        label(given or self.given, output, Consensus(rollouts, judge, template=PLAIN), **options)
        self.asked += [*walk.asked, *judge.asked]

    def score(self, output, given=None, **options):
        scorers = {"a": Valued(of_length, name="a"), "b": Valued(of_zeros, name="b")}
        score(given or self.given, output, scorers, **options)
        self.asked += [text for scorer in scorers.values() for text in scorer.read]

    def search(self, output, num_problems=9, **options):
        engine, scorer = Lawful(), Valued()
        options = {"strategy": BeamSearch(4, 2)} | options
        search(engine, problems(num_problems), scorer, output, template=TEMPLATE, **options)
        self.asked += [*engine.asked, *scorer.read]

    def __getitem__(self, name):
        return getattr(self, name)


def of_length(steps):
    return 1 / len(steps)


def of_zeros(steps):
    return steps.count("0") / (1 + len(steps))


def left_by(folder):
    """Records of a stage's folder and the folders in it by key, and their manifests; without what the clock says."""
    found = {}
    for nested, kind in KINDS.items():
        if not (at := folder / nested / MANIFEST).is_file():
            continue
        manifest = json.loads(at.read_text())
        manifest["summary"].pop("seconds", None)
        for known in manifest["inputs"].values():
            known.pop("path")
        manifest["records"].pop("sha256")  # of the lines in their order
        records = {}
        for record in read_records(at.parent, kind):
            if kind is SearchResult:
                record.seconds = 0.0
            records[getattr(record, "id", None) or record.problem_id] = record
        found[nested] = manifest, records
    return found
