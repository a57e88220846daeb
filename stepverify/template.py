"""How a problem and its steps become text, and text becomes steps: the one place that knows.

A template travels with every exported model, and whoever samples from it or scores with it reads it
back from there, so that a verifier never sees text laid out otherwise than in its training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepverify.records import InputError, Problem

EXPORT_FILE = "stepverify.json"


@dataclass(frozen=True, kw_only=True)
class Template:
    """Text around problems and steps.

    Attributes:
        prompt: what stands before a solution; ``{problem}`` is replaced by the problem.
        step_separator: what ends every step. Steps are lines (Lightman et al. 2023, section 2.1), so it
            is a line end, alone or followed by more text.
        step_tag: the token after every step at which a process reward model is read.
        positive: the token that the model predicts at the tag of a correct step.
        negative: the token that it predicts at the tag of an incorrect one.
        neutral: the token that it predicts at the tag of a neutral one (PRM800K's rating 0); None leaves two labels.
    """

    prompt: str = "Question: {problem}\nAnswer:\n"
    step_separator: str = "\n"
    step_tag: str = "<step>"
    positive: str = "+"
    negative: str = "-"
    neutral: str | None = None

    def __post_init__(self) -> None:
        if self.prompt.count("{problem}") != 1:
            raise InputError(f"template.prompt: expected exactly one {{problem}} in {self.prompt!r}")
        if not self.step_separator.startswith("\n"):
            raise InputError(f"template.step_separator: expected a line end first, got {self.step_separator!r}")
        if self.positive == self.negative:
            raise InputError(f"template: positive and negative are the same token {self.positive!r}")
        if self.neutral in (self.positive, self.negative):
            raise InputError(f"template: neutral is the same token {self.neutral!r} as another label")

    def render_prompt(self, problem: str) -> str:
        """The text in front of a solution of ``problem``."""
        return self.prompt.replace("{problem}", problem.strip())

    def render_step(self, step: str) -> str:
        """The text of one step, its end included."""
        return step + self.step_separator

    def render_examples(self, examples: Sequence[Problem]) -> str:
        """Few-shot prefix: worked problems in this very template, each closed by an empty line."""
        for example in examples:
            if not example.steps:
                raise InputError(f"few-shot example {example.id}: has no worked solution")
        return "".join(self.render_prompt(e.problem) + "".join(map(self.render_step, e.steps)) + "\n" for e in examples)

    def split(self, text: str) -> list[str]:
        """The steps of a sampled text: its lines, stripped; empty lines are no steps."""
        return [line.strip() for line in text.replace(self.step_separator, "\n").splitlines() if line.strip()]

    def save(self, folder: str | Path, **facts: Any) -> None:
        """Store the template and further ``facts`` (objective, ids, recipe) beside an exported model."""
        described = {"template": {k: v for k, v in dataclasses.asdict(self).items() if v is not None}, **facts}
        (Path(folder) / EXPORT_FILE).write_text(
            json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def load_export(folder: str | Path) -> tuple[Template, dict[str, Any]] | None:
    """Template and facts of a model that this project exported; None for any other model.

    Raises:
        InputError: the file is there but broken.
    """
    path = Path(folder) / EXPORT_FILE
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return Template(**facts.pop("template")), facts
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an export of this project: {error!r}") from None
