"""A judge whose answers are written down."""

from sampling.engines import Completion, Engine
from tests.helpers.engines import CodePoints
from tests.helpers.walks import LENGTH


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
