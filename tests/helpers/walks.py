"""A generator of known law, its samples, and their labels by rollouts."""

import json
import random
from collections import Counter

from sampling.engines import Completion, Engine
from sampling.labelling import Rollouts
from sampling.stages.generate import generate
from sampling.stages.label import label
from stepverify.jsonl import read_records
from stepverify.records import Problem, Solution
from tests.helpers.engines import CodePoints
from tests.helpers.labels import TEMPLATE
from tests.helpers.problems import Given

LENGTH = 5


class Walk(Engine):
    """A generator of known law: five steps, each ``0`` or ``1`` by chance, then the answer.

    The answer is 5 (correct) if the steps so far and to come have two zeros at most, else 6. The same seed draws the same.
    """

    model, tokenizer = "walk", CodePoints()

    def __init__(self, probability=0.6, stop_after=None):
        self.probability, self.stop_after, self.asked = probability, stop_after, Counter()

    def identity(self):
        return {"engine": "walk", "probability": self.probability}

    async def complete(self, request, options):
        if self.stop_after is not None and self.asked.total() >= self.stop_after:
            raise KeyboardInterrupt
        steps = "".join(map(chr, request.prompt_ids)).split("\n")[1:-1]
        for i in range(request.n):
            self.asked[tuple(steps), request.seed + i] += 1
        return [self._draw(steps, request.seed + i) for i in range(request.n)]

    def _draw(self, steps, seed):
        rng = random.Random(seed)
        rest = ["1" if rng.random() < self.probability else "0" for _ in range(LENGTH - len(steps))]
        text = "\n".join([*rest, f"#### {5 if [*steps, *rest].count('0') <= 2 else 6}"])
        return Completion(list(map(ord, text)), text, "stop")


def samples(folder, problems=6, number=8):
    """Folder of ``number`` samples of each problem by a :class:`Walk`."""
    given = Given(*(Problem(id=f"p/{i}", problem=f"{i}", answer="5") for i in range(problems)))
    generate(Walk(), given, folder / "sampled", num_samples=number, template=TEMPLATE)
    return folder / "sampled"


def run(source, output, strategy, engine=None, **options):
    """Step labels by id, and the labeller."""
    steps = Rollouts(engine or Walk(), strategy, template=TEMPLATE, **options)
    label(source, output, steps)
    return {s.id: s.step_labels for s in read_records(output, Solution)}, steps


def summary(folder):
    """What the manifest says in the end."""
    return json.loads((folder / "manifest.json").read_text())["summary"]
