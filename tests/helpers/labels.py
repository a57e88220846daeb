"""Solutions and their labels, and rollouts that are written down."""

from sampling.engines import Completion, Engine
from sampling.stages.label import label
from stepverify.jsonl import read_records, write_records
from stepverify.records import Solution, StepLabel
from stepverify.template import Template
from tests.helpers.engines import CodePoints

TEMPLATE = Template(prompt="Q{problem}\n")
RIGHT, WRONG = StepLabel(rating=1), StepLabel(rating=-1)


class KnownRollouts(Engine):
    """Completes a prefix with the texts that are written down for its last step; remembers what was asked."""

    model, tokenizer = "known", CodePoints()

    def __init__(self, known, default=("#### 1",)):
        self.known, self.default, self.asked = known, default, []

    def identity(self):
        return {"engine": "known"}

    async def complete(self, request, options):
        path = "".join(map(chr, request.prompt_ids))
        self.asked.append((path, request.n, request.seed))
        texts = self.known.get(path.splitlines()[-1], self.default)
        return [self._completion(texts[i % len(texts)]) for i in range(request.n)]

    @staticmethod
    def _completion(text):
        return Completion([0] * 3, text.removesuffix("…"), "length" if text.endswith("…") else "stop")


def solution(sample, steps, problem="p/0", finish="stop", answer="5", **known):
    return Solution(
        id=f"{problem}#{sample}", problem_id=problem, problem=f"of {problem}", steps=steps, answer=answer,
        finish=finish, **known,
    )  # fmt: skip


def labelled(folder, solutions, steps=None):
    """Solutions by id after the label stage."""
    write_records(folder / "in.jsonl", solutions)
    label(folder / "in.jsonl", folder / "out", steps)
    return {s.id: s for s in read_records(folder / "out", Solution)}


def counted(num_correct, num_rollouts):
    return StepLabel(num_correct=num_correct, num_rollouts=num_rollouts)
