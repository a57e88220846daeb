"""Remember which keys were seen, in few bytes each. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Set
from hashlib import blake2b

_DIGEST = 12  # bytes; among 10^9 keys two digests are equal with a probability below 10^-11
_BUCKETS = 1 << 12
_SHARED = 64  # samples of a problem in one entry, a bit each
_LONGEST = 9  # digits of a sample's index


class _Table:
    """Hold digests of texts, each with some bytes, one after the other in buckets that are searched through.

    Args:
        width: number of these bytes.
    """

    def __init__(self, width: int) -> None:
        self._entry = _DIGEST + width
        self._buckets: list[bytearray] = []

    def find(self, text: str) -> tuple[bytearray, bytes, int]:
        """Return the bucket and digest of a text, and where in the bucket its bytes begin, or -1."""
        if not self._buckets:
            self._buckets = [bytearray() for _ in range(_BUCKETS)]
        digest = blake2b(text.encode(), digest_size=_DIGEST).digest()
        bucket = self._buckets[(digest[0] << 8 | digest[1]) % _BUCKETS]
        at = bucket.find(digest)
        while at % self._entry and at >= 0:  # found across two entries
            at = bucket.find(digest, at + 1)
        return bucket, digest, at + _DIGEST if at >= 0 else -1


class KeySet:
    """Hold keys as digests: a million ids of samples, 16 of a problem, in 2 MB, where Python's set takes 130.

    Samples ``problem#0`` to ``problem#63`` share one entry of 20 bytes, and so do the next 64. Keys cannot be listed
    again.

    Args:
        keys: to begin with.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._table, self._count = _Table(_SHARED // 8), 0
        self._recent = "", bytearray(), 0  # samples of a problem come one after the other
        self.update(keys)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        text, bit = _shared(key)
        bucket, at = self._find(text, make=False)
        return at >= 0 and bool(bucket[at + bit // 8] >> bit % 8 & 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Set) and len(self) == len(other) and all(key in self for key in other)

    def add(self, key: str) -> bool:
        """Add a key; return False if it is there already."""
        text, bit = _shared(key)
        bucket, at = self._find(text, make=True)
        byte, mask = at + bit // 8, 1 << bit % 8
        if bucket[byte] & mask:
            return False
        bucket[byte] |= mask
        self._count += 1
        return True

    def update(self, keys: Iterable[str]) -> None:
        """Add keys."""
        for key in keys:
            self.add(key)

    def _find(self, text: str, *, make: bool) -> tuple[bytearray, int]:
        if text == self._recent[0]:
            return self._recent[1:]
        bucket, digest, at = self._table.find(text)
        if at < 0 and make:
            bucket += digest
            at = len(bucket)
            bucket += bytes(_SHARED // 8)
        if at >= 0:
            self._recent = text, bucket, at
        return bucket, at


class KeyNumbers:
    """Number keys from 0 in the order of their first appearance, in some 17 bytes each."""

    def __init__(self) -> None:
        self._table, self._count = _Table(4), 0

    def __len__(self) -> int:
        return self._count

    def number(self, key: str) -> int:
        """Return the number of a key; a new one gets the next."""
        bucket, digest, at = self._table.find(key)
        if at >= 0:
            return int.from_bytes(bucket[at : at + 4], "little")
        bucket += digest
        bucket += self._count.to_bytes(4, "little")
        self._count += 1
        return self._count - 1


def _shared(key: str) -> tuple[str, int]:
    """Return what a key's entry is found by, and its bit there."""
    stem, sign, index = key.rpartition("#")
    if sign and index.isascii() and index.isdigit() and len(index) <= _LONGEST and (index[0] != "0" or index == "0"):
        block, bit = divmod(int(index), _SHARED)
        return f"{block}#{stem}", bit
    return f"-{key}", 0
