"""Check the size of a prefix cache, before torch is imported."""

from __future__ import annotations

from stepverify.records import InputError


def cache_bytes(gib: float | None) -> int:
    """Return the bytes of a prefix cache; None is 0.

    Args:
        gib: size in GiB.

    Raises:
        InputError: an impossible size.
    """
    if not 0 <= (gib or 0) < float("inf"):
        raise InputError(f"prefix_cache_gib: expected 0 or more, or null, got {gib}")
    return int((gib or 0) * 2**30)
