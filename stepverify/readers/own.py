"""Make the project's records of rows with other columns, types and formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from stepverify.consistency import Consistency
from stepverify.decoding import parse_record
from stepverify.readers.base import ReasonCounter, lines
from stepverify.readers.released import digest
from stepverify.readers.stepwise import parse_label
from stepverify.readers.tables import Columns, Row
from stepverify.records import InputError, Problem, Record, Solution

_PROBLEM = {"id": False, "problem": True, "answer": False, "steps": False, "meta": False}
_SOLUTION = {
    "id": False, "problem_id": False, "problem": True, "steps": True, "answer": False, "finish": False, "seed": False,
    "generator": False, "predicted": False, "correct": False, "step_labels": False, "scores": False, "meta": False,
}  # fmt: skip
_TEXTS = ("id", "problem_id", "answer", "predicted", "generator")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def problem_columns(columns: dict[str, str] | None) -> Columns:
    """Make the columns of problems."""
    return Columns(columns, "Problems", _PROBLEM, ("meta",))


def solution_columns(columns: dict[str, str] | None, texts_elsewhere: bool) -> Columns:
    """Make the columns of solutions; with texts elsewhere, ``problem_id`` is needed in place of ``problem``."""
    fields = _SOLUTION | {"problem": not texts_elsewhere, "problem_id": texts_elsewhere}
    return Columns(columns, "Solutions", fields, ("meta", "scores"))


def read_problems(found: Iterator[Row], columns: Columns, noted: ReasonCounter) -> Iterator[Problem]:
    """Yield problems of rows; an id that is missing is ``problem/<digest of the text>``.

    Raises:
        InputError: naming row, key and value, or an id that occurs twice.
    """
    yield from _records(Problem, found, columns, noted, _name_problem)


def read_solutions(
    found: Iterator[Row], columns: Columns, noted: ReasonCounter, change: Callable[[str, Any], None] | None
) -> Iterator[Solution]:
    """Yield solutions of rows; ids that are missing are made of the problem's digest and a number.

    Raises:
        InputError: naming row, key and value, or an id that occurs twice.
    """
    numbers = Counter[str]()

    def name(where: str, data: dict[str, Any]) -> list[str]:
        made = [key for key in ("problem_id", "id") if data.get(key) is None]
        if "problem_id" in made:
            data["problem_id"] = f"problem/{_digest(where, data)}"
        data.setdefault("problem", "")
        if "id" in made:
            data["id"] = f"{data['problem_id']}#{numbers[data['problem_id']]}"
            numbers[data["problem_id"]] += 1
        if (labels := data.get("step_labels")) is not None:
            if not isinstance(labels, list):
                raise InputError(f"{where}: key 'step_labels': expected a list, got {labels!r:.80}")
            data["step_labels"] = [
                label if label is None or isinstance(label, dict) else _label(f"{where}: key 'step_labels[{i}]'", label)
                for i, label in enumerate(labels)
            ]
        if change is not None:
            change(where, data)
        return made

    yield from _records(Solution, found, columns, noted, name)


def _records(
    kind: type[Record], found: Iterator[Row], columns: Columns, noted: ReasonCounter,
    name: Callable[[str, dict[str, Any]], list[str]],
) -> Iterator[Record]:  # fmt: skip
    seen = Consistency()
    for where, row in found:
        data, unread = columns(where, row)
        data = {key: _plain(key, value) for key, value in data.items() if value is not None}
        for key in name(where, data):
            noted.note(f"rows without {key}, which was made of the problem's text", where)
        if unread:
            noted.note(f"rows with columns that are not read: {', '.join(sorted(unread))}", where)
        try:
            record = parse_record(kind, data)
            if not seen.add(where, record):
                raise InputError(f"id {data['id']!r} occurs twice")
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        yield record
    seen.check()


def _plain(key: str, value: Any) -> Any:
    """Convert numbers to texts, texts to steps or truth values, where a field is of that type."""
    if key in _TEXTS and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if key == "steps" and isinstance(value, str):
        return lines(value)
    if key == "correct" and isinstance(value, str | int):
        return _TRUTH.get(str(value).lower(), value)
    if key == "scores" and isinstance(value, dict):
        return {name: v if isinstance(v, list) else [v] for name, v in value.items() if v is not None}
    return value


def _name_problem(where: str, data: dict[str, Any]) -> list[str]:
    if data.get("id") is not None:
        return []
    data["id"] = f"problem/{_digest(where, data)}"
    return ["id"]


def _digest(where: str, data: dict[str, Any]) -> str:
    if not isinstance(text := data.get("problem"), str):
        raise InputError(f"{where}: key 'problem': expected a string, got {text!r:.80}")
    return digest(text)


def _label(where: str, label: Any) -> dict[str, Any]:
    made = parse_label(where, label)
    return {"rating": made.rating} if made.rating is not None else {"value": made.value}
