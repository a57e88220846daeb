"""Derive seeds of samples from names alone.

So samples do not depend on order, concurrency or restarts.
"""

from __future__ import annotations

import hashlib


def derive_seed(*parts: str | int) -> int:
    """Derive a seed below 2^62 from the run's seed and names.

    Equal parts give equal seeds in every process.
    """
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2
