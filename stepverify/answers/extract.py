r"""Extract the final answer that a solution states.

Standard library only; time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from stepverify.answers.transcript import NEXT_TURN, solution_part

Fallback = Literal["no_answer", "last_number", "conclusion"]
"""The answer of a text that states none: none, :func:`last_number`, or :func:`concluded_number`."""

MAX_STATEMENT = 500
"""Longest stated answer in characters; longer ones are prose. Does not apply to ``\boxed``."""

# Matches the start of a statement. ``A:`` is how OpenAI writes GSM8K's last line, so it counts on the last line only.
_LEAD_IN = re.compile(
    r"""
      (?P<formal> \\(?P<box>boxed|fbox)(?![A-Za-z]) | (?P<tag><(?:final_?)?answer>)
                  | (?:(?m:^)[ \t]*+|(?<=\s)) \#{4}(?!\#) (?:\s{0,3}+(?i:(?:final\s)?answer)\s?:)?
                  | \#[ ]{1,3}+(?i:(?:final[ ])?answer)\b (?!\s*+(?:is|to|for|of)\b) [ ]{0,3}+:?\s*+ )
    | (?i: \banswers? (?:,\s?\w{1,12},|\s{1,9}+(?:to|for|of|we|you|i)\s[^.\n]{0,100}?)?
           \s{1,9}+(?:is|are|(?:must|should|would|will|has\sto)\sbe)\b (?!\s*+not\b)
           (?:\s{1,9}+(?:therefore|thus|then|simply|just|exactly|clearly|approximately|about|roughly|equal\sto)\b)?
           \s{0,9}+:? )
    | (?im: ^[^A-Za-z0-9\n\\$<(]{0,9}+ (?:\d{1,2}[.)]\s)? [*_]{0,2} (?:the\s)? (?:(?:final|correct)\s)?
            ans(?:wers?|\.)? \s{0,9}+ [*_]{0,2} \s? [:=] )
    | (?im: ^[^\w\n\\$<(]{0,9}+ (?:(?:the|my)\s)? (?:final\s)? answer [^\w\n\\$<(]{0,9}+ $ )
    | (?i: \bfinal\sanswer \s? \*{0,2} : )
    | 答案\s?(?:应该是|应为|是|为|：|:|=)+
    | (?m:^) [ ]*+ A: (?=[^\n]*+\s*+\Z)
    """,
    re.VERBOSE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BRACE = re.compile(r"\\[\\{}]|[{}]")
_MATH = re.compile(
    r"\$\$(?P<display>.+?)\$\$|\$(?P<inline>[^$\n]+?)(?<!\\)\$|\\\((?P<round>.+?)\\\)|\\\[(?P<square>.+?)\\\]",
    re.DOTALL,
)
_SENTENCE_END = re.compile(
    r"\n|[.!?](?=\s|\*|$)|。|\s—\s|</(?:final_?)?answer>"
    r"|,?\s\(?(?:because|since|so|which|where|I\shope|however|although|altogether|in\s(?:total|all))\b"
    r"|,\s(?:but|not|as|i\.e|that\sis|meaning|giving|making|leaving|respectively|and\s(?:not|the|this|that|so|it))\b"
    r"|,?\s(?:total|overall|combined)(?=[.!\s]*(?:\n|$))"
)
_ASIDE = re.compile(r"(?<=[\d$}%])\s+\((?!mod|base|or\b|and\b)(?:[A-Za-z]{2,}[ ,-]{0,2})+\)$")  # 5 (five)
_MARKS = re.compile(r"[\s\u2600-\u27bf\ufe0f\U0001f300-\U0001faff]+$")  # check marks and other symbols
_MATHEMATICAL = re.compile(r"[\d$\\=^]")
_NUMBER = re.compile(r"(?:(?<![\w.)])-)?\d+(?:(?:,|\{,\})\d{3})*(?:\.\d+)?")
_RESULT = re.compile(r"=[^\w=\-]{0,9}+(" + _NUMBER.pattern + ")")
_PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2,}")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_FILLER = re.compile(r"[\s${}]|\\[,;:()\[\]]|\\q?quad|\\text|\\mbox")
_JOINTS = frozenset((",", ";", "and", ",and"))  # between boxes that form one answer; after "or" the answer is restated
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))


def extract_answer(text: str) -> str | None:
    r"""Extract the answer of the last clear statement in ``text``, as written.

    Statements are GSM8K's ``#### 72`` (Cobbe et al. 2021), the last line ``A: 72`` of OpenAI's released solutions,
    PRM800K's heading ``# Answer`` and ``**Final Answer**`` with 72 after or below it, ``The (final) answer is 72.``, a
    line ``Answer: 72``, ``<answer>72</answer>`` and ``\boxed{72}`` or ``\fbox{72}`` with balanced braces (Hendrycks et
    al. 2021). A mathematical answer is preferred to one in words (``The answer is Evelyn``), as in ``\boxed{7}. So the
    answer is correct``. Boxes joined by ``and`` or a comma are one list. The last number of a text without a statement
    is not an answer; text in ``<think>…</think>``, or after a ``Question:`` that the model generated, is ignored.

    Returns:
        The answer without surrounding ``$`` and full stop; None if nothing is stated, or if the text was cut off within
        its only ``\boxed{``.

    >>> extract_answer(r"Half of 3 is $\frac{3}{2}$. The answer is $\frac{3}{2}$.")
    '\\frac{3}{2}'
    >>> extract_answer("She pays 2 * 9 = $18\n#### 18\nQuestion: And 3 * 9?\n#### 27")
    '18'
    """
    text = solution_part(text)
    lead_ins = list(_LEAD_IN.finditer(text))
    if lead_ins and (following := NEXT_TURN.search(text, lead_ins[0].end())):
        head = text[: following.start()]
        if (answer := _last_stated(head, list(_LEAD_IN.finditer(head)))) is not None:
            return answer
    return _last_stated(text, lead_ins)


def _last_stated(text: str, lead_ins: list[re.Match[str]]) -> str | None:
    closing = _closing_braces(text) if any(lead_in["box"] for lead_in in lead_ins) else {}
    inside = list(_within_boxes(text, lead_ins, closing))
    in_words = None
    for at, lead_in in reversed(list(enumerate(lead_ins))):
        if lead_in["box"]:
            stated = _boxed(text, lead_in.end(), closing)
        elif inside[at]:  # \\boxed{The answer is 5} is one statement: the box
            continue
        else:
            stated = _sentence(text, lead_in.end(), heading=lead_in[0].lstrip()[:1] in ("#", "*"))
        if not stated or not (answer := _clean(stated)):
            continue
        if lead_in["formal"] or _MATHEMATICAL.search(stated):
            return ", ".join((*_joined_boxes(text, lead_ins, at, closing), answer))
        in_words = in_words or answer
    return in_words


def boxed_answer(text: str) -> str | None:
    r"""Extract the content of the last non-empty ``\boxed`` or ``\fbox``.

    Its braces must be balanced. Solutions of MATH state their answers in this way (Hendrycks et al. 2021).

    >>> boxed_answer(r"The answer is \boxed{x^{2}} as before, so the answer is right.")
    'x^{2}'
    """
    boxes = [lead_in.end() for lead_in in _BOX.finditer(text)]
    closing = _closing_braces(text) if boxes else {}
    return next((answer for end in reversed(boxes) if (answer := _clean(_boxed(text, end, closing)))), None)


def last_number(text: str) -> str | None:
    """Extract the last number in ``text``, without separators.

    A rule for solutions in prose that state no answer.

    It fails if a number follows the answer (``4 days to save the remaining $8``).

    >>> last_number("16 - 7 = 9, so she makes $1,018.50 a day.")
    '1018.50'
    """
    found = _NUMBER.findall(text)
    return _plain_number(found[-1]) if found else None


def concluded_number(text: str) -> str | None:
    r"""Extract the result of the last line, or the last one before that it repeats.

    A result is a number after an equals sign. Otherwise the last number, as :func:`last_number`.

    >>> concluded_number("\[ 8 / 2 = 4 \text{ days} \]\nIt takes 4 days to save the remaining $8.")
    '4'
    >>> concluded_number("The rest is 10 - 4 = 6.\nSo 6 and 3 are \(6 + 3 = 9\) in 2 days.")
    '9'
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if own := _RESULT.findall(lines[-1]) if lines else []:
        return _plain_number(own[-1])
    if results := _RESULT.findall(text):
        result = _plain_number(results[-1])
        if float(result) in [float(_plain_number(number)) for number in _NUMBER.findall(lines[-1])]:
            return result
    return last_number(text)


def _plain_number(number: str) -> str:
    return re.sub(r"[,{}]", "", number)


def _closing_braces(text: str) -> dict[int, int]:
    """Map positions of opening braces to their closing braces.

    One pass; unclosed braces are left out.
    """
    pairs: dict[int, int] = {}
    open_braces: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            open_braces.append(brace.start())
        elif brace[0] == "}" and open_braces:
            pairs[open_braces.pop()] = brace.start()
    return pairs


def _within_boxes(text: str, lead_ins: list[re.Match[str]], closing: dict[int, int]) -> Iterator[bool]:
    """Yield whether each lead-in is within a box that began before it."""
    end = -1
    for lead_in in lead_ins:
        yield lead_in.start() < end
        if lead_in["box"]:
            end = max(end, closing.get(_skip_spaces(text, lead_in.end()), -1))


def _skip_spaces(text: str, start: int) -> int:
    while start < len(text) and text[start] in " \t\n":
        start += 1
    return start


def _boxed(text: str, start: int, closing: dict[int, int]) -> str:
    start = _skip_spaces(text, start)
    if text[start : start + 1] == "{":
        return text[start + 1 : closing[start]] if start in closing else ""
    word = re.compile(r"[^\s$,.;}\\]{1,100}").match(text, start)  # \boxed 7: TeX's argument, and the rest of the number
    return word[0] if word else ""


def _joined_boxes(text: str, lead_ins: list[re.Match[str]], at: int, closing: dict[int, int]) -> list[str]:
    """Extract the boxed answers joined to the box ``at``.

    Only ``and`` or a comma may stand between them.
    """
    boxes: list[str] = []
    while at and lead_ins[at]["box"] and lead_ins[at - 1]["box"]:
        end = closing.get(_skip_spaces(text, lead_ins[at - 1].end()), len(text))
        between = text[end + 1 : lead_ins[at].start()]
        if len(between) > 60 or _FILLER.sub("", between) not in _JOINTS:
            break
        at -= 1
        boxes.append(_clean(_boxed(text, lead_ins[at].end(), closing)))
    return boxes[::-1]


def _sentence(text: str, start: int, heading: bool) -> str:
    """Extract the formula after a lead-in, else the rest of the sentence."""
    window = text[start : start + MAX_STATEMENT]
    content = window.lstrip(" \t*_:")
    below = content.startswith("\n")
    if below:
        content = content.lstrip(" \t\n*")
    formula = _MATH.match(content)
    if formula and _ends_statement(content, formula.end()):
        return formula[0]
    end = _SENTENCE_END.search(content)
    stated = content[: end.start()] if end else content
    words = len(_PROSE.findall(stated)) if _MATHEMATICAL.search(stated) else len(stated.split())
    if words > 3 and (below or not _MATHEMATICAL.search(stated)):
        return _emphasized(stated) if heading else ""  # a sentence without an answer, or the next step
    if below and not _MATHEMATICAL.search(stated):
        return ""  # an answer in words must be on the same line
    return "" if not end and len(window) == MAX_STATEMENT else stated


def _emphasized(sentence: str) -> str:
    """Extract the only emphasized text or number below a heading.

    Otherwise the sentence.
    """
    for found in (_BOLD.findall(sentence), _NUMBER.findall(sentence)):
        if len(found) == 1 and _MATHEMATICAL.search(found[0]):
            return str(found[0])
    return sentence if _MATHEMATICAL.search(sentence) else ""


def _ends_statement(content: str, end: int) -> bool:
    """Check whether a formula is the whole statement.

    It is not in ``$5$ and $6$``, ``$28$ percent`` or ``$5 or $6``.
    """
    return bool(re.compile(r"\s*(?:\Z|[\n.,;!*]|\(|(?:because|since|so|which|where|I\shope)\b)").match(content, end))


def _clean(stated: str) -> str:
    """Strip spaces, a full stop, emphasis and formula delimiters from an answer.

    Also a lone ``$``.
    """
    stated = _ASIDE.sub("", _MARKS.sub("", stated).removesuffix("."))
    for _ in range(4):  # more layers do not occur, and each costs a copy
        stated = stated.strip().removesuffix(".")
        for left, right in _DELIMITERS:
            inner = stated[len(left) : -len(right)]
            if (
                len(stated) >= len(left + right)
                and stated.startswith(left)
                and stated.endswith(right)
                and left not in inner
            ):
                stated = inner
                break
        if stated.startswith("$") and "$" not in stated[1:]:
            stated = stated[1:]
        if stated.endswith("$") and not stated.endswith(r"\$") and "$" not in stated[:-1]:
            stated = stated[:-1]
        if stated.endswith("**") and "**" not in stated[:-2]:  # emphasis that began before the statement
            stated = stated[:-2]
    return stated.strip()  # never blank, so that an answer equals itself
