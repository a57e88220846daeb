"""Gather the entries of solutions in columns, which make up the index of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sampling.report.browser.entries import Seen

UNKNOWN = -2
"""Index of a first error that is unknown; -1 says that there is none."""


_COLUMNS = ("id", "correct", "predicted", "steps", "tokens", "characters", "cut", "error", "spread", "disagree")


class Columns:
    """Gather problems and their solutions.

    Args:
        verifiers: in the order of their columns.
    """

    def __init__(self, verifiers: Mapping[str, Seen]) -> None:
        self._names = [*verifiers]
        self._by_step = [seen.kind == "step" for seen in verifiers.values()]
        self._answers: dict[str | None, int] = {None: -1}
        self._problems: list[dict[str, Any]] = []
        self._columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._judged: list[dict[str, list[Any]]] = [{"score": [], "predicted": [], "flags": []} for _ in self._names]
        self._verifiers = [
            {"name": name, "kind": seen.kind, "how": seen.how, "threshold": seen.threshold}
            for name, seen in verifiers.items()
        ]

    @property
    def index(self) -> dict[str, Any]:
        """Return everything that was added."""
        return {
            "problems": self._problems, "columns": self._columns, "judged": self._judged,
            "answers": [*self._answers][1:], "verifiers": self._verifiers,
        }  # fmt: skip

    def add(
        self, problem: str, text: str, answer: str | None, entries: Iterable[dict[str, Any]],
        choices: Mapping[str, str | None], searched: tuple[int, int] | None = None, **shards: int,
    ) -> None:  # fmt: skip
        """Add a problem with the entries of its solutions.

        Args:
            problem: its id.
            text: of the problem.
            answer: the reference answer.
            entries: of its solutions.
            choices: rule → id of the solution that it selects.
            searched: number of searches whose final answer is correct, and of those that have one that is graded.
            shards: kind → number of the shard with the problem's data.
        """
        ids = []
        for entry in entries:
            ids.append(entry["id"])
            self._append(problem, entry)
        chosen = {rule: ids.index(one) for rule, one in choices.items() if one in ids}
        known = (
            {"answer": answer} | ({"chosen": chosen} if chosen else {}) | ({"searched": searched} if searched else {})
        )
        self._problems.append({"id": problem, "text": text, "count": len(ids), **known, **shards})

    def _append(self, problem: str, entry: Mapping[str, Any]) -> None:
        own = entry["id"]
        error, spread, finish = entry["error"], entry["spread"], entry["finish"]
        row = {name: entry[name] for name in ("correct", "steps", "tokens", "characters")} | {
            # Most ids are that of the problem and a number; "=" is before those that are not.
            "id": own[len(problem) :] if own.startswith(f"{problem}#") else f"={own}",
            "predicted": self._answers.setdefault(entry["predicted"], len(self._answers) - 1),
            "cut": int(finish == "length"), "error": UNKNOWN if error is None else error,
            "spread": spread if spread is None else round(spread, 4), "disagree": int(entry["disagree"]),
        }  # fmt: skip
        for name, column in self._columns.items():
            column.append(row[name])
        for name, by_step, columns in zip(self._names, self._by_step, self._judged, strict=True):
            score, predicted, flags = entry["judged"].get(name, (None, None, 0))
            columns["score"].append(score if score is None else round(score, 4))
            columns["predicted"].append(predicted if by_step and predicted is not None else UNKNOWN)
            columns["flags"].append(flags)
