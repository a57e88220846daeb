r"""Ask a judge about a solution, and read its verdict.

Pure: no engine is used here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stepverify.data.targets import StepTargets
from stepverify.records import InputError, Solution, StepLabel

DEFAULT = Path(__file__).with_name("first_error.txt")

_PLACE = re.compile(r"\{(problem|answer|steps)\}")
_BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_STYLE = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf)\s*\{([^{}]*)\}")
_NUMBER = re.compile(r"(?:step|paragraph|line)?\s*#?(\d{1,6})", re.IGNORECASE)
_NONE = re.compile(r"none|no errors?|-1", re.IGNORECASE)  # ProcessBench writes -1


class JudgePrompt:
    r"""Hold the prompt text of a judge.

    Args:
        path: a text file in which ``{problem}``, ``{steps}`` (one per line, numbered from 1) and, if it occurs,
            ``{answer}`` (the reference answer) are replaced. It must ask for the number of the first incorrect step, or
            ``none``, in a ``\boxed{}`` at the end.

    Raises:
        InputError: no such file, or a placeholder is missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"prompt: {path}: {getattr(error, 'strerror', None) or error}") from None
        if missing := {"problem", "steps"} - set(_PLACE.findall(self.text)):
            raise InputError(f"prompt: {path}: has no placeholder {{{min(missing)}}}")

    def render(self, solution: Solution) -> str:
        """Render the question about one solution."""
        between = "\n\n" if any("\n" in step for step in solution.steps) else "\n"
        steps = between.join(f"Step {number}: {step}" for number, step in enumerate(solution.steps, start=1))
        texts = {"problem": solution.problem.strip(), "answer": solution.answer or "", "steps": steps}
        return _PLACE.sub(lambda place: texts[place[1]], self.text)  # in one pass: a problem may contain braces


def read_verdict(text: str, num_steps: int) -> int | None:
    r"""Read the first incorrect step from a judge's final ``\boxed{}``.

    Returns:
        Number of the step, from 1; 0 if the judge finds none; None if the answer is neither a step of the solution nor
        none.

    >>> read_verdict(r"Step 1 holds, step 2 does not: \boxed{\text{Step 2}}.", 3)
    2
    """
    boxes = _BOX.findall(text)
    verdict = _STYLE.sub(r"\1", boxes[-1]).strip(" \t\n$*.") if boxes else ""
    if _NONE.fullmatch(verdict):
        return 0
    named = _NUMBER.fullmatch(verdict)
    return int(named[1]) if named and 1 <= int(named[1]) <= num_steps else None


def majority(verdicts: Sequence[int | None]) -> int | None:
    """Return the verdict of more than half of the readable ones.

    None if there is no such verdict.

    >>> majority([2, None, 2, 0]), majority([2, 0])
    (2, None)
    """
    read = [verdict for verdict in verdicts if verdict is not None]
    for verdict, times in Counter(read).most_common(1):
        if 2 * times > len(read):
            return verdict
    return None


def first_incorrect(labels: Sequence[StepLabel | None]) -> int:
    """Return the first step that its hard label calls incorrect.

    Steps are numbered from 1; 0 if no label is incorrect.
    """
    return next((number for number, target in enumerate(StepTargets()(labels), start=1) if target == 0), 0)


def compared(labelled: int, verdicts: Sequence[int | None]) -> str:
    """Compare labels and verdicts; return the result's name in the summary.

    It begins with ``agreed`` if both find the same.
    """
    judged = majority(verdicts)
    if judged is None:
        return "unparsable" if all(verdict is None for verdict in verdicts) else "undecided"
    if judged == labelled:
        return "agreed_on_a_step" if judged else "agreed_on_none"
    if judged and labelled:
        return "different_steps"
    return "error_by_judge_only" if judged else "error_by_labels_only"
