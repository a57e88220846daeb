"""Find single tokens: the start of sequences, the end of turns, step tags and labels."""

from __future__ import annotations

from typing import Any

from stepverify.records import InputError

# Suggested in the error about a tag or label that is not a single token.
_CANDIDATES = (
    "+",
    "-",
    "<step>",
    "ки",
    " ки",
    "<reponame>",
    "<|fim_pad|>",
    "<|reserved_special_token_0|>",
    "<unused0>",
)


def start_ids(tokenizer: Any) -> list[int]:
    """Return the ids before every sequence: BOS for Llama, none for Qwen."""
    return [i for i in tokenizer("").input_ids if i == tokenizer.bos_token_id]


def single_token(tokenizer: Any, text: str, key: str) -> int:
    """Return the id of ``text``, which must be exactly one known token.

    Raises:
        InputError: naming the tokens that it is split into, and candidates that are one token.
    """

    def is_token(text: str, ids: list[int]) -> bool:
        # Some tokenizers drop unknown text, so the token must also decode to the text.
        return len(ids) == 1 and ids[0] != tokenizer.unk_token_id and tokenizer.decode(ids).strip() == text.strip()

    ids = tokenizer.encode(text, add_special_tokens=False)
    if is_token(text, ids):
        return ids[0]
    pieces = [tokenizer.decode([i]) for i in ids]
    special = [t for t in tokenizer.added_tokens_encoder if t not in tokenizer.all_special_tokens]
    good = [
        candidate
        for candidate in dict.fromkeys((*_CANDIDATES, *special))
        if is_token(candidate, tokenizer.encode(candidate, add_special_tokens=False))
    ]
    raise InputError(
        f"{key}: {text!r} is {len(ids)} tokens {pieces} in {tokenizer.name_or_path}, it must be one known token; "
        f"single tokens there: {', '.join(map(repr, good[:12]))}"
    )


def end_of_turn(tokenizer: Any, end: str) -> int:
    """Return the token that ends the assistant's turn.

    Args:
        tokenizer: a Hugging Face tokenizer.
        end: text after a solution; the end-of-sequence token stands for a blank one.

    Raises:
        InputError: the text does not begin with a special token.
    """
    if not end.strip():
        return int(tokenizer.eos_token_id)
    ids = tokenizer.encode(end.lstrip(), add_special_tokens=False)
    if ids[0] not in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        raise InputError(
            f"template.chat: the chat template of {tokenizer.name_or_path} ends the assistant's turn with {end!r}, "
            "which is no special token, so nothing could stop there; write the text around a problem as "
            "template.prompt, with chat: false"
        )
    return int(ids[0])
