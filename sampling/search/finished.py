"""Read finished searches of the same problems."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from sampling.search.records import SearchResult
from stepverify import trial
from stepverify.jsonl import MANIFEST, read_located, read_records
from stepverify.manifest import flatten, read_manifest
from stepverify.records import InputError, Solution

Unit = Literal["tokens", "flops"]
"""Name what a budget counts for each problem: sampled tokens, or FLOPs of generator and verifier."""
FinalRule = Literal["best_of_n", "weighted_vote", "majority"]
"""Name the rule that chooses the final answer, for all searches."""
LAW = ("engine", "sampling", "template", "few_shot", "verifier", "aggregation", "max_depth", "max_tokens")
"""Keys of a search that searches which are compared should share; all but the strategy, the problems and the seed."""


@dataclass(frozen=True, slots=True)
class FinishedSearch:
    """Hold a finished search.

    Attributes:
        name: as it is reported.
        folder: of its solutions.
        config: of its manifest.
        results: problem id → result.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    results: dict[str, SearchResult]

    @property
    def is_best_of_n(self) -> bool:
        """Tell whether its solutions are independent samples."""
        return bool(self.config["strategy"]["strategy"] == "BestOfN")

    @property
    def law(self) -> dict[str, Any]:
        """Return the part of the configuration that is :data:`LAW`."""
        return {key: self.config[key] for key in LAW}

    def sizes(self, problems: Sequence[str]) -> list[int]:
        """Return the numbers of samples of best-of-N's curve.

        [0] for every other search, which is one point.
        """
        return max((self.results[p].sizes for p in problems), key=lambda s: s[-1]) if self.is_best_of_n else [0]

    def accuracy(self, kind: str, problems: Sequence[str]) -> np.ndarray:
        """Return the probability of being correct by a rule, shape (problems, sizes).

        A problem with fewer samples than others counts with those that it has, and one without a choice as incorrect.

        Args:
            kind: name of the rule without the verifier.
            problems: ids.
        """
        rows = []
        sizes = self.sizes(problems)
        for result in map(self.results.__getitem__, problems):
            curve = next((c for rule, c in result.curves.items() if rule.rpartition("/")[2] == kind), None)
            own = result.sizes if self.is_best_of_n else [0]
            rows.append([0.0 if curve is None else curve[max(0, bisect_right(own, n) - 1)] for n in sizes])
        return np.array(rows)

    def cost(self, unit: Unit, problems: Sequence[str], *, verifier: bool = True) -> np.ndarray | None:
        """Return the cost of each problem, shape (problems, sizes).

        None if it is unknown. The first n of N samples cost n / N of the sampled tokens and of the verifier's FLOPs,
        and the prompt once, whatever n is. Where the verifier reads once what samples share, this is less than n
        samples alone cost it.

        Args:
            unit: of the cost.
            problems: ids.
            verifier: count its FLOPs too.
        """
        rows = []
        sizes = self.sizes(problems)
        for result in map(self.results.__getitem__, problems):
            own, cost = result.sizes[-1], result.cost
            shares = np.array([min(n, own) / own for n in sizes]) if self.is_best_of_n else np.ones(1)
            if unit == "tokens":
                rows.append(shares * cost.generated_tokens)
            elif cost.flops is None or cost.verifier_flops is None:
                return None
            else:
                engine = cost.flops - cost.verifier_flops
                prompt = engine * cost.prompt_tokens / max(1, cost.prompt_tokens + cost.generated_tokens)
                rows.append(prompt + shares * (engine - prompt + verifier * cost.verifier_flops))
        return np.array(rows)

    def num_values(self, problems: Sequence[str]) -> int:
        """Return of how many first samples there are scores, at most."""
        return max(len(self.results[p].values) for p in problems)

    def predicted(self, num_samples: int, problems: Sequence[str], key: str = "prediction_samples") -> np.ndarray:
        """Return the mean score of first samples, shape (problems,).

        Low ones are difficult.

        Raises:
            InputError: fewer samples were kept.
        """
        if (most := self.num_values(problems)) < num_samples:
            raise InputError(f"{key}: {num_samples}: searches.{self.name} has scores of {most} samples")
        return np.array([predict(self.results[p].values, num_samples) for p in problems])


def predict(values: Sequence[float], num_samples: int) -> float:
    """Return the mean score of the first samples, by which difficulty is predicted.

    Low ones are difficult; a sample that is missing counts 0.
    """
    return sum(values[:num_samples]) / num_samples


def read_search(name: str, folder: Path) -> FinishedSearch:
    """Read the results of a finished search.

    Raises:
        InputError: not the output of a search, or one that has not finished.
    """
    results = folder / "results"
    manifest = read_manifest(results / MANIFEST) if (results / MANIFEST).is_file() else None
    if manifest is None or manifest["stage"] != "results":
        made = read_manifest(folder / MANIFEST)["stage"] if (folder / MANIFEST).is_file() else None
        said = f", but of `sampling {made}`" if made else ""
        raise InputError(f"searches.{name}: {folder}: not the output of `sampling search`{said}")
    if not manifest["finished"]:
        raise InputError(f"searches.{name}: {folder}: the search has not finished; run the same command again")
    config = manifest["config"]
    if lacking := [key for key in ("strategy", "verifier_name", *LAW) if key not in config]:
        raise InputError(f"{results / MANIFEST}: key 'config' lacks {lacking[0]}; run the search again")
    found = {result.problem_id: result for result in read_records(results, SearchResult)}
    return FinishedSearch(name, folder, config, found)


@dataclass(frozen=True, slots=True)
class Shared:
    """Hold searches, and the problems that all of them have graded.

    Attributes:
        searches: in the order given.
        problems: ids, in the order of the first search.
        left_out: search → number of its problems that are not among these.
    """

    searches: list[FinishedSearch]
    problems: list[str]
    left_out: dict[str, int]

    @property
    def best_of_n(self) -> FinishedSearch | None:
        """Return the best-of-N search of most samples, the first of equals."""
        found = [search for search in self.searches if search.is_best_of_n]
        return max(found, key=lambda search: search.sizes(self.problems)[-1], default=None)


def read_shared(folders: Mapping[str, Path]) -> Shared:
    """Read searches, and find the problems that all have.

    Raises:
        InputError: as :func:`read_search`; no problem that all searches have and that has a reference answer; a problem
            with different ones.
    """
    if not folders:
        raise InputError("searches: expected one search at least")
    searches = [read_search(name, folder) for name, folder in folders.items()]
    first, *others = searches
    for problem, result in first.results.items():
        for other in others:
            if problem in other.results and (answer := other.results[problem].answer) != result.answer:
                raise InputError(
                    f"searches.{other.name}: problem {problem} has the reference answer {answer!r}, in "
                    f"searches.{first.name} {result.answer!r}"
                )
    common = [p for p in first.results if all(p in other.results for other in others)]
    if not common:
        raise InputError(
            f"searches: {', '.join(folders)} have no problem in common; give searches of the same problems"
        )
    problems = [*trial.first(p for p in common if all(search.results[p].curves for search in searches))]
    if not problems:
        raise InputError("searches: no problem has a reference answer, so that there is no accuracy to report")
    if not sum(search.results[p].cost.generated_tokens for search in searches for p in problems):
        raise InputError("searches: no token was sampled for any problem")
    return Shared(searches, problems, {s.name: n for s in searches if (n := len(s.results) - len(problems))})


def differing(one: FinishedSearch, other: FinishedSearch) -> str | None:
    """Describe the first key of :data:`LAW` in which searches differ.

    None if they agree.
    """
    here, there = flatten(one.law), flatten(other.law)
    for key in sorted(here.keys() | there.keys(), key=lambda key: (LAW.index(key.split(".")[0]), key)):
        if here.get(key) != there.get(key):
            return f"{key} is {there.get(key)!r} in searches.{other.name}, {here.get(key)!r} in searches.{one.name}"
    return None


def check_rule(rule: str) -> None:
    """Refuse an unknown final rule.

    Raises:
        InputError: naming the key.
    """
    if rule not in get_args(FinalRule):
        raise InputError(f"final_rule: {rule!r}: expected one of {', '.join(get_args(FinalRule))}")


def read_pass_at_1(path: Path) -> dict[str, float]:
    """Read the share of correct solutions of each problem.

    Raises:
        InputError: a solution that is not graded.
    """
    correct: dict[str, list[bool]] = {}
    for where, solution in read_located(path, Solution):
        if solution.correct is None:
            raise InputError(f"{where}: solution {solution.id} is not graded; run `sampling label` first")
        correct.setdefault(solution.problem_id, []).append(solution.solved)
    return {problem: sum(solved) / len(solved) for problem, solved in correct.items()}
