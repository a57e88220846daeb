"""Check what a server answers, field by field, before any of it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sampling.engines.base import Message, SamplingOptions
from sampling.engines.server.address import shortened
from sampling.engines.server.faults import Fault, Refusal

# vLLM and OpenAI say stop and length. The others are those of Text Generation Inference.
_FINISH = {"stop": "stop", "length": "length", "eos_token": "stop", "stop_sequence": "stop"}
_CHARACTERS = 1024  # of one token, at most: the longest of common vocabularies has 128 (a run of spaces)
_ID = "token_id:"
_ROUNDING = 1e-3  # by which a log-probability may lie above 0
_PADDING = 1024  # rows of an embedding beyond the tokenizer's last token: Qwen2 has 271


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold a checked completion.

    Attributes:
        text: without surrogates.
        finish: ``stop`` or ``length``.
        token_ids: sampled ids; None if the server reports none.
        num_tokens: number of sampled tokens; None if the server does not say.
        prompt_tokens: tokens of the prompt; None if the server does not say.
        cached_tokens: those of them that its prefix cache held; None if the server does not say.
        stopped_by: stop text that ended it, empty if there was none; None if the server does not say (vLLM does).
        top_logprobs: text and log-probability of the most likely first tokens; None if the server gives none.
    """

    text: str
    finish: str
    token_ids: list[int] | None
    num_tokens: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    stopped_by: str | None = None
    top_logprobs: list[tuple[str, float]] | None = None


def max_bytes(max_tokens: int) -> int:
    """Return the size of the longest answer that is read."""
    return (1 << 20) + 1024 * max_tokens


def checked(
    answer: Any, *, chat: bool, max_tokens: int, wants_ids: bool = False, vocabulary: int | None = None
) -> Answer:  # fmt: skip
    """Check the answer to a request for one completion.

    Args:
        answer: JSON.
        chat: it answers messages.
        max_tokens: number of tokens that were asked for.
        wants_ids: token ids must be there.
        vocabulary: number of tokens of the tokenizer; None if unknown.

    Raises:
        Fault: it is no such completion. The message shows the answer.
        Refusal: the server's filter has removed the completion.
    """
    try:
        return _checked(answer, chat, max_tokens, wants_ids, vocabulary)
    except _Bad as bad:
        kind = "away" if bad.aborted else "bad"
        raise Fault(f"bad answer: {bad}; the server sent {shortened(_shown(answer), 160)}", kind) from None


class _Bad(Exception):
    aborted = False


class _Aborted(_Bad):
    aborted = True


def _checked(answer: Any, chat: bool, max_tokens: int, wants_ids: bool, vocabulary: int | None) -> Answer:
    choices = _field(answer, "choices", list, "")
    if len(choices) != 1:
        raise _Bad(f"expected 1 choice, got {len(choices)}")
    choice = choices[0]
    if (index := _field(choice, "index", int, "choices[0].", 0)) != 0:
        raise _Bad(f"choices[0].index: expected 0, got {index}")
    reason = _field(choice, "finish_reason", str, "choices[0].")
    if reason == "content_filter":
        raise Refusal("the server's content filter removed the completion", whole=False)
    if reason in ("abort", "error"):
        raise _Aborted(f"finish_reason {reason!r}")
    if reason not in _FINISH:
        raise _Bad(f"finish_reason {reason[:40]!r}")
    if chat:
        message = _field(choice, "message", dict, "choices[0].")
        role = _field(message, "role", str, "choices[0].message.", "assistant")
        if role != "assistant":
            raise _Bad(f"choices[0].message.role: expected 'assistant', got {role[:40]!r}")
        if isinstance(message.get("refusal"), str) and message["refusal"]:
            raise Refusal(f"the service refused: {shortened(message['refusal'])}", whole=False)
        text = _field(message, "content", str, "choices[0].message.", "")  # null where all was thinking
    else:
        text = _field(choice, "text", str, "choices[0].")
    _check_text(text, max_tokens)
    ids = _token_ids(choice, max_tokens, vocabulary)
    if ids is None and wants_ids:
        raise _Bad("choices[0].token_ids: missing, though it returned token ids before")
    if ids == [] and text:
        raise _Bad("choices[0].token_ids: empty beside a text")
    read, sampled, cached = _usage(answer)
    if ids is None and sampled is not None and sampled > max_tokens:
        raise _Bad(f"usage.completion_tokens: {sampled}, though {max_tokens} were asked for")
    if ids is None and sampled == 0 and text:
        raise _Bad("usage.completion_tokens: 0 beside a text")
    stopped_by = choice.get("stop_reason")
    stopped_by = stopped_by if isinstance(stopped_by, str) else "" if "stop_reason" in choice else None
    return Answer(
        text, _FINISH[reason], ids, sampled if ids is None else len(ids), read, cached,
        stopped_by, _top_logprobs(choice),
    )  # fmt: skip


def _check_text(text: str, max_tokens: int) -> None:
    if len(text) > _CHARACTERS * max_tokens:
        raise _Bad(f"a text of {len(text)} characters, though {max_tokens} tokens were asked for")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Bad("a text with half of a surrogate pair") from None


def _token_ids(choice: dict[str, Any], max_tokens: int, vocabulary: int | None) -> list[int] | None:
    ids: list[int] | None = choice.get("token_ids")
    if ids is None:
        return None
    end = (1 << 31) if vocabulary is None else vocabulary + _PADDING
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < end for i in ids):
        raise _Bad("choices[0].token_ids: expected a list of token ids")
    if len(ids) > max_tokens:
        raise _Bad(f"choices[0].token_ids: {len(ids)} ids, though {max_tokens} were asked for")
    return ids


def _top_logprobs(choice: dict[str, Any]) -> list[tuple[str, float]] | None:
    """Return those of the first token, in either of OpenAI's forms: of chats, or of completions."""
    holder = _field(choice, "logprobs", dict, "choices[0].", {})
    places = _field(holder, "content", list, "choices[0].logprobs.", None)
    if places is None:
        places = _field(holder, "top_logprobs", list, "choices[0].logprobs.", [])
        rows: list[tuple[Any, Any]] = [*places[0].items()] if places and isinstance(places[0], dict) else []
    else:
        first = _field(places[0], "top_logprobs", list, "choices[0].logprobs.content[0].", []) if places else []
        rows = [(row.get("token"), row.get("logprob")) for row in first if isinstance(row, dict)]
    for text, value in rows:
        if not isinstance(text, str) or not isinstance(value, int | float) or not value < _ROUNDING:
            raise _Bad(f"choices[0].logprobs: expected a text and its log-probability, got {text!r:.40}, {value!r:.40}")
    return [(text, float(value)) for text, value in rows] or None


def with_texts(top: list[tuple[str, float]] | None, tokenizer: Any) -> list[tuple[str, float]] | None:
    """Return log-probabilities with texts of tokens in the place of their ids, ``token_id:7`` (vLLM's form)."""
    if top is None or tokenizer is None:
        return top
    ids = [text.removeprefix(_ID) if text.startswith(_ID) else "" for text, _ in top]
    texts = [tokenizer.decode([int(i)]) if i.isdigit() else text for i, (text, _) in zip(ids, top, strict=True)]
    return list(zip(texts, (value for _, value in top), strict=True))


def _usage(answer: dict[str, Any]) -> tuple[int | None, int | None, int | None]:
    usage = _field(answer, "usage", dict, "", {})
    details = _field(usage, "prompt_tokens_details", dict, "usage.", {})
    counts = (
        _field(usage, "prompt_tokens", int, "usage.", None),
        _field(usage, "completion_tokens", int, "usage.", None),
        _field(details, "cached_tokens", int, "usage.prompt_tokens_details.", None),
    )
    read, _, cached = counts
    if any(count is not None and not 0 <= count < 1 << 31 for count in counts):
        raise _Bad(f"usage: impossible counts {counts}")
    if cached is not None and cached > (read or 0):
        raise _Bad(f"usage: {cached} cached tokens of a prompt of {read}")
    return counts


_REQUIRED: Any = object()


def _field(holder: Any, name: str, kind: type, where: str, default: Any = _REQUIRED) -> Any:
    """Return a field of the right type; ``default`` for a missing one or null."""
    if not isinstance(holder, dict):
        raise _Bad(f"{where.rstrip('.') or 'the answer'}: expected an object")
    value = holder.get(name)
    if value is None and default is not _REQUIRED:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "missing" if name not in holder else f"expected {kind.__name__}, got {type(value).__name__}"
        raise _Bad(f"{where}{name}: {found}")
    return value


def _shown(answer: Any) -> str:
    try:
        return repr(answer)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a {type(answer).__name__}"


def cut_at_stop(text: str, options: SamplingOptions) -> tuple[str, str] | None:
    """Return the text before the first stop text, and this one; None if there is none."""
    at, stop = min(((at, stop) for stop in options.stop if (at := text.find(stop)) >= 0), default=(-1, ""))
    return None if at < 0 else (text[:at], stop)


def after_turn(messages: Sequence[Message] | None, text: str) -> str:
    """Return what follows the beginning of an assistant's turn in the whole turn.

    The server may have dropped blank space at the end of the beginning.
    """
    begun = messages[-1].content if messages else ""
    return text[len(begun) :] if text.startswith(begun) else text.removeprefix(begun.rstrip())
