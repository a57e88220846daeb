"""Choose template, step tag and labels for a tokenizer and solutions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

from stepverify.data.tokens import single_token
from stepverify.records import InputError, Solution
from stepverify.template import Template

_LABELS = (("+", "-"), (" +", " -"), ("1", "0"), ("Y", "N"), ("yes", "no"))
# Tokens that models were given for no use, or for other texts than mathematics; the likeliest first.
_UNUSED = (
    r"^<step>$", r"fim_pad", r"reserved_special_token", r"^<unused", r"place.?holder", r"repo_?name", r"^<file_?sep>$",
    r"control_\d+", r"extra_id", r"reserved", r"special_?\d+", r"dummy", r"filename", r"jupyter|commit|issue|gh_stars",
)  # fmt: skip
_PLAIN = ("ки", " ки", "¤", "§", "¶", "‡", "※", "∎")
_TOKENIZED = 500  # solutions


@dataclasses.dataclass(frozen=True)
class Text:
    """Hold a template and how it was chosen.

    Attributes:
        template: to encode with.
        written: its keys for the configuration; None where the model's export has it.
        said: what was found, a line each.
    """

    template: Template
    written: dict[str, Any] | None
    said: list[str]


def choose_text(tokenizer: Any, solutions: Sequence[Solution], exported: Template | None, labels: bool) -> Text:
    """Choose the text around problems and steps.

    Args:
        tokenizer: a Hugging Face tokenizer.
        solutions: to be learned, from which no text may be the step tag.
        exported: template that the model was exported with.
        labels: label tokens are needed, as by a process reward model.

    Raises:
        InputError: the tokenizer has no tokens that can be tag and labels.
    """
    said = []
    if exported is not None:
        template, written = exported, None
        said.append("template: that of the model's export")
    else:
        template, reason = _plain_or_chat(tokenizer, solutions)
        said.append(f"template: {reason}")
        written = {key: getattr(template, key) for key in ("chat", "step_separator") if getattr(template, key) != "\n"}
        written = {key: value for key, value in written.items() if value}
    positive, negative = _labels(tokenizer, template) if labels else (template.positive, template.negative)
    taken = _taken(tokenizer, template, solutions, (positive, negative) if labels else ())
    tag = template.step_tag
    if exported is None or not _may_be_tag(tokenizer, tag, taken, solutions):
        tag = choose_tag(tokenizer, taken, solutions)
    chosen = dataclasses.replace(template, step_tag=tag, positive=positive, negative=negative)
    said.append(
        f"step tag: {tag!r}, one token ({single_token(tokenizer, tag, 'step_tag')}), in none of "
        f"{len(solutions):,} solutions" + (f", not a label ({positive!r}, {negative!r})" if labels else "")
    )
    if written is None and chosen != template:
        written = {
            f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen)
            if f.name != "rendering" and getattr(chosen, f.name) not in (None, False, {})
        }  # fmt: skip
        said[0] += ", with another step tag"
    elif written is not None:
        written |= {"step_tag": tag} | ({"positive": positive, "negative": negative} if positive != "+" else {})
    return Text(chosen, written, said)


def choose_tag(tokenizer: Any, taken: set[int], solutions: Sequence[Solution]) -> str:
    """Return a token that can mark the end of a step: an unused special one if there is one.

    Raises:
        InputError: no token is left.
    """
    added = sorted(tokenizer.added_tokens_encoder, key=tokenizer.added_tokens_encoder.__getitem__)
    added += ["<step>"]
    ordered = [token for pattern in _UNUSED for token in added if re.search(pattern, token, re.IGNORECASE)]
    for candidate in dict.fromkeys((*ordered, *_PLAIN)):
        if _may_be_tag(tokenizer, candidate, taken, solutions):
            return candidate
    for token in sorted(tokenizer.get_vocab().items(), key=lambda item: -item[1]):  # rare ones are last
        text = tokenizer.decode([token[1]])
        if text.strip() and text.isprintable() and _may_be_tag(tokenizer, text, taken, solutions):
            return str(text)
    raise InputError(f"{tokenizer.name_or_path}: every token of its vocabulary is in a solution; none can be step_tag")


def _plain_or_chat(tokenizer: Any, solutions: Sequence[Solution]) -> tuple[Template, str]:
    several = sum(any("\n" in step.strip() for step in s.steps) for s in solutions)
    blank = several > 0.05 * len(solutions)
    plain = Template(step_separator="\n\n" if blank else "\n")
    lines = "an empty line after each step, as steps have several lines" if blank else "a line for each step"
    if not getattr(tokenizer, "chat_template", None):
        return plain, f"plain text, as the tokenizer has no chat template; {lines}"
    chat = Template(chat=True, step_separator="\n\n")
    try:
        chat.rendered_by(tokenizer)
    except InputError as reason:
        return plain, f"plain text, as the chat template cannot be used ({reason}); {lines}"
    return chat, "the tokenizer's chat template, with an empty line after each step"


def _labels(tokenizer: Any, template: Template) -> tuple[str, str]:
    for pair in ((template.positive, template.negative), *_LABELS):
        if all(_is_single(tokenizer, text) for text in pair):
            return pair
    raise InputError(
        f"{tokenizer.name_or_path}: none of {', '.join(f'{a!r} and {b!r}' for a, b in _LABELS)} are single tokens; "
        "write template.positive and template.negative by hand"
    )


def _is_single(tokenizer: Any, text: str) -> bool:
    try:
        single_token(tokenizer, text, "")
    except InputError:
        return False
    return True


def _may_be_tag(tokenizer: Any, text: str, taken: set[int], solutions: Sequence[Solution]) -> bool:
    if not _is_single(tokenizer, text) or single_token(tokenizer, text, "") in taken:
        return False
    return not any(text in part for s in solutions for part in (s.problem, *s.steps))


def _taken(tokenizer: Any, template: Template, solutions: Sequence[Solution], labels: Iterable[str]) -> set[int]:
    """Return the ids of labels, of special tokens in use, and of all texts."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
    taken = {getattr(tokenizer, name, None) for name in names} | {single_token(tokenizer, t, "label") for t in labels}
    around = template.rendered_by(tokenizer)
    texts = [around.text, around.joint, around.rendering.end if around.rendering else ""]
    texts += [part for s in solutions[:_TOKENIZED] for part in (s.problem, *s.steps)]
    for ids in tokenizer(texts, add_special_tokens=False).input_ids:
        taken.update(ids)
    return {i for i in taken if i is not None}
