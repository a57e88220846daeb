"""Embed what a report was made of: scored solutions, what rules chose among them, and trees of searches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampling.report.browser.columns import Columns
from sampling.report.browser.entries import Describer, body
from sampling.report.browser.page import page
from sampling.report.browser.shards import Shards, Spool, dumps
from sampling.report.browser.trees import EXPANSIONS, spool_search, spooled_tree, tally_answers
from sampling.search.finished import FinishedSearch
from stepverify.jsonl import read_records
from stepverify.records import Ranking, Solution

NODES = 8
"""Prefixes of search trees that a page may hold for every solution that it may hold."""


@dataclass(slots=True)
class Sources:
    """Name what a page is made of.

    Attributes:
        scores: scored solutions.
        rankings: of these, or of other problems.
        searches: finished ones.
        final_rule: rule by which the final answer of a search is chosen.
    """

    scores: Path | None = None
    rankings: Path | None = None
    searches: Sequence[FinishedSearch] = ()
    final_rule: str = "best_of_n"


@dataclass(slots=True)
class Embedded:
    """Count what a page holds, and what was there."""

    problems: int = 0
    of_problems: int = 0
    solutions: int = 0
    of_solutions: int = 0
    trees: int = 0
    of_trees: int = 0
    without_trees: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Say both, so that nothing is left out silently."""
        counts = (
            ("problems", self.problems, self.of_problems), ("solutions", self.solutions, self.of_solutions),
            ("search trees", self.trees, self.of_trees),
        )  # fmt: skip
        said = [
            f"{here:,} {what}" if here == there else f"{here:,} of {there:,} {what}"
            for what, here, there in counts
            if there
        ]
        lacking = [f"no trees of {name}, which has no {EXPANSIONS}/" for name in self.without_trees]
        return ", ".join([*said, *lacking])


@dataclass(slots=True)
class _Room:
    """Hold how much may still be embedded."""

    left: int
    untouched: bool = True

    def take(self, size: int) -> bool:
        """Take so much if it fits, or is the first; nothing more after something that did not fit."""
        fits = self.untouched or size <= self.left
        self.left, self.untouched = (self.left - size if fits else -1), False
        return fits


@dataclass(slots=True)
class _Gathered:
    """Gather problems in the order in which they come, and their data on disk."""

    solutions: Spool
    trees: Spool
    problems: dict[str, tuple[str, str | None]] = field(default_factory=dict)

    def add(self, problem: str, text: str, answer: str | None) -> None:
        """Keep a problem; where another record says more, that is kept."""
        before = self.problems.get(problem, ("", None))
        self.problems[problem] = before[0] or text, answer if before[1] is None else before[1]

    def read(self, sources: Sources, searches: Sequence[FinishedSearch], describer: Describer) -> None:
        """Read everything once."""
        for solution in read_records(sources.scores, Solution) if sources.scores is not None else ():
            self.add(solution.problem_id, solution.problem, solution.answer)
            self.solutions.add(("entries", solution.problem_id), describer.entry(solution))
            self.solutions.add(("bodies", solution.problem_id), body(solution))
        for search in searches:
            for problem, (text, answer) in spool_search(self.trees, search).items():
                self.add(problem, text, answer)
            for problem, result in search.results.items():
                self.add(problem, "", result.answer)


def browse_report(path: Path, sources: Sources, describer: Describer, limit: int) -> Embedded:
    """Write the browser of a report.

    Memory holds the entries of solutions that are embedded, and where the others are in a temporary file.

    Args:
        path: the page.
        sources: what it is made of.
        describer: knows the aggregations and thresholds of verifiers.
        limit: largest number of solutions. The first problems are embedded, each with all its solutions, one problem at
            least; likewise search trees, up to :data:`NODES` prefixes for each solution of the limit.

    Returns:
        What the page holds.
    """
    with ExitStack() as stack:
        gathered = _Gathered(stack.enter_context(Spool()), stack.enter_context(Spool()))
        searches = [search for search in sources.searches if (search.folder / EXPANSIONS).is_dir()]
        gathered.read(sources, searches, describer)
        file, index = stack.enter_context(page(path, "Solutions"))
        chosen = _choices(sources.rankings, gathered.problems)
        columns = Columns(describer.verifiers)
        bodies, grown = Shards(file, "s"), Shards(file, "t")
        without = [search.name for search in sources.searches if search not in searches]
        embedded = Embedded(of_problems=len(gathered.problems), without_trees=without)
        room, room_of_nodes = _Room(limit), _Room(limit * NODES)
        for problem, (text, answer) in gathered.problems.items():
            described = gathered.solutions.count(("bodies", problem))
            searched = [search for search in searches if problem in search.results]
            embedded.of_solutions += described
            embedded.of_trees += len(searched)
            nodes = sum(gathered.trees.count((search.name, EXPANSIONS, problem)) for search in searched)
            number, shards, entries = embedded.problems, dict[str, int](), list[dict[str, Any]]()
            tally = None
            if described and room.take(described):
                entries = list(gathered.solutions.values(("entries", problem)))
                shown = ",".join(gathered.solutions.texts(("bodies", problem)))
                shards["solutions"] = bodies.add(number, f"[{shown}]")
                embedded.solutions += described
            if searched and room_of_nodes.take(nodes):
                trees = {search.name: spooled_tree(gathered.trees, search, problem) for search in searched}
                tally = tally_answers(trees.values(), sources.final_rule)
                shards["trees"] = grown.add(number, dumps(trees))
                embedded.trees += len(searched)
            if shards:
                columns.add(problem, text, answer, entries, chosen.get(problem, {}), tally, **shards)
                embedded.problems += 1
        bodies.close()
        grown.close()
        index.update(
            columns.index, kind="report", final_rule=sources.final_rule,
            searches=[search.name for search in searches], said=embedded.describe(),
        )  # fmt: skip
    return embedded


def _choices(rankings: Path | None, problems: Collection[str]) -> dict[str, dict[str, str | None]]:
    """Return what each rule selects from the solutions of a problem."""
    found: Iterator[Ranking] = read_records(rankings, Ranking) if rankings is not None else iter(())
    return {ranking.problem_id: ranking.choices for ranking in found if ranking.problem_id in problems}
