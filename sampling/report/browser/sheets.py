"""Embed rating sheets: the page in which people rate them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sampling.report.browser.columns import Columns
from sampling.report.browser.entries import HALF, Seen
from sampling.report.browser.page import page
from sampling.report.browser.shards import Shards, dumps
from stepverify.records import RatingSheet

_VERIFIER = "verifier"


def browse_sheets(path: Path, sheets: Iterable[RatingSheet]) -> int:
    """Write a page in which people rate the steps of sheets, and from which they download them.

    Ratings that sheets hold already are shown. Neither correctness nor scores are, except for those that sheets hold.

    Args:
        path: the page.
        sheets: those of a problem need not stand together.

    Returns:
        The number of sheets.
    """
    problems: dict[str, list[RatingSheet]] = {}
    for sheet in sheets:
        problems.setdefault(sheet.problem_id, []).append(sheet)
    shown = any(sheet.scores for group in problems.values() for sheet in group)
    with page(path, "Rate steps") as (file, index):
        columns, bodies = Columns({_VERIFIER: Seen("last", HALF, many=True)} if shown else {}), Shards(file, "s")
        for number, (problem, group) in enumerate(problems.items()):
            shard = bodies.add(number, dumps([_body(sheet) for sheet in group]))
            columns.add(problem, group[0].problem, group[0].answer, map(_entry, group), {}, solutions=shard)
        bodies.close()
        count = sum(map(len, problems.values()))
        said = f"{len(problems):,} problems, {count:,} solutions"
        index.update(columns.index, kind="sheets", searches=[], said=said)
    return count


def _entry(sheet: RatingSheet) -> dict[str, Any]:
    score = sheet.scores[-1] if sheet.scores else None
    return {
        "id": sheet.id, "correct": None, "predicted": None, "steps": len(sheet.steps), "tokens": None,
        "characters": sum(map(len, sheet.steps)), "finish": None, "error": None, "spread": None, "disagree": False,
        "judged": {_VERIFIER: (score, None, 0)},
    }  # fmt: skip


def _body(sheet: RatingSheet) -> dict[str, Any]:
    values = {_VERIFIER: [round(value, 4) for value in sheet.scores]} if sheet.scores else {}
    return {
        "steps": sheet.steps, "separator": "\n", "values": values, "ratings": sheet.ratings, "meta": sheet.meta,
    }  # fmt: skip
