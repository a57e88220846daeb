"""Render problems with a tokenizer's own chat template.

A chat template is a program. Here it is run on marks instead of problems, once: what it writes around them is the
prompt of every problem, kept with each export. It is refused where that would not be what it writes itself.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepverify.records import InputError

Turn = dict[str, str]

_MARK, _ANSWER = "Mark 5 of the problem", "Mark 7 of the solution"
# Texts that a template may change: blank space inside, line ends, markup, braces, quotes, other scripts.
_PROBES = (
    "x", "z" * 5000, "Wie groß ist √2 für 中?\n```\n1\n```",
    'a  b\n\n  c\t"d" \'e\' <f> &g; {h} {{ i }} {% j %} \\frac{1}{2} $k$',
)  # fmt: skip
_DATE = datetime(2024, 7, 26)  # the day that Llama 3's template writes if it is told none
_LONGEST = 60  # characters of a rendering in a message


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """Hold what a chat template writes around a problem.

    Attributes:
        before: text before the problem.
        after: text after it, up to the first token of the solution.
        end: text after a solution.
        sha256: hash of a conversation with a worked problem, a problem and a solution.
    """

    before: str
    after: str
    end: str
    sha256: str


class ChatTemplate:
    """Run a tokenizer's chat template.

    A template that asks for the date is given one that never changes, so that prompts do not either.

    Args:
        tokenizer: a Hugging Face tokenizer.
        options: variables of the template, such as ``enable_thinking``.

    Raises:
        InputError: the tokenizer has no chat template, or it does not know an option.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any]) -> None:
        self.tokenizer, self.options, self.name = tokenizer, options, tokenizer.name_or_path
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                f"template.chat: true, but the tokenizer of {self.name} has no chat template; write the text around a "
                "problem as template.prompt, with chat: false"
            )
        source = tokenizer.get_chat_template()
        own = inspect.signature(tokenizer.apply_chat_template).parameters.keys() | {"messages"}
        for option in options:
            if option in own or not re.search(rf"\b{re.escape(option)}\b", source):
                raise InputError(
                    f"template.chat_options.{option}: the chat template of {self.name} has no such variable"
                )

    def __call__(self, messages: Sequence[Turn], *, prompt: bool) -> str:
        """Render messages; ``prompt`` adds the beginning of the assistant's turn.

        Raises:
            InputError: the template refuses the messages.
        """
        import jinja2

        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=prompt, strftime_now=_DATE.strftime,
                **self.options,
            )  # fmt: skip
        except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
            roles = ", ".join(m["role"] for m in messages)
            hint = "; write it at the start of template.prompt" if messages[0]["role"] == "system" else ""
            raise InputError(
                f"template.chat: the chat template of {self.name} refuses turns of {roles}: "
                f"{' '.join(str(error).split())}{hint}"
            ) from None
        return text

    def around(self, before: Sequence[Turn], content: str) -> tuple[str, str]:
        """Return the text before and after a user's final turn.

        Args:
            before: earlier turns.
            content: the turn's text, in which ``{problem}`` stands for the problem.

        Raises:
            InputError: the text is not written as it is, or twice.
        """

        def render(problem: str) -> str:
            turn = {"role": "user", "content": content.replace("{problem}", problem)}
            return self([*before, turn], prompt=True)

        parts = render(_MARK).split(_MARK)
        for problem in _PROBES if len(parts) == 2 else (_MARK,):
            if len(parts) != 2 or render(problem) != problem.join(parts):
                raise InputError(
                    f"template.chat: the chat template of {self.name} does not write the problem "
                    f"{problem[:30]!r} as it is; write the text around a problem as template.prompt, with chat: false"
                )
        if "{problem}" in "".join(parts):
            raise InputError("template: expected {problem} in the user's turn alone")
        for message in before:
            if message["content"] not in parts[0]:
                raise InputError(
                    f"template.chat: the chat template of {self.name} changes or leaves out the text of a turn "
                    f"({message['role']}: {message['content'][:_LONGEST]!r})"
                )
        return parts[0], parts[1]

    def rendering(self, system: Sequence[Turn], content: str) -> Rendering:
        """Return what is written around a problem and its solution.

        Raises:
            InputError: as :meth:`around`, or a solution is not written as it is.
        """
        before, after = self.around(system, content)
        user, assistant = {"role": "user", "content": _MARK}, {"role": "assistant", "content": _ANSWER}
        text = self([*system, user, assistant], prompt=False)
        _, found, end = text.rpartition(_ANSWER)
        if not found:
            raise InputError(f"template.chat: the chat template of {self.name} leaves out the assistant's turn")
        try:
            worked = self([*system, user, assistant, user], prompt=True)
        except InputError:  # of models for one turn
            worked = ""
        digest = hashlib.sha256("\0".join((before, after, text, worked)).encode()).hexdigest()
        return Rendering(before=before, after=after, end=end, sha256=digest)


def check_same(kept: Rendering, now: Rendering, name: str) -> None:
    """Refuse a chat template that writes other text than at the export.

    Raises:
        InputError: names the part that differs.
    """
    for part in ("before", "after", "end", "sha256"):
        was, is_now = getattr(kept, part), getattr(now, part)
        if was != is_now:
            at = next((i for i, (a, b) in enumerate(zip(was, is_now, strict=False)) if a != b), 0)
            at = max(0, at - 10)
            what = "other turns" if part == "sha256" else (
                f"{is_now[at:][:_LONGEST]!r} where it wrote {was[at:][:_LONGEST]!r}"
            )  # fmt: skip
            raise InputError(
                f"{name}: its chat template has changed since the export: it now writes {what}; take the export's "
                "tokenizer, or train again"
            )
