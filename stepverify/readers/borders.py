"""Split texts into a problem and the first step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from stepverify.readers.base import Reader

_STEM = 24  # characters, without spaces, of the beginning by which problems are found
_FIRST, _SECOND = (re.compile(rf"(?:^|\s)Step {n}:\s") for n in (1, 2))


class NoBorder(Exception):
    """Signal that a problem cannot be split from its first step.

    The message is the reason to count.
    """


class Borders:
    """Split a text into problem and first step.

    If the text begins with a problem of ``problems``, that one is taken, the longest if there are several. Otherwise
    ``Step 1:`` begins the step. If that occurs several times, because the problem itself has numbered steps,
    occurrences before a ``Step 2:`` belong to the problem; if more than one is left, the text is not split.

    Args:
        problems: readers of problems that may occur; spaces and line ends in their texts are ignored.
    """

    def __init__(self, problems: Sequence[Reader] | None = None) -> None:
        self._problems = problems or ()

    @cached_property
    def _known(self) -> dict[str, list[str]]:
        """Group the problems by the beginning of their text, longest first."""
        known: dict[str, set[str]] = {}
        for text in (problem.problem for reader in self._problems for problem in reader.problems()):
            if stem := _stem(text):
                known.setdefault(stem, set()).add(text.strip())
        return {stem: sorted(texts, key=len, reverse=True) for stem, texts in known.items()}

    def split(self, text: str) -> tuple[str, str]:
        """Split a text into problem and first step, without its number.

        Raises:
            NoBorder: there is no place to split, or more than one.
        """
        text = text.strip()
        for problem in self._candidates(text):
            words = r"\s+".join(map(re.escape, problem.split()))
            if found := re.match(words + r"(?=\s|$)", text):
                return problem, unnumbered(1, text[found.end() :])
        places = list(_FIRST.finditer(text))
        if len(places) > 1:
            places = [place for place in places if not _SECOND.search(text, place.end())]
            if len(places) != 1:
                raise NoBorder("with several places at which the first step may begin")
        if not places:
            raise NoBorder("without a place at which the first step begins")
        return text[: places[0].start()].strip(), text[places[0].end() :].strip()

    def _candidates(self, text: str) -> list[str]:
        if not self._problems:
            return []
        stem = _stem(text)
        return [p for n in range(len(stem), 0, -1) for p in self._known.get(stem[:n], ())]


def _stem(text: str) -> str:
    return "".join(text[: 8 * _STEM].split())[:_STEM]


def unnumbered(number: int, step: str) -> str:
    """Remove the ``Step 3:`` before a step."""
    return step.strip().removeprefix(f"Step {number}:").strip()
