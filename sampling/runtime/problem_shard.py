"""Divide the problems of a run over the jobs of an array."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from stepverify.records import InputError


@dataclass(frozen=True)
class ProblemShard:
    """Hold the problems of one job of an array.

    A problem belongs to a shard by a hash of its id alone, so that shards neither depend on the order of problems nor
    on other problems. Shard 1/1 holds all problems.

    Attributes:
        number: of this shard, from 1.
        of: number of shards.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> ProblemShard:
        """Read ``number/of``; None is 1/1.

        Raises:
            InputError: another text, or a number that is not from 1 to ``of``.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"shard: {text!r:.80}: expected i/n with i from 1 to n, as 1/4")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def __contains__(self, problem_id: str) -> bool:
        return self.of == 1 or shard_number(problem_id, self.of) == self.number

    @property
    def divides(self) -> bool:
        """Tell whether there are other shards; this one may then be without a problem."""
        return self.of > 1

    def config(self) -> dict[str, str]:
        """Return what the manifest of a shard has beside the configuration of the undivided run."""
        return {"shard": str(self)} if self.divides else {}


def shard_number(problem_id: str, of: int) -> int:
    """Return the number, from 1, of the shard that holds a problem."""
    # Salted: the folds of readers hash ids too, and a shard of one hash would be the validation fold alone.
    digest = hashlib.blake2b(problem_id.encode(), digest_size=8, person=b"shard").digest()
    return 1 + int.from_bytes(digest, "big") % of
