"""Embed what a report was made of: scored solutions, what rules chose among them, and trees of searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampling.report.browser.columns import Columns
from sampling.report.browser.entries import Describer, body
from sampling.report.browser.page import page
from sampling.report.browser.room import count_by_problem, first_that_fit
from sampling.report.browser.shards import Shards, Spool, dumps
from sampling.report.browser.trees import EXPANSIONS, spool_search, spooled_tree, tally_answers
from sampling.search.finished import FinishedSearch
from sampling.selection.calibration import Calibration
from sampling.selection.calibration_files import read_mapped
from stepverify.jsonl import read_records
from stepverify.records import Ranking

NODES = 8
"""Prefixes of search trees that a page may hold for every solution that it may hold."""


@dataclass(slots=True)
class Sources:
    """Name what a page is made of.

    Attributes:
        scores: scored solutions.
        maps: verifier → calibration of its values.
        rankings: of these, or of other problems.
        searches: finished ones.
        final_rule: rule by which the final answer of a search is chosen.
    """

    scores: Path | None = None
    rankings: Path | None = None
    searches: Sequence[FinishedSearch] = ()
    final_rule: str = "best_of_n"
    maps: Mapping[str, Calibration] = field(default_factory=dict)


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


class _Gathered:
    """Gather what is embedded: texts and answers in memory, the rest in a temporary file.

    Attributes:
        problems: id → text and reference answer.
        embedded: counts of what is gathered, and of what there is.
    """

    def __init__(self, spool: Spool, sources: Sources, limit: int) -> None:
        self._spool, self._sources = spool, sources
        self.searches = [search for search in sources.searches if (search.folder / EXPANSIONS).is_dir()]
        self._sizes = Counter[str]() if sources.scores is None else count_by_problem(sources.scores)
        self._nodes = {problem: 0 for search in self.searches for problem in search.results}
        for search in self.searches:
            for problem, number in count_by_problem(search.folder / EXPANSIONS).items():
                self._nodes[problem] = self._nodes.get(problem, 0) + number
        everyone = [*{**self._sizes, **self._nodes}]
        self._described, self._grown = first_that_fit(self._sizes, limit), first_that_fit(self._nodes, limit * NODES)
        self.problems: dict[str, tuple[str, str | None]] = {
            p: ("", None) for p in everyone if p in self._described or p in self._grown
        }
        self.embedded = Embedded(
            len(self.problems), len(everyone), sum(self._sizes[problem] for problem in self._described),
            self._sizes.total(), sum(len(self._searched(problem)) for problem in self._grown),
            sum(len(search.results) for search in self.searches),
            [search.name for search in sources.searches if search not in self.searches],
        )  # fmt: skip

    def read(self, describer: Describer) -> None:
        """Read what is embedded; no more of a file than it takes."""
        left = self.embedded.solutions
        scores = self._sources.scores
        for solution in read_mapped(scores, self._sources.maps) if scores is not None else ():
            if solution.problem_id in self._described:
                self._add(solution.problem_id, solution.problem, solution.answer)
                self._spool.add(("entries", solution.problem_id), describer.entry(solution))
                self._spool.add(("bodies", solution.problem_id), body(solution))
                left -= 1
            if not left:
                break
        for search in self.searches:
            for problem, (text, answer) in spool_search(self._spool, search, self._grown).items():
                self._add(problem, text, answer)
            for problem in self._grown & search.results.keys():  # one in which nothing was found
                self._add(problem, "", search.results[problem].answer)

    def _add(self, problem: str, text: str, answer: str | None) -> None:
        """Keep text and answer; where another record says more, that is kept."""
        before = self.problems[problem]
        self.problems[problem] = before[0] or text, answer if before[1] is None else before[1]

    def _searched(self, problem: str) -> list[FinishedSearch]:
        return [search for search in self.searches if problem in search.results]

    def solutions(self, problem: str) -> tuple[list[dict[str, Any]], str]:
        """Return the entries of a problem's solutions, and their bodies as JSON."""
        bodies = ",".join(self._spool.texts(("bodies", problem)))
        return list(self._spool.values(("entries", problem))), f"[{bodies}]"

    def trees(self, problem: str) -> dict[str, dict[str, Any]]:
        """Return search → tree of a problem."""
        if problem not in self._grown:
            return {}
        return {search.name: spooled_tree(self._spool, search, problem) for search in self._searched(problem)}


def browse_report(path: Path, sources: Sources, describer: Describer, limit: int) -> Embedded:
    """Write the browser of a report.

    Memory holds the entries of solutions that are embedded, and the ids of all problems.

    Args:
        path: the page.
        sources: what it is made of.
        describer: knows the aggregations and thresholds of verifiers.
        limit: largest number of solutions. The first problems are embedded, each with all its solutions, one problem at
            least; likewise search trees, up to :data:`NODES` prefixes for each solution of the limit.

    Returns:
        What the page holds.
    """
    with Spool() as spool, page(path, "Solutions") as (file, index):
        gathered = _Gathered(spool, sources, limit)
        gathered.read(describer)
        chosen = _choices(sources.rankings, gathered.problems)
        columns = Columns(describer.verifiers)
        bodies, grown = Shards(file, "s"), Shards(file, "t")
        for number, (problem, (text, answer)) in enumerate(gathered.problems.items()):
            (entries, shown), trees = gathered.solutions(problem), gathered.trees(problem)
            shards = {"solutions": bodies.add(number, shown)} if entries else {}
            shards |= {"trees": grown.add(number, dumps(trees))} if trees else {}
            tally = tally_answers(trees.values(), sources.final_rule) if trees else None
            columns.add(problem, text, answer, entries, chosen.get(problem, {}), tally, **shards)
        bodies.close()
        grown.close()
        index.update(
            columns.index, kind="report", final_rule=sources.final_rule, said=gathered.embedded.describe(),
            searches=[search.name for search in gathered.searches],
        )  # fmt: skip
    return gathered.embedded


def _choices(rankings: Path | None, problems: Collection[str]) -> dict[str, dict[str, str | None]]:
    """Return what each rule selects from the solutions of a problem."""
    found: Iterator[Ranking] = read_records(rankings, Ranking) if rankings is not None else iter(())
    return {ranking.problem_id: ranking.choices for ranking in found if ranking.problem_id in problems}
