"""Check that records do not contradict each other. Standard library only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from stepverify.keys import KeySet
from stepverify.records import InputError, Solution, record_key

Kind = Literal["one per step", "one per token", "the final one only"]


class Consistency:
    """Find ids that occur twice and scores of mixed kinds.

    A single solution with another number of values would make step scores look like token scores, and the scores of all
    solutions would then be aggregated differently.
    """

    def __init__(self) -> None:
        self._ids = KeySet()
        self._kinds: dict[str, dict[Kind, list[Any]]] = {}  # verifier → kind → count, first place, values, steps

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, where: str, record: Any, of_tokens: Collection[str] = ()) -> bool:
        """Add a record; return False if its id occurred before.

        Args:
            where: file and line of the record.
            record: of any kind; scores are checked for solutions.
            of_tokens: verifiers whose values are known to be token scores because ``token_texts`` are present.
        """
        if not self._ids.add(record_key(record)):
            return False
        if isinstance(record, Solution) and record.scores:
            self._note(where, record, of_tokens or record.token_texts)
        return True

    def _note(self, where: str, solution: Solution, of_tokens: Collection[str]) -> None:
        num_steps = len(solution.steps)
        for name, values in solution.scores.items():
            # A single value of a single step is ambiguous; no values are too.
            if (count := len(values)) > 1 or (count and num_steps > 1):
                by_step = count == num_steps and name not in of_tokens
                kind: Kind = "the final one only" if count == 1 else "one per step" if by_step else "one per token"
                kinds = self._kinds.setdefault(name, {})
                if kind in kinds:
                    kinds[kind][0] += 1
                else:
                    kinds[kind] = [1, f"{where}: solution {solution.id}", count, num_steps]

    def check(self) -> None:
        """Refuse a verifier whose values are of several kinds.

        Raises:
            InputError: naming the first solution of the rarest kind.
        """
        for name, kinds in self._kinds.items():
            if len(kinds) > 1:
                usual, *others = sorted(kinds, key=lambda k: -kinds[k][0])  # the first of equals is the usual one
                odd = others[-1]
                count, where, num_values, num_steps = kinds[odd]
                total = sum(found[0] for found in kinds.values())
                raise InputError(
                    f"{where}: key 'scores.{name}': {num_values} values for {num_steps} steps ({odd}; {count:,} of "
                    f"{total:,} solutions), but {usual} in {kinds[usual][0]:,}; a verifier's values must be of one "
                    "kind, score the deviating ones again or remove them"
                )
