"""Extract the solution from a model's output, without thoughts and special tokens.

Standard library only; linear in the length.
"""

from __future__ import annotations

import re

_END = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|end_of_text|end|eom_id)\|>|<\|im_start\|>\s*user|</s>|<eos>|<end_of_turn>|<｜end▁of▁sentence｜>"
)
_THOUGHT_END = re.compile(r"</think(?:ing)?>")
_THOUGHT_START = re.compile(r"<think(?:ing)?>")
_STEP_TAG = re.compile(r"(?<=\s)ки(?=\s|$)")  # Math-Shepherd's, after every step
NEXT_TURN = re.compile(
    r"(?m)^[ \t>*#]{0,9}(?:(?:Question|Q|Human|User|Instruction)\s?\d{0,3}\s?:|Problem\s?\d{0,3}\s?:?\*{0,2}[ \t]*$)"
)
"""Start of a next problem that the model generated."""


def solution_part(text: str) -> str:
    """Return the part of a model's output that is its solution.

    Text in ``<think>…</think>``, after an unclosed ``<think>``, or after a token that ends the turn is removed.

    >>> solution_part("<think>The answer is 5.</think>The answer is 6<|im_end|>"), solution_part("<think>Hm, 5")
    ('The answer is 6', '')
    """
    if "<" in text:
        if end := _END.search(text):
            text = text[: end.start()]
        *_, last = [0, *(found.end() for found in _THOUGHT_END.finditer(text))]
        text = text[last:]
        if start := _THOUGHT_START.search(text):
            text = text[: start.start()]
    return _STEP_TAG.sub("", text) if "ки" in text else text
