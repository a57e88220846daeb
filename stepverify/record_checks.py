"""Check that the fields of a record belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from stepverify.errors import InputError


def check_length(key: str, found: int, expected: int, what: str) -> None:
    """Check the length of a list.

    Raises:
        InputError: naming its key.
    """
    if found != expected:
        raise InputError(f"key '{key}': expected {expected} values, {what}, got {found}")


def check_finish(values: Sequence[str], known: Sequence[str] = ("stop", "length")) -> None:
    """Check why completions ended.

    Raises:
        InputError: none of the known reasons.
    """
    for i, value in enumerate(values):
        if value not in known:
            raise InputError(f"key 'finish[{i}]': expected {' or '.join(map(repr, known))}, got {value!r:.80}")


def check_scores(
    scores: Mapping[str, Sequence[float]], num_steps: int, token_texts: Mapping[str, Sequence[str]], key: str = "scores"
) -> None:
    """Check that the scores of a solution are probabilities, and their number.

    Args:
        scores: verifier → its values.
        num_steps: number of steps of the solution.
        token_texts: verifier → texts of its values, for token scores.
        key: name of the scores in error messages.

    Raises:
        InputError: a value outside [0, 1]; more than one value but fewer than steps; or not one value per text.
    """
    for name, values in scores.items():
        if not values:
            continue
        if not (min(values) >= 0 and max(values) <= 1) or math.isnan(sum(values)):
            at = next(i for i, value in enumerate(values) if not 0 <= value <= 1)
            raise InputError(
                f"key '{key}.{name}[{at}]': expected a probability from 0 to 1, got {values[at]!r}; logits are turned "
                f"into probabilities by `sampling convert --logits '[{name}]'` or by `logits` of the reader Solutions"
            )
        if 1 < len(values) < num_steps:
            raise InputError(
                f"key '{key}.{name}': expected one value per step ({num_steps}), one per token, or the final one only, "
                f"got {len(values)}"
            )
        if name in token_texts and len(token_texts[name]) != len(values):
            raise InputError(
                f"key 'token_texts.{name}': expected {len(values)} texts, one per value, got {len(token_texts[name])}"
            )
