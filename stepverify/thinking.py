"""Find the thinking in the text of a thinking model."""

from __future__ import annotations

import re
from collections.abc import Sequence

_BORDER = re.compile(r"<(/?)think(?:ing)?>")

Span = tuple[int, int]


def thinking(text: str, *, begun: bool = False) -> list[Span]:
    """Return the spans of thinking, in order.

    Args:
        text: what the model has written.
        begun: whether the prompt ends within ``<think>``. A text whose first border is ``</think>`` began there too;
            what follows an open ``<think>`` is thinking up to the end.
    """
    borders = [(bool(found[1]), found) for found in _BORDER.finditer(text)]
    start: int | None = 0 if begun or (borders and borders[0][0]) else None
    spans: list[Span] = []
    for closes, found in borders:
        if closes and start is not None:
            spans.append((start, found.end()))
            start = None
        elif not closes and start is None:
            start = found.start()
    return spans if start is None else [*spans, (start, len(text))]


def without(text: str, spans: Sequence[Span]) -> str:
    """Return the text outside the spans."""
    kept, start = [], 0
    for begin, end in spans:
        kept.append(text[start:begin])
        start = end
    return "".join([*kept, text[start:]])
