"""Warn of texts that the template reads in another way than they are written."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stepverify.records import Solution
from stepverify.steps import Separator, split_steps
from stepverify.template import Template

LIMIT = 0.3
"""Warn above this share of solutions."""
_OTHERS = ("\n\n", "\n", "\nStep {i}")


@dataclass
class StepFit:
    """Count solutions that are a single step, those with thinking among their steps, and thinking tokens.

    Attributes:
        template: how they were split.
        total: solutions with a step.
        single: those with one step, in which another separator would find several.
        found: separator → the steps that it would find in those.
        thinking: solutions whose steps hold ``</think>``.
    """

    template: Template
    total: int = 0
    single: int = 0
    found: dict[Separator, int] = field(default_factory=dict)
    thinking: int = 0
    stripped: int = 0
    stripped_tokens: int = 0

    def add(self, solutions: Iterable[Solution]) -> StepFit:
        """Count solutions."""
        for s in solutions:
            self.stripped += "thinking_tokens" in s.meta
            self.stripped_tokens += s.meta.get("thinking_tokens", 0)
            self.total += bool(s.steps)
            self.thinking += any("</think" in step for step in s.steps)
            if len(s.steps) == 1:
                counts = {other: len(split_steps(s.steps[0], other)) for other in _OTHERS}
                self.single += max(counts.values()) > 1
                for other, count in counts.items():
                    self.found[other] = self.found.get(other, 0) + count * (max(counts.values()) > 1)
        return self

    def counted(self) -> dict[str, Any]:
        """Return the solutions that were stripped of thinking, for the manifest; nothing without ``strip_thinking``."""
        if not self.template.strip_thinking:
            return {}
        return {"solutions_with_thinking": self.stripped, "thinking_tokens": self.stripped_tokens}

    def warn(self) -> None:
        """Print a warning if the template fits more than 30 % of the solutions badly."""
        if self.single > LIMIT * self.total:
            others = ", ".join(
                f"{other!r} {steps / self.single:.1f}" for other, steps in self.found.items() if steps > self.single
            )
            _say(
                f"{self.single:,} of {self.total:,} solutions ({self.single / self.total:.0%}) are a single step by "
                f"template.step_separator {self.template.step_separator!r}; steps that others would find on average: "
                f"{others}"
            )
        if self.thinking > LIMIT * self.total:
            _say(
                f"{self.thinking:,} of {self.total:,} solutions ({self.thinking / self.total:.0%}) have thinking among "
                "their steps; template.strip_thinking: true removes it"
            )


def _say(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
