"""Define the record of what a generative verifier writes."""

from __future__ import annotations

from msgspec import Struct

from stepverify.errors import InputError


class Critique(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold a critique of a solution, or of one of its steps, and the verdict after it.

    Attributes:
        step: number of the step that is judged, from 1; 0 for the whole solution.
        text: what was written before the verdict; empty for a verdict without a critique.
        value: probability that the verdict is positive; None without a verdict.
        forced: the critique ended without a verdict, which was then asked for.
    """

    text: str
    step: int = 0
    value: float | None = None
    forced: bool = False

    def __post_init__(self) -> None:
        if self.value is not None and not 0 <= self.value <= 1:
            raise InputError(f"key 'value': expected a probability from 0 to 1, got {self.value!r}")
