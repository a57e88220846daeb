"""Seeds of samples: they depend on names alone, not on order, concurrency or restarts."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: str | int) -> int:
    """Derive a seed below 2^62 from the run's seed and whatever names the sample; equal in every process."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2
