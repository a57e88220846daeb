"""Read the trees of prefixes that searches have grown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sampling.report.browser.shards import Spool
from sampling.search.finished import FinishedSearch
from sampling.search.records import Expansion, Values
from stepverify.aggregate import vote_weight
from stepverify.jsonl import read_records
from stepverify.records import Solution

EXPANSIONS, VALUES = "expansions", "values"
"""Subfolders of a search."""
_KINDS = (EXPANSIONS, VALUES, "solutions")

_NUMBER = re.compile(r"@[0-9a-f]+([wg]?)\+(\d+)$")
"""End of an expansion's id: how it was sampled, and its number among those after the same steps."""


def spool_search(spool: Spool, search: FinishedSearch, wanted: Collection[str]) -> dict[str, tuple[str, str | None]]:
    """Keep expansions, values and solutions of a search by problem.

    Args:
        spool: gets them under ``(name of the search, kind, id of the problem)``.
        search: a finished one.
        wanted: ids of the problems.

    Returns:
        id → text and answer of those that have a solution.
    """
    how, problems = search.config["aggregation"], dict[str, tuple[str, str | None]]()
    for expansion in read_records(search.folder / EXPANSIONS, Expansion):
        if expansion.problem_id in wanted:
            kept = [expansion.id, expansion.parent, expansion.text, expansion.finish, expansion.tokens]
            spool.add((search.name, EXPANSIONS, expansion.problem_id), kept)
    for found in read_records(search.folder / VALUES, Values):
        if (problem := found.id.rpartition("@")[0]) in wanted:
            value = round(vote_weight(found.values, how), 4) if found.values else None
            spool.add((search.name, VALUES, problem), [found.id, value])
    for s in read_records(search.folder, Solution):
        if s.problem_id not in wanted:
            continue
        problems.setdefault(s.problem_id, (s.problem, s.answer))
        solved = None if s.correct is None else s.solved
        kept = [s.id, s.meta.get("expansion"), s.predicted, solved, s.finish]
        spool.add((search.name, "solutions", s.problem_id), kept)
    return problems


def spooled_tree(spool: Spool, search: FinishedSearch, problem: str) -> dict[str, Any]:
    """Return the tree of a problem that was searched, as :func:`tree` makes it, with its costs."""
    result = search.results[problem]
    expansions, values, solutions = (spool.values((search.name, kind, problem)) for kind in _KINDS)
    costs = {
        "tokens_sampled": result.cost.generated_tokens, "finished": result.num_finished, "strategy": result.strategy
    }  # fmt: skip
    return tree(expansions, values, solutions, result.choices) | costs


def tally_answers(trees: Iterable[Mapping[str, Any]], rule: str) -> tuple[int, int]:
    """Count the trees whose answer, chosen by a rule, is correct, and those in which it chose a graded one.

    Args:
        trees: of one problem.
        rule: kind of the rule, without the verifier.
    """
    correct = []
    for one in trees:
        verdicts = {node: verdict for node, _, _, verdict in one["solutions"]}
        correct += [verdicts[node] for name, node in one["choices"].items() if name.rpartition("/")[2] == rule][:1]
    graded = [verdict for verdict in correct if verdict is not None]
    return sum(graded), len(graded)


def tree(
    expansions: Iterable[Sequence[Any]], values: Iterable[Sequence[Any]], solutions: Iterable[Sequence[Any]],
    choices: Mapping[str, str | None],
) -> dict[str, Any]:  # fmt: skip
    """Order the nodes of a tree, parents before children, and name the state of each.

    Args:
        expansions: id, parent's id, text, finish and number of tokens.
        values: id and value of a node.
        solutions: id, expansion, final answer, whether it is correct, and finish.
        choices: rule → id of the solution that it selects.

    Returns:
        ``parents`` (index; -1 after the problem), ``texts``, ``values``, ``tokens`` and ``states``, one for each node:
        ``expanded`` (continued), ``pruned`` (could have been), ``finished`` (ended by itself), ``cut`` (by a limit) or
        ``ahead`` (sampled to look ahead). ``solutions``: index of the node, id, final answer and whether it is correct;
        ``choices``: rule → index of the node that it selects.
    """
    nodes = {node[0]: node for node in expansions}
    children: dict[str, list[str]] = {}
    for name, parent, *_ in nodes.values():
        children.setdefault(parent if parent in nodes else "", []).append(name)
    known = {row[0]: row[1] for row in values}
    ended = {row[1]: row for row in solutions}
    places: dict[str, int] = {}
    parents, states = list[int](), list[str]()
    waiting = [(name, -1) for name in sorted(children.get("", ()), key=_order, reverse=True)]
    while waiting:
        name, parent = waiting.pop()
        places[name] = len(places)
        parents.append(parent)
        below = sorted(children.get(name, ()), key=_order, reverse=True)
        finish = ended[name][4] if name in ended else nodes[name][3]
        states.append(_state(name, finish, expanded=bool(below)))
        waiting += [(child, places[name]) for child in below]
    ids = {row[0]: places[expansion] for expansion, row in ended.items() if expansion in places}
    return {
        "parents": parents, "states": states,
        "texts": [nodes[name][2] for name in places], "tokens": [nodes[name][4] for name in places],
        "values": [known.get(name) for name in places],
        "solutions": [[ids[s], s, answer, correct] for s, _, answer, correct, _ in ended.values() if s in ids],
        "choices": {rule: ids[chosen] for rule, chosen in choices.items() if chosen in ids},
    }  # fmt: skip


def _state(name: str, finish: str, *, expanded: bool) -> str:
    found = _NUMBER.search(name)
    if found and found[1] == "g":
        return "ahead"
    if expanded:
        return "expanded"
    return {"stop": "finished", "length": "cut"}.get(finish, "pruned")


def _order(name: str) -> tuple[str, int]:
    found = _NUMBER.search(name)
    return (found[1], int(found[2])) if found else ("", 0)
