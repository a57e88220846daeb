"""Score problems with those of several verifiers that were not trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from sampling.engines.base import SummedUsage, Usage
from sampling.scorers.base import Scorer
from sampling.scorers.exported import ExportedVerifier
from sampling.scorers.path import ExportPath
from stepverify.objectives import Objective
from stepverify.readers.released import digest
from stepverify.records import InputError, Solution
from stepverify.training_problems import TRAINING_PROBLEMS_FILE, read_training_problems

_SEEN = "problem {}: every one of the verifiers was trained on it"


class CrossFitted(Scorer):
    """Score each problem with the verifiers that were not trained on it.

    Of verifiers that were each trained on a part of the problems, so that all problems have scores of a verifier that
    is new to them. If several are, their values are averaged. Which problems a verifier was trained on is read from its
    export.

    Args:
        verifiers: exports, or scorers of exports, all outcome verifiers or all process reward models.

    Raises:
        InputError: fewer than two verifiers, of different kinds, or one that does not say what it was trained on.
    """

    def __init__(self, verifiers: list[Scorer | ExportPath]) -> None:
        if len(verifiers) < 2:
            raise InputError(f"verifiers: expected two or more that were trained on parts, got {len(verifiers)}")
        self.scorers = [v if isinstance(v, Scorer) else ExportedVerifier(v) for v in verifiers]
        self._seen = [_trained_on(scorer) for scorer in self.scorers]
        kinds = {scorer.objective for scorer in self.scorers}
        if len(kinds) > 1:
            raise InputError(f"verifiers: expected verifiers of one kind, got {', '.join(sorted(map(str, kinds)))}")
        self._read = SummedUsage()
        self.concurrency = max(scorer.concurrency for scorer in self.scorers)

    @property
    def export(self) -> str | None:  # type: ignore[override]
        """Return one verifier's export, whose template the others have too."""
        return self.scorers[0].export

    @property
    def objective(self) -> Objective | None:  # type: ignore[override]
        """Return the verifiers' objective."""
        return self.scorers[0].objective

    @property
    def usage(self) -> Usage | None:  # type: ignore[override]
        """Return the tokens that all verifiers have read."""
        return None if any(scorer.usage is None for scorer in self.scorers) else self._read.total

    @property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the parameters of a verifier; None if they differ in size."""
        sizes = {scorer.num_parameters for scorer in self.scorers}
        return sizes.pop() if len(sizes) == 1 else None

    def _new_to(self, problem: str) -> list[int]:
        """Return the places of the verifiers that a problem is new to."""
        one = digest(problem)
        return [i for i, seen in enumerate(self._seen) if one not in seen]

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions with the verifiers that their problems are new to.

        Raises:
            InputError: a problem that every verifier was trained on.
        """
        places = {solution.problem: self._new_to(solution.problem) for solution in solutions}
        if known := next((s for s in solutions if not places[s.problem]), None):
            raise InputError(_SEEN.format(known.problem_id))
        found: list[list[list[float]]] = [[] for _ in solutions]
        for i, scorer in enumerate(self.scorers):
            mine = [n for n, solution in enumerate(solutions) if i in places[solution.problem]]
            if mine:
                for n, values in zip(mine, await scorer.score([solutions[n] for n in mine]), strict=True):
                    found[n].append(values)
                self._read.update(str(i), scorer.usage and replace(scorer.usage))
        return [_means(values) for values in found]

    def count_trained(self, problems: Mapping[str, str]) -> dict[str, Any]:
        """Return that no problem was trained on by what scores it.

        Raises:
            InputError: a problem that every verifier was trained on.
        """
        if known := next((name for one, name in problems.items() if all(one in seen for seen in self._seen)), None):
            raise InputError(_SEEN.format(known))
        return {"problems": 0, "of": len(problems), "first": None}

    def identity(self) -> dict[str, Any]:
        """Return the verifiers' identities, and the aggregation that all of them say, if they do."""
        own = [scorer.identity() for scorer in self.scorers]
        said = {identity.get("aggregation") for identity in own}
        found: dict[str, Any] = {"scorer": "cross_fitted", "verifiers": own}
        return found if len(said) > 1 or None in said else found | {"aggregation": said.pop()}

    def token_texts(self, solution: Solution) -> list[str]:
        """Return the texts of a solution's tokens, where it has token values."""
        places = self._new_to(solution.problem)
        return self.scorers[places[0]].token_texts(solution) if places else []

    def count_tokens(self, solution: Solution) -> int | None:
        """Count the tokens that are read of a solution."""
        counts = [self.scorers[i].count_tokens(solution) for i in self._new_to(solution.problem)]
        return None if None in counts else sum(counts)  # type: ignore[arg-type]

    def keep_prefixes(self) -> None:
        """Let all verifiers keep prefixes."""
        for scorer in self.scorers:
            scorer.keep_prefixes()

    async def aclose(self) -> None:
        """Close all verifiers."""
        for scorer in self.scorers:
            await scorer.aclose()


def _trained_on(scorer: Scorer) -> frozenset[str]:
    if scorer.export is None or (seen := read_training_problems(scorer.export)) is None:
        raise InputError(
            f"verifiers: {scorer.export or type(scorer).__name__} does not say which problems it was trained on (in an "
            f"export {TRAINING_PROBLEMS_FILE} does)"
        )
    return seen


def _means(values: Sequence[list[float]]) -> list[float]:
    """Average the values of several verifiers; empty where one could not read the solution."""
    if not all(values):
        return []
    return [fmean(each) for each in zip(*values, strict=True)]
