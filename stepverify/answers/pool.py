"""Read and compare many answers in worker processes, with a limit of CPU time for each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from stepverify.answers import worker
from stepverify.answers.compare import answer_key, settle
from stepverify.answers.extract import Fallback
from stepverify.answers.limited import LimitedPool, Operation
from stepverify.answers.worker import Failure, Pair
from stepverify.records import InputError

# What this process reads itself. Forty characters bound every power of the length, and without brackets, braces,
# commands and exponents nothing is nested, repeated or large: no text of this kind takes a thousandth of a limit.
_PLAIN = re.compile(r"[A-Za-z0-9 ,.$%+/-]{0,40}")


class Extracted(NamedTuple):
    """Hold the final answer of a text.

    Attributes:
        answer: None if the text states none, or was given up.
        timed_out: the text was given up: out of time, or its worker died of it twice.
    """

    answer: str | None
    timed_out: bool = False


_SETTLE = Operation(worker.settle, 64, 8)
_COMPARE = Operation(worker.equivalent, 16, 1, algebra=True)
_KEY = Operation(worker.key, 256, 32)


def _extract(fallback: Fallback) -> Operation:
    return Operation(partial(worker.extract, fallback=fallback), 128, 8)


class Grader:
    """Extract and compare answers in worker processes, each text under a time limit.

    The processes start with the first text that is not a short plain answer, load computer algebra with the first pair
    that needs it, and know nothing of the program that started them: they import neither its main script nor torch.

    Args:
        num_workers: worker processes; None for the cores that this process may use.
        time_limit: seconds of CPU time that one text or comparison may take; verdicts do not depend on the machine's
            load.

    >>> with Grader(num_workers=1) as grader:
    ...     grader.grade([("1,000", "1000"), ("7", None)]), grader.classes(["1/2", "x", "0.5", None])
    ([True, False], [0, 1, 0, None])
    """

    def __init__(self, num_workers: int | None = None, time_limit: float = 3.0) -> None:
        if num_workers is not None and num_workers < 1:
            raise InputError(f"num_workers: expected at least 1, got {num_workers}")
        if not time_limit > 0:
            raise InputError(f"time_limit: expected a positive number of seconds, got {time_limit}")
        self.time_limit = time_limit
        self._pool = LimitedPool(num_workers, time_limit)

    @property
    def num_timeouts(self) -> int:
        """Return how many texts and comparisons were given up: out of time, or their worker died of them twice."""
        return self._pool.num_failures

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the worker processes; the next text that needs them restarts them."""
        self._pool.close()

    def extract(self, texts: Iterable[str], fallback: Fallback = "no_answer") -> list[Extracted]:
        """Extract the final answers of texts; see :func:`stepverify.answers.extract_answer`.

        Args:
            texts: solutions, of any origin.
            fallback: the answer of a text that states none: none, its last number, or its last result if the last line
                has or repeats it (:func:`stepverify.answers.last_number`, :func:`stepverify.answers.concluded_number`).

        Returns:
            One answer per text, in order.
        """
        texts = list(texts)
        found = self._pool.apply(_extract(fallback), [text for text in dict.fromkeys(texts) if text.strip()])
        return [_extracted(found.get(text)) for text in texts]

    def grade(self, pairs: Iterable[tuple[str | None, str | None]]) -> list[bool | None]:
        """Compare (gold, predicted) pairs; see :func:`stepverify.answers.equivalent`.

        Returns:
            One verdict per pair, in order. None if the comparison exceeded its time limit; False if an answer is
                missing or empty.
        """
        pairs = list(pairs)
        verdicts = [_at_once(gold, predicted) for gold, predicted in pairs]
        left = dict.fromkeys(pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict is None)
        if not left:
            return verdicts
        found = self._compare([(gold, predicted) for gold, predicted in left if gold and predicted])
        return [found[pair] if verdict is None else verdict for pair, verdict in zip(pairs, verdicts, strict=True)]

    def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        """Group equal answers, for voting.

        Equality of answers is not transitive (``20%`` equals both 20 and 1/5), so the class of an answer is that of the
        first representative it equals, where the representative of a class is its first answer. This depends only on
        the order of the answers, except for comparisons that exceed their time limit: those count as not equal.

        Returns:
            One class per answer, numbered from 0 by first appearance; None for a missing or empty answer: no vote.
        """
        stated = [answer if answer and answer.strip() else None for answer in answers]
        key_of = self._keys(dict.fromkeys(answer for answer in stated if answer is not None))
        kinds = [None if answer is None else key_of[answer] or answer.strip() for answer in stated]
        unassigned = list(dict.fromkeys(kind for kind in kinds if kind is not None))
        classes: dict[str, int] = {}
        number = 0
        while unassigned:  # each round finds the whole class of one representative
            representative, *rest = unassigned
            classes[representative] = number
            equal = self.grade((representative, kind) for kind in rest)
            classes.update((kind, number) for kind, same in zip(rest, equal, strict=True) if same)
            unassigned = [kind for kind, same in zip(rest, equal, strict=True) if not same]
            number += 1
        return [None if kind is None else classes[kind] for kind in kinds]

    def _keys(self, answers: Iterable[str]) -> dict[str, str | None]:
        """Find the keys of plain numbers; an answer that is given up has none."""
        plain = {answer: bool(_PLAIN.fullmatch(answer)) for answer in answers}
        found = self._pool.apply(_KEY, [answer for answer, is_plain in plain.items() if not is_plain])
        keys = {answer: answer_key(answer) if is_plain else found[answer] for answer, is_plain in plain.items()}
        return {answer: None if key is Failure.GIVEN_UP else key for answer, key in keys.items()}

    def _compare(self, pairs: list[Pair]) -> dict[tuple[str | None, str | None], bool | None]:
        """Compare pairs; computer algebra is loaded if one of them needs it."""
        found: dict[Pair, Any] = {}
        if not self._pool.has_algebra:
            found = self._pool.apply(_SETTLE, [pair for pair in pairs if not all(map(_PLAIN.fullmatch, pair))])
        found.update(self._pool.apply(_COMPARE, [pair for pair in pairs if found.get(pair) is None]))
        return {pair: None if verdict is Failure.GIVEN_UP else verdict for pair, verdict in found.items()}


def _at_once(gold: str | None, predicted: str | None) -> bool | None:
    """Compare what needs no worker; None for the rest.

    An answer equals itself; that needs no reading.
    """
    if not gold or not predicted:
        return False
    if _PLAIN.fullmatch(gold) and _PLAIN.fullmatch(predicted):
        return settle(gold, predicted)
    if not gold.strip() or not predicted.strip():
        return False
    return True if gold == predicted else None


def _extracted(result: str | Failure | None) -> Extracted:
    return Extracted(None, timed_out=True) if isinstance(result, Failure) else Extracted(result)
