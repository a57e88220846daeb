"""Solutions of any reader → one file: our records, or rows of a format that others train from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from stepverify.data.targets import StepTargets
from stepverify.jsonl import dump_line, write_lines
from stepverify.readers import Reader, Solutions, math_shepherd, stepwise
from stepverify.readers.base import ReasonCounter, once
from stepverify.records import InputError, Solution, StepLabel

_FORMATS = {"stepwise": stepwise, "math_shepherd": math_shepherd}


def convert(
    input: Path | Reader,
    output: Path,
    format: Literal["records", "stepwise", "math_shepherd"] = "records",
    targets: StepTargets = StepTargets(),  # noqa: B008 - frozen
    logits: list[str] | None = None,
) -> None:
    """Write the solutions of a reader as one file; either the complete file appears, or none.

    ``stepwise`` is TRL's ``{prompt, completions, labels}``, ``math_shepherd`` the released ``{input, label}``. Both say
    of every step that it is correct or incorrect, and nothing else: answers, ids and counts of rollouts are lost, and a
    solution ends before its first step without a label. What they cannot say is counted and reported.

    Args:
        input: folder or file of solutions, or a reader of solutions.
        output: the file; it is replaced where there is one.
        format: of the rows. ``records`` is the project's own and loses nothing.
        targets: what labels mean where the format has only correct and incorrect; ``records`` keep them as they are.
        logits: verifiers whose scores in a file are logits: their sigmoid is written. A reader has the option itself.

    Raises:
        InputError: ``targets.monte_carlo: soft`` for a format of hard labels, or no solution is left.
    """
    if format != "records" and targets.monte_carlo == "soft":
        raise InputError(
            f"targets.monte_carlo: soft, but {format} has only correct and incorrect; choose hard or threshold"
        )
    if output.is_dir():
        raise InputError(f"{output}: is a folder, expected the name of a file")
    if logits and isinstance(input, Reader):
        raise InputError("logits: input is a reader, give them to it")
    reader = input if isinstance(input, Reader) else Solutions(str(input), logits=logits)
    left_out, noted = ReasonCounter(), ReasonCounter()
    written = write_lines(output, _lines(reader, format, targets, left_out, noted))
    left_out.add(reader.left_out)
    noted.add(reader.noted)
    print(f"{output}: {written:,} solutions")
    for name, tally in (("left out", left_out), ("noted", noted)):
        if tally:
            print(f"  {name}: {tally}")


def _lines(
    reader: Reader, format: str, targets: StepTargets, left_out: ReasonCounter, noted: ReasonCounter
) -> Iterator[str]:
    empty = True
    for solution in once(reader.solutions(), type(reader).__name__):
        if format == "records":
            line = dump_line(solution)
        elif row := _row(solution, format, targets, left_out, noted):
            line = json.dumps(row, ensure_ascii=False) + "\n"
        else:
            continue
        empty = False
        yield line
    if empty:
        left_out.add(reader.left_out)
        raise InputError(f"{type(reader).__name__}: no solution to write; left out: {left_out or None}")


def _row(
    solution: Solution, format: str, targets: StepTargets, left_out: ReasonCounter, noted: ReasonCounter
) -> dict[str, Any] | None:
    """The solution in another format, or None where that cannot hold it; counted."""
    correct = _verdicts(solution, targets)
    problem, steps = solution.problem.strip(), [step.strip() for step in solution.steps[: len(correct)]]
    row = _FORMATS[format].render(problem, steps, correct)
    if not correct:
        left_out.note("without a label at the first step", solution.id)
    elif _read(format, row) != (problem, steps, [StepLabel(rating=1 if r else -1) for r in correct]):
        left_out.note(f"with texts that {format} cannot hold", solution.id)
    else:
        if len(correct) < len(solution.steps):
            noted.note("cut before a step without a label", solution.id)
        return row
    return None


def _verdicts(solution: Solution, targets: StepTargets) -> list[bool]:
    """Correct or incorrect, for all steps before the first one that has no target."""
    wanted = [] if solution.step_labels is None else targets(solution.step_labels)
    return [target == 1 for target in takewhile(lambda target: target is not None, wanted)]


def _read(format: str, row: dict[str, Any]) -> Any:
    """What the format's own reader makes of a row: texts may hold its tags, or begin as its numbers do."""
    try:
        return _FORMATS[format].parse("", row)
    except InputError:
        return None
