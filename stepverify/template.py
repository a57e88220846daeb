"""Format problems and steps as text, and split text into steps.

The template is saved with every exported model, and sampling and scoring read it from there, so that a verifier never
sees text in another format than in its training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stepverify.chat import ChatTemplate, Rendering, check_same
from stepverify.decoding import read_json
from stepverify.records import InputError, Problem
from stepverify.steps import StepPattern, check_separator, joint, split_steps
from stepverify.thinking import thinking, without

PLAIN_PROMPT = "Question: {problem}\nAnswer:\n"
EXPORT_FILE = "stepverify.json"
FORMAT = 1  # version of that file, raised whenever an older version would misread it


@dataclass(frozen=True, kw_only=True)
class Template:
    """Describe the text around problems and steps.

    Attributes:
        prompt: text before a solution; ``{problem}`` is replaced by the problem. With ``chat``, the user's turn.
            None is ``Question: {problem}``, ``Answer:`` and a line end; with ``chat``, the problem alone.
        chat: write the prompt with the tokenizer's own chat template: the user's turn, and the beginning of the
            assistant's, which the solution continues. A complete solution ends with the template's end of turn.
        system: text of a system turn; None leaves it to the chat template.
        chat_options: variables of the chat template, such as ``{enable_thinking: false}`` (Qwen3) for an empty think
            block.
        strip_thinking: remove ``<think>…</think>`` from sampled solutions before they are split into steps.
        step_separator: what separates steps. A text that begins with a line end is written after every step: a line end
            alone makes every line a step (Lightman et al. 2023, section 2.1), two make every paragraph one. A heading
            with ``{i}``, such as ``Step {i}:``, begins a step. Or a regular expression, see :class:`StepPattern`. See
            :func:`~stepverify.steps.split_steps`.
        step_tag: the token after every step at which a process reward model is scored.
        positive: label token predicted at the step tag of a correct step.
        negative: label token predicted at the step tag of an incorrect step.
        neutral: label token predicted at the step tag of a neutral step (PRM800K's rating 0); None for two labels.
        rendering: what the chat template wrote around a problem when the model was exported; not set by hand.
    """

    prompt: str | None = None
    chat: bool = False
    system: str | None = None
    chat_options: dict[str, Any] = field(default_factory=dict)
    strip_thinking: bool = False
    step_separator: str | StepPattern = "\n"
    step_tag: str = "<step>"
    positive: str = "+"
    negative: str = "-"
    neutral: str | None = None
    rendering: Rendering | None = None

    def __post_init__(self) -> None:
        for name, kind in (("step_separator", StepPattern), ("rendering", Rendering)):
            if isinstance(value := getattr(self, name), dict):  # from an export
                object.__setattr__(self, name, kind(**value))
        if self.prompt is None:
            object.__setattr__(self, "prompt", "{problem}" if self.chat else PLAIN_PROMPT)
        if self.text.count("{problem}") != 1:
            raise InputError(f"template.prompt: expected exactly one {{problem}} in {self.prompt!r}")
        for key in ("system", "chat_options", "rendering"):
            if not self.chat and getattr(self, key):
                raise InputError(f"template.{key}: is for chat templates; set template.chat: true")
        check_separator(self.step_separator)
        if self.positive == self.negative:
            raise InputError(f"template: positive and negative are the same token {self.positive!r}")
        if self.neutral in (self.positive, self.negative):
            raise InputError(f"template: neutral is the same token {self.neutral!r} as another label")

    @property
    def text(self) -> str:
        """Return the text before a solution, in which ``{problem}`` stands for the problem.

        Of a chat template, what it has written; before :meth:`rendered_by`, the user's turn alone.
        """
        if self.rendering is not None:
            return f"{self.rendering.before}{{problem}}{self.rendering.after}"
        return str(self.prompt)

    @property
    def joint(self) -> str:
        """Return the text that is written after every step."""
        return joint(self.step_separator)

    def rendered_by(self, tokenizer: Any) -> Template:
        """Return the template with what the tokenizer's chat template writes; itself without ``chat``.

        Raises:
            InputError: the chat template cannot be used, or has changed since the model was exported.
        """
        if not self.chat:
            return self
        rendering = ChatTemplate(tokenizer, self.chat_options).rendering(self._opening(), self._user())
        if self.rendering is not None:
            check_same(self.rendering, rendering, tokenizer.name_or_path)
        return replace(self, rendering=rendering)

    def with_examples(self, tokenizer: Any, examples: Sequence[Problem]) -> tuple[Template, str]:
        """Return the template and few-shot text with worked problems before every problem.

        With a chat template they are turns, so the few-shot text is empty and the rendering another one. Otherwise they
        are text, with an empty line after each.

        Raises:
            InputError: an example without steps, or whose steps or text would not be read as they are.
        """
        for example in examples:
            if not example.steps:
                raise InputError(f"few-shot example {example.id}: has no worked solution")
            if (found := self.split(self.join(example.steps))) != example.steps:
                raise InputError(
                    f"few-shot example {example.id}: has {len(example.steps)} steps, but its text {len(found)} by "
                    f"template.step_separator {self.step_separator!r}"
                )
        if not examples or not self.chat:
            return self, "".join(
                self.render_prompt(e.problem) + "".join(map(self.render_step, e.steps)) + "\n" for e in examples
            )
        assert self.rendering is not None
        chat = ChatTemplate(tokenizer, self.chat_options)
        before, after = chat.around(self.messages("", examples=examples)[:-1], self._user())
        return replace(self, rendering=replace(self.rendering, before=before, after=after)), ""

    def messages(
        self, problem: str, steps: Sequence[str] = (), examples: Sequence[Problem] = ()
    ) -> list[dict[str, str]]:
        """Return the turns of a conversation: system, examples, problem, and the steps so far.

        The final turn is the user's, or the beginning of the assistant's if there are steps.
        """
        turns = self._opening()
        for example in examples:
            turns += [self._turn(example.problem), {"role": "assistant", "content": self.join(example.steps)}]
        turns.append(self._turn(problem))
        if steps:
            turns.append({"role": "assistant", "content": self.join(steps) + self.joint})
        return turns

    def _opening(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.system.strip()}] if self.system else []

    def _user(self) -> str:
        return str(self.prompt).strip()

    def _turn(self, problem: str) -> dict[str, str]:
        return {"role": "user", "content": self._user().replace("{problem}", problem.strip())}

    def render_prompt(self, problem: str) -> str:
        """Render the text before a solution of ``problem``."""
        assert self.rendering is not None or not self.chat, "the chat template has not been rendered"
        return self.text.replace("{problem}", problem.strip())

    def render(self, problem: str, steps: Sequence[str]) -> str:
        """Render a problem and the steps so far."""
        thought = self.thought if steps else ""
        return self.render_prompt(problem) + thought + "".join(map(self.render_step, steps))

    def render_step(self, step: str) -> str:
        """Render one step, with the text after it."""
        return step + self.joint

    def join(self, steps: Sequence[str]) -> str:
        """Join steps to the text of a solution."""
        return self.joint.join(steps)

    def split(self, text: str, *, continued: bool = False) -> list[str]:
        """Split sampled text into steps, without thinking if the template strips it.

        ``continued`` text stands after other steps, so a think block that the prompt begins is closed.
        """
        return split_steps(self.strip(text, continued=continued), self.step_separator)

    def strip(self, text: str, *, continued: bool = False) -> str:
        """Remove the thinking from sampled text if ``strip_thinking`` is set."""
        if not self.strip_thinking:
            return text
        return without(text, thinking(text, begun=self.begins_thinking and not continued))

    @property
    def begins_thinking(self) -> bool:
        """Check whether the prompt ends within ``<think>``, as of DeepSeek-R1."""
        return self.rendering is not None and self.rendering.after.rstrip().endswith("<think>")

    @property
    def thought(self) -> str:
        """Return the text between prompt and solution: the end of a think block that the prompt begins."""
        return "\n</think>\n\n" if self.begins_thinking else ""

    def save(self, folder: str | Path, **facts: Any) -> None:
        """Save the template and ``facts`` (objective, ids, recipe) with an export."""
        described = {
            "format": FORMAT,
            "template": {k: v for k, v in dataclasses.asdict(self).items() if v not in (None, False, {})},
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
