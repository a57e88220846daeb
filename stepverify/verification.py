"""Ask a generative verifier about a solution, and read its verdict.

Pure: no model is used here. Training data and scoring share the texts, so that a verifier is asked what it was trained
on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stepverify.records import InputError

_PLACE = re.compile(r"\{(problem|steps|number|correct|incorrect)\}")
_ASKS = {
    "solutions": "You are given a problem in mathematics and a solution of it. Is its final answer correct?\n\n"
    "Problem:\n{problem}\n\nSolution:\n{steps}\n\n",
    "steps": "You are given a problem in mathematics and the beginning of a solution of it. Is its last step, "
    "step {number}, correct?\n\nProblem:\n{problem}\n\nSteps:\n{steps}\n\n",
}
_WITH_CRITIQUE = (
    "First check the steps in their order: work out again what each one computes, and see whether it follows from the "
    'problem and from the steps before it. Then end with a line that says only "{correct}" or "{incorrect}".'
)
_DIRECT = 'Answer only "{correct}" or "{incorrect}".'


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Describe the question to a generative verifier, and its verdict.

    A critique ends with ``verdict`` and a word: ``… so the sum is correct.``, and on a new line ``Verdict: Yes``. The
    probability of that word is the score (Zhang et al. 2024, "Generative Verifiers", sections 3.1 and 3.3).

    Attributes:
        target: ``solutions`` asks once about each solution; ``steps`` about each step, with those before it, as later
            ones must not change its value.
        prompt: text file with the question. ``{problem}``, ``{steps}`` (one per line, numbered from 1), ``{number}``
            (of the step that is judged, the last one of ``{steps}``), ``{correct}`` and ``{incorrect}`` (the
            two verdicts) are replaced. None takes a text of our own.
        verdict: text before the word; a critique ends where it is written first, in its thinking too. Empty for
            verdicts without critiques that are one word.
        correct: word for correct; one token after ``verdict``.
        incorrect: word for incorrect.
    """

    target: Literal["solutions", "steps"] = "solutions"
    prompt: Path | None = None
    verdict: str = "Verdict:"
    correct: str = "Yes"
    incorrect: str = "No"

    def __post_init__(self) -> None:
        if self.target not in _ASKS:
            raise InputError(f"verification.target: expected solutions or steps, got {self.target!r}")
        if self.verdict != self.verdict.strip():
            raise InputError(f"verification.verdict: expected no blank space around it, got {self.verdict!r}")
        for key, word, other in (
            ("correct", self.correct, self.incorrect),
            ("incorrect", self.incorrect, self.correct),
        ):
            if not word or word.split() != [word] or other.startswith(word):
                raise InputError(
                    f"verification.{key}: expected a word with which the other one, {other!r}, does not begin, got "
                    f"{word!r}"
                )
        _ = self._own  # a file that cannot be read is said at once

    @cached_property
    def _own(self) -> str | None:
        if self.prompt is None:
            return None
        try:
            text = self.prompt.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"verification.prompt: {self.prompt}: {reason}") from None
        if missing := {"problem", "steps"} - set(_PLACE.findall(text)):
            raise InputError(f"verification.prompt: {self.prompt}: has no placeholder {{{min(missing)}}}")
        return text

    def text(self, *, critique: bool) -> str:
        """Return the question with its placeholders; ``critique``: one is wanted before the verdict."""
        return self._own or _ASKS[self.target] + (_WITH_CRITIQUE if critique else _DIRECT)

    def question(self, problem: str, steps: Sequence[str], *, critique: bool) -> str:
        """Render the question about a solution, or about the last of some steps."""
        between = "\n\n" if any("\n" in step for step in steps) else "\n"
        numbered = between.join(f"Step {number}: {step}" for number, step in enumerate(steps, start=1))
        texts = {
            "problem": problem.strip(), "steps": numbered, "number": str(len(steps)),
            "correct": self.said(True), "incorrect": self.said(False),
        }  # fmt: skip
        # In one pass: a problem may contain braces.
        return _PLACE.sub(lambda place: texts[place[1]], self.text(critique=critique))

    def said(self, positive: bool) -> str:
        """Return a verdict as it is written."""
        return f"{self.verdict} {self.correct if positive else self.incorrect}".lstrip()

    def response(self, critique: str, positive: bool) -> str:
        """Return what a verifier learns to write: the critique, and the verdict on a new line."""
        return "\n".join(filter(None, (critique.strip(), self.said(positive))))

    def value(self, top: Iterable[tuple[str, float]]) -> float | None:
        """Return P(correct) / (P(correct) + P(incorrect)); None if neither word is there.

        Args:
            top: text and log-probability of the most likely tokens; blank space around a text does not count, so that a
                word may be several tokens, and a word that is not among them has the probability 0.
        """
        probability = dict.fromkeys((self.correct, self.incorrect), 0.0)
        for text, logprob in top:
            if (word := text.strip()) in probability:
                probability[word] += math.exp(logprob)
        total = sum(probability.values())
        return probability[self.correct] / total if total else None

    def word(self, text: str) -> float | None:
        """Return 1 or 0 for a sampled word; None for another text."""
        said = text.strip()
        return 1.0 if said.startswith(self.correct) else 0.0 if said.startswith(self.incorrect) else None

    def spacing(self, tokenizer: Any) -> list[int]:
        """Return the tokens between ``verdict`` and the words.

        Usually there are none, as a word's token holds the space before it.

        Raises:
            InputError: a word is not one token there.
        """
        lead = tokenizer.encode(self.verdict, add_special_tokens=False) if self.verdict else []
        ids = [tokenizer.encode(self.said(positive), add_special_tokens=False) for positive in (True, False)]
        shared = 0
        while all(len(one) > shared for one in ids) and ids[0][shared] == ids[1][shared]:
            shared += 1
        for key, word, one in zip(("correct", "incorrect"), (self.correct, self.incorrect), ids, strict=True):
            rest = one[shared:]
            if one[: len(lead)] != lead or len(rest) != 1 or tokenizer.decode(rest).strip() != word:
                pieces = [tokenizer.decode([i]) for i in one]
                raise InputError(
                    f"verification.{key}: {word!r} is not one token of its own after {self.verdict!r} in "
                    f"{tokenizer.name_or_path}, which reads {pieces}; choose another word, such as Yes or No"
                )
        return list(ids[0][len(lead) : shared])
