"""Select solutions for people to rate: convincing incorrect answers.

If a process reward model gives a high score to a solution whose answer is incorrect, it has missed the incorrect step.
Ratings of such solutions teach it more than ratings of random ones: active learning by this rule is about 2.6 times as
data-efficient (Lightman et al. 2023, sections 2.4 and 4.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from sampling.runtime.provenance import digest
from sampling.runtime.store import Store
from stepverify import jsonl
from stepverify.aggregate import Aggregation, aggregate
from stepverify.readers import Reader
from stepverify.readers.base import same_steps
from stepverify.records import InputError, RatingSheet, Solution

PAGE = "rate.html"
_BATCH = 512  # sheets per write, since each write waits for the disk


@dataclass(slots=True)
class Candidate:
    """Describe one solution for selection.

    ``steps`` is equal for two solutions of a problem with the same steps.
    """

    id: str
    problem_id: str
    score: float
    incorrect: bool
    steps: bytes


def most_convincing(candidates: Iterable[Candidate], size: int, incorrect_share: float = 0.8) -> list[Candidate]:
    """Select the best-scored incorrect candidates, then the best-scored of the rest.

    Incorrect candidates get ``incorrect_share`` of ``size``; places that they cannot fill go to the rest. Among
    solutions of one problem with the same steps only the best-scored one is taken. Equal scores are ordered by id, so
    the order of the candidates does not matter.
    """
    seen: set[tuple[str, bytes]] = set()
    ranked = []
    for candidate in sorted(candidates, key=lambda c: (-c.score, c.id)):
        if (key := (candidate.problem_id, candidate.steps)) not in seen:
            seen.add(key)
            ranked.append(candidate)
    incorrect = [c for c in ranked if c.incorrect][: incorrect_places(size, incorrect_share)]
    taken = {c.id for c in incorrect}
    return incorrect + [c for c in ranked if c.id not in taken][: size - len(incorrect)]


def incorrect_places(size: int, incorrect_share: float) -> int:
    """Return how many of ``size`` places incorrect solutions get.

    The nearest whole number, with halves rounded up.
    """
    return int(incorrect_share * size + 0.5)


def select(
    input: Path,
    output: Path,
    per_problem: int | None = None,
    total: int | None = None,
    incorrect_share: float = 0.8,
    verifier: str | None = None,
    aggregation: Aggregation = "prod",
    unanswered: Literal["leave_out", "incorrect"] = "leave_out",
    rated: Reader | None = None,
    show_scores: bool = False,
) -> None:
    """Select the solutions whose steps people should rate.

    Writes one rating sheet per solution, and ``rate.html``, a page in which people rate the steps of all of them and
    download a file of sheets; or they replace a ``null`` of ``ratings`` with 1, 0 or -1 by hand.
    ``stepverify.readers.HumanRatings`` reads both. A finished folder is never overwritten, so no rating is lost.

    Args:
        input: graded and scored solutions of many problems.
        output: the folder to write.
        per_problem: number of solutions per problem, or ...
        total: ... in all: the most convincing ones, whatever their problems are.
        incorrect_share: share of the places that incorrect answers get; the others go to the most convincing of the
            rest, correct or incorrect.
        verifier: name of the scores; None takes the only ones.
        aggregation: how the values along a solution become its score (``prod``: Lightman et al. 2023, section 2.6).
        unanswered: solutions without a final answer, or cut off at the token limit: ``leave_out``, or count them as
            ``incorrect``.
        rated: solutions that people rated in earlier rounds; no solution with the same steps is selected again.
        show_scores: write the verifier's values on the sheets. Raters who see them may be influenced by them.

    Raises:
        InputError: ungraded or unscored solutions, nothing to select, or a folder that was made with other settings.
    """
    if (per_problem is None) == (total is None):
        raise InputError(f"per_problem, total: expected one of the two, got {per_problem} and {total}")
    size = per_problem or total or 0
    if size < 1:
        raise InputError(f"{'total' if per_problem is None else 'per_problem'}: expected 1 or more, got {size}")
    if not 0 <= incorrect_share <= 1:
        raise InputError(f"incorrect_share: expected 0 to 1, got {incorrect_share}")
    before = list(rated.solutions()) if rated else []
    config = {
        "per_problem": per_problem, "total": total, "incorrect_share": incorrect_share, "verifier": verifier,
        "aggregation": aggregation, "unanswered": unanswered, "rated": digest(before), "show_scores": show_scores,
    }  # fmt: skip

    def store() -> Store[RatingSheet]:
        return Store(output, RatingSheet, stage="select", config=config, inputs={"input": input}, editable=True)

    if (output / jsonl.MANIFEST).is_file() and _keep(output, store):
        return
    # Check the input before making the folder, so that a mistake in `verifier` does not bind it to this configuration.
    known = {(s.problem_id, same_steps(s.steps)) for s in before}
    pool, name, counts = _read_pool(input, verifier, aggregation, known, leave_out=unanswered == "leave_out")
    groups = [[c for group in pool.values() for c in group]] if per_problem is None else list(pool.values())
    chosen = [most_convincing(group, size, incorrect_share) for group in groups]
    incorrect = {c.id: c.incorrect for selected in chosen for c in selected}
    if not incorrect:
        raise InputError(f"{input}: nothing to select from: {_describe(counts)}")
    short = [incorrect_places(size, incorrect_share) - sum(c.incorrect for c in selected) for selected in chosen]
    summary = {
        "selected": len(incorrect), "incorrect": sum(incorrect.values()),
        "correct": len(incorrect) - sum(incorrect.values()),
        "problems": len({c.problem_id for selected in chosen for c in selected}),
        "places_of_incorrect_ones_not_filled_by_them": sum(max(n, 0) for n in short),
        "places_left_empty": sum(size - len(selected) for selected in chosen),
    }  # fmt: skip
    with store() as out:
        sheets = _sheets(input, {i for i in incorrect if i not in out.done}, name if show_scores else None)
        while batch := list(islice(sheets, _BATCH)):
            out.write(batch)
        out.finish(summary | {"verifier": name, "input": counts})
    print(f"{output}: {_describe(summary)}\n  of {_describe(counts)}")
    _write_page(output)


def _write_page(output: Path) -> None:
    from sampling.report.browser import browse_sheets

    browse_sheets(output / PAGE, jsonl.read_records(output, RatingSheet))
    print(f"  people rate the steps in {output / PAGE}, and download their sheets there")


def _keep(output: Path, store: Callable[[], Store[RatingSheet]]) -> bool:
    """Tell whether the folder is finished and therefore left as it is.

    Raises:
        InputError: it was made with other settings. If people have rated in it, the message does not advise removing
            it.
    """
    rated = 0
    with suppress(InputError):  # the store reports bad records below
        for shard in output.glob("part-*.jsonl"):
            rated += sum(sheet.rated for sheet in jsonl.read_records(shard, RatingSheet))
    try:
        kept = store()
    except InputError as error:
        if not rated:
            raise
        difference = str(error).partition("; ")[0]
        raise InputError(f"{difference}; people have rated {rated} solutions in it: choose another output") from None
    if kept.finished:
        print(f"{output}: already selected, left as it is; {rated} of {len(kept.done)} solutions have ratings")
        if not (output / PAGE).is_file():  # killed before it was written, or removed
            _write_page(output)
    return kept.finished


def _read_pool(
    input: Path, name: str | None, aggregation: Aggregation, rated: Collection[tuple[str, bytes]], *, leave_out: bool
) -> tuple[dict[str, list[Candidate]], str, dict[str, int]]:
    """Read candidates by problem id, the name of the scores, and counts.

    The counts are of the solutions read and of those left out, by reason.
    """
    pool: dict[str, list[Candidate]] = {}
    seen: set[tuple[str, bytes]] = set()
    counts = Counter(dict.fromkeys(("solutions", "unanswered", "without_scores", "rated_before", "duplicates"), 0))
    for where, solution in jsonl.read_located(input, Solution):
        here = f"{where}: solution {solution.id}"
        if solution.correct is None:
            raise InputError(f"{here} is not graded ('correct' is missing); run `sampling label` first")
        if name is None and len(solution.scores) == 1:
            (name,) = solution.scores
        if name not in solution.scores:
            raise InputError(f"{here} has scores by {sorted(solution.scores)}; verifier: {name!r} is none of them")
        values, steps = solution.scores[name], same_steps(solution.steps)
        counts["solutions"] += 1
        if not values:
            counts["without_scores"] += 1
        elif leave_out and (solution.predicted is None or solution.finish == "length"):
            counts["unanswered"] += 1
        elif (solution.problem_id, steps) in rated:
            counts["rated_before"] += 1
        else:
            counts["duplicates"] += (solution.problem_id, steps) in seen
            seen.add((solution.problem_id, steps))
            pool.setdefault(solution.problem_id, []).append(
                Candidate(solution.id, solution.problem_id, aggregate(values, aggregation), not solution.solved, steps)
            )
    assert name is not None
    return pool, name, dict(counts)


def _sheets(input: Path, wanted: Collection[str], scores: str | None) -> Iterator[RatingSheet]:
    """Yield empty rating sheets in input order.

    So the sheets of a problem stay together.
    """
    for s in jsonl.read_records(input, Solution):
        if s.id in wanted:
            yield RatingSheet(
                id=s.id, problem_id=s.problem_id, problem=s.problem, answer=s.answer, steps=s.steps,
                ratings=[None] * len(s.steps), scores=s.scores[scores] if scores else [],
            )  # fmt: skip


def _describe(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in counts.items())
