"""Format problems and steps as text, and split text into steps.

The template is saved with every exported model, and sampling and scoring read it from there, so that a verifier never
sees text in another format than in its training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepverify.decoding import read_json
from stepverify.records import InputError, Problem

EXPORT_FILE = "stepverify.json"
FORMAT = 1  # version of that file, raised whenever an older version would misread it


@dataclass(frozen=True, kw_only=True)
class Template:
    """Describe the text around problems and steps.

    Attributes:
        prompt: text before a solution; ``{problem}`` is replaced by the problem.
        step_separator: text that ends every step. Steps are lines (Lightman et al. 2023, section 2.1), so it is a line
            end, alone or followed by more text.
        step_tag: the token after every step at which a process reward model is scored.
        positive: label token predicted at the step tag of a correct step.
        negative: label token predicted at the step tag of an incorrect step.
        neutral: label token predicted at the step tag of a neutral step (PRM800K's rating 0); None for two labels.
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
        """Render the text before a solution of ``problem``."""
        return self.prompt.replace("{problem}", problem.strip())

    def render_step(self, step: str) -> str:
        """Render one step, its separator included."""
        return step + self.step_separator

    def render_examples(self, examples: Sequence[Problem]) -> str:
        """Render worked problems as a few-shot prefix.

        An empty line follows each.
        """
        for example in examples:
            if not example.steps:
                raise InputError(f"few-shot example {example.id}: has no worked solution")
        return "".join(self.render_prompt(e.problem) + "".join(map(self.render_step, e.steps)) + "\n" for e in examples)

    def split(self, text: str) -> list[str]:
        """Split sampled text into steps: its non-empty lines, stripped."""
        return [line.strip() for line in text.replace(self.step_separator, "\n").splitlines() if line.strip()]

    def save(self, folder: str | Path, **facts: Any) -> None:
        """Save the template and ``facts`` (objective, ids, recipe) with an export."""
        described = {
            "format": FORMAT,
            "template": {k: v for k, v in dataclasses.asdict(self).items() if v is not None},
            **facts,
        }
        (Path(folder) / EXPORT_FILE).write_text(
            json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def load_export(folder: str | Path) -> tuple[Template, dict[str, Any]] | None:
    """Load an exported model's template and metadata; None for other models.

    Raises:
        InputError: the file exists but is broken or of another format.
    """
    path = Path(folder) / EXPORT_FILE
    if not path.is_file():
        return None
    facts = read_json(path)
    try:
        written = facts.pop("format", None)
        template = Template(**facts.pop("template")) if written == FORMAT else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an export of this project: {error!r}") from None
    if template is None:
        raise InputError(
            f"{path}: key 'format': {written!r}, this version of stepverify reads {FORMAT}; "
            "export the model again, or install the version that wrote it"
        )
    return template, facts
