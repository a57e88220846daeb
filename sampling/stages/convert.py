"""Convert solutions of any reader to one file.

The file holds the project's own records, or rows of a format that other libraries train on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from stepverify import trial
from stepverify.data.targets import StepTargets
from stepverify.jsonl import check_output, dump_line, write_lines
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
    """Convert solutions of a reader to one file.

    Either the complete file appears, or none. ``stepwise`` is TRL's ``{prompt, completions, labels}``,
    ``math_shepherd`` the released ``{input, label}``. Both hold only whether each step is correct: answers, ids and
    rollout counts are lost, and a solution is cut before its first step without a label. Whatever these formats cannot
    hold is counted and reported.

    Args:
        input: folder or file of solutions, or a reader of solutions.
        output: the file to write, compressed if its name ends in ``.gz``; an existing one of JSON Lines is replaced.
        format: format of the rows. ``records`` is the project's own and loses nothing.
        targets: how labels become correct or incorrect for the other formats; ``records`` keeps labels as they are.
        logits: names of verifiers whose scores in the file are logits; their sigmoid is written. A reader has this
            option itself.

    Raises:
        InputError: ``targets.monte_carlo: soft`` for a format of hard labels, or no solution is left.
    """
    if format != "records" and targets.monte_carlo == "soft":
        raise InputError(
            f"targets.monte_carlo: soft, but {format} has only correct and incorrect; choose hard or threshold"
        )
    check_output(output)
    if logits and isinstance(input, Reader):
        raise InputError("logits: input is a reader; set its own logits option")
    reader = trial.limit_reader(input if isinstance(input, Reader) else Solutions(str(input), logits=logits))
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
    for solution in once(reader.solutions(), reader.described):
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
        raise InputError(f"{reader.described}: no solution to write; left out: {left_out or None}")


def _row(
    solution: Solution, format: str, targets: StepTargets, left_out: ReasonCounter, noted: ReasonCounter
) -> dict[str, Any] | None:
    """Return the solution in another format, or None if that is impossible.

    Solutions that are left out or cut are counted.
    """
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
    """Return whether each step is correct, up to the first without target."""
    wanted = [] if solution.step_labels is None else targets(solution.step_labels)
    return [target == 1 for target in takewhile(lambda target: target is not None, wanted)]


def _read(format: str, row: dict[str, Any]) -> Any:
    """Parse a row with the format's own reader, to compare.

    Texts may contain the format's tags, or begin as its step numbers do.
    """
    try:
        return _FORMATS[format].parse("", row)
    except InputError:
        return None
