"""Read OpenAI's released solutions of GSM8K test problems.

Source: Cobbe et al. 2021.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepverify.jsonl import read_json_lines
from stepverify.readers.base import Reader, entry, lines
from stepverify.records import InputError, Problem, Solution

GENERATORS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
_FINAL = "A:"


class OpenAISolutions(Reader):
    """Read ``example_model_solutions.jsonl``: four solutions per test problem, one per method.

    The last step is the line ``A: answer``. ``correct`` is OpenAI's outcome label; ``sampling label`` replaces it.

    Args:
        path: the file (``.gz`` too), with rows in the order of the test split.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def problems(self) -> Iterator[Problem]:
        """Yield problems with the ids of :class:`GSM8K`, ``gsm8k/test/<row>``."""
        for _, problem, _ in self._rows():
            yield problem

    def solutions(self) -> Iterator[Solution]:
        """Yield four solutions per problem.

        ``generator`` is the method, for example ``6b_verification``.
        """
        for where, problem, data in self._rows():
            for index, name in enumerate(GENERATORS):
                released = entry(where, data, name, dict)
                here = f"{where}: {name}"
                steps = lines(entry(here, released, "solution", str))
                verdict = entry(here, released, "is_correct", bool)
                yield Solution.of(problem, index, steps, generator=name, correct=verdict)

    def _rows(self) -> Iterator[tuple[str, Problem, dict[str, object]]]:
        for row, (where, data) in enumerate(read_json_lines(self.path)):
            question, worked = (entry(where, data, key, str) for key in ("question", "ground_truth"))
            last = lines(worked)[-1:]
            if not last or not (answer := last[0].removeprefix(_FINAL).strip()) or answer == last[0]:
                raise InputError(f"{where}: key 'ground_truth': no final line '{_FINAL} …' in {worked[-80:]!r}")
            yield where, Problem(id=f"gsm8k/test/{row}", problem=question.strip(), answer=answer), data
