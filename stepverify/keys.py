"""Remember which keys were seen, in few bytes each. Standard library only."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Set
from hashlib import blake2b

_SIZE = 16  # bytes of a digest; among 10^9 keys two are equal with a probability below 10^-20
_BUCKETS = 1 << 14


class KeySet:
    """Hold keys as digests of 16 bytes: a set of a million ids in 18 MB, where Python's takes 130.

    Keys cannot be listed again.

    Args:
        keys: to begin with.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._buckets: list[bytearray | None] = [None] * _BUCKETS
        self._count = 0
        self.update(keys)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        number, digest = _digest(key)
        bucket = self._buckets[number]
        return bucket is not None and _place(bucket, digest) >= 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Set) and len(self) == len(other) and all(key in self for key in other)

    def add(self, key: str) -> bool:
        """Add a key; return False if it is there already."""
        number, digest = _digest(key)
        bucket = self._buckets[number]
        if bucket is None:
            self._buckets[number] = bytearray(digest)
        elif _place(bucket, digest) >= 0:
            return False
        else:
            bucket += digest
        self._count += 1
        return True

    def update(self, keys: Iterable[str]) -> None:
        """Add keys."""
        for key in keys:
            self.add(key)


class KeyNumbers:
    """Number keys from 0 in the order of their first appearance, in some 22 bytes each."""

    def __init__(self) -> None:
        self._buckets: dict[int, tuple[bytearray, array[int]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def number(self, key: str) -> int:
        """Return the number of a key; a new one gets the next."""
        bucket, digest = _digest(key)
        digests, numbers = self._buckets.setdefault(bucket, (bytearray(), array("I")))
        place = _place(digests, digest)
        if place >= 0:
            return numbers[place]
        digests += digest
        numbers.append(self._count)
        self._count += 1
        return self._count - 1


def _digest(key: str) -> tuple[int, bytes]:
    digest = blake2b(key.encode(), digest_size=_SIZE).digest()
    return (digest[0] << 8 | digest[1]) % _BUCKETS, digest


def _place(digests: bytearray, digest: bytes) -> int:
    """Return which of joined digests is the given one; -1 if none is."""
    at = digests.find(digest)
    while at % _SIZE and at >= 0:  # found across two of them
        at = digests.find(digest, at + 1)
    return at // _SIZE if at >= 0 else -1
