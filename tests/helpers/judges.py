"""A judge whose answers are written down."""

import contextlib

from sampling.engines import Completion, Engine
from sampling.labelling import StepLabeller
from stepverify.template import Template
from tests.helpers.engines import CodePoints
from tests.helpers.labels import RIGHT, WRONG
from tests.helpers.walks import LENGTH

PLAIN = Template(prompt="{problem}")


class Judge(Engine):
    """Answers a question by the steps in it: ``says(steps)`` gives one text a vote. Remembers what it was asked."""

    model, tokenizer = "judge", CodePoints()

    def __init__(self, says, stop_after=None):
        self.says, self.stop_after, self.asked = says, stop_after, []

    def identity(self):
        return {"engine": "judge"}

    async def complete(self, request, options):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        question = "".join(map(chr, request.prompt_ids))
        self.asked.append((question, request.n, request.seed))
        steps = [line.partition(": ")[2] for line in question.splitlines() if line.startswith("Step ")]
        return [self._completion(text) for text in self.says(steps)[: request.n]]

    @staticmethod
    def _completion(text):
        return Completion([0] * 7, text.removesuffix("…"), "length" if text.endswith("…") else "stop")


def third_zero(steps):
    """The truth about the walk: the third zero makes a solution incorrect for good. Incorrect itself about every fifth."""
    zeros = [i for i, step in enumerate(steps[:LENGTH], start=1) if step == "0"]
    text = str(zeros[2]) if len(zeros) > 2 else "none"
    return [rf"\boxed{{{text}}}" if sum(map(int, steps[:LENGTH])) % 5 else "?"]


class Fixed(StepLabeller):
    """Labels that are written down: the first letter of a step, r correct, w incorrect, ? unknown."""

    def identity(self):
        return {"labeller": "fixed"}

    @contextlib.asynccontextmanager
    async def labelling(self, stage):
        yield self.label

    async def label(self, solutions):
        for s in solutions:
            s.step_labels = [{"r": RIGHT, "w": WRONG, "?": None}[step[0]] for step in s.steps]

    def summary(self):
        return {"fixed": 1}
