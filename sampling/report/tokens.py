"""Scored solutions → one page that shows, text by text, what a verifier thinks, and where it loses faith."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from html import escape
from pathlib import Path

from sampling.report.page import STYLE
from stepverify.aggregate import Aggregation, aggregate, deepest_fall
from stepverify.jsonl import read_records
from stepverify.records import Solution

_LEVELS = 10
_KINDS = {
    "wrong": "Wrong, with the highest scores",
    "right": "Right, with the highest scores",
    "fall": "The deepest falls",
}


@dataclass(slots=True)
class Shown:
    """A solution as the page shows it.

    Attributes:
        texts: tokens or steps, none of them empty.
        values: the value behind each.
        fall: index of the text behind which the value has fallen most; None where it never falls.
        score: of the whole solution, in [0, 1] but for products, which are logarithms.
    """

    solution: Solution
    texts: list[str]
    values: list[float]
    score: float
    fall: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.fall = deepest_fall(self.values)

    def depth(self) -> float:
        """How far the value falls there."""
        return 0.0 if self.fall is None else self.values[self.fall - 1] - self.values[self.fall]


def shown(solution: Solution, name: str, how: Aggregation) -> Shown | None:
    """A solution with its values by token, or by step; None where it has but one value, or none to be placed."""
    values, texts = solution.scores[name], solution.pieces.get(name) or [step + "\n" for step in solution.steps]
    if len(values) < 2 or len(values) != len(texts):
        return None
    # A character of several tokens is there with the last of them: its value is the character's.
    visible = [(text, value) for text, value in zip(texts, values, strict=True) if text]
    return Shown(solution, [t for t, _ in visible], [v for _, v in visible], aggregate(values, how))


def choose(path: Path, used: dict[str, Aggregation], number: int) -> dict[str, dict[str, list[Shown]]]:
    """Verifier → kind → at most ``number`` solutions, the most extreme one first; of each problem the first of equals.

    Args:
        path: graded and scored solutions.
        used: verifier → aggregation; ``last`` where unknown.
        number: how many of each kind.
    """
    heaps: dict[str, dict[str, list[tuple[float, int, Shown]]]] = {}
    for place, solution in enumerate(read_records(path, Solution)):
        if solution.correct is None:
            continue
        for name in solution.scores:
            if (found := shown(solution, name, used.get(name, "last"))) is None:
                continue
            kinds = heaps.setdefault(name, {kind: [] for kind in _KINDS})
            kind = "right" if solution.solved else "wrong"
            for heap, key in ((kinds[kind], found.score), (kinds["fall"], found.depth())):
                (heappush if len(heap) < number else heappushpop)(heap, (key, -place, found))
    return {
        name: {kind: [found for _, _, found in sorted(heap, reverse=True)] for kind, heap in kinds.items()}
        for name, kinds in heaps.items()
    }


def to_page(chosen: dict[str, dict[str, list[Shown]]]) -> str:
    """One page that needs no other file, without a script."""
    steps = "".join(f'<span class="v{level}">{level / _LEVELS:.1f}</span>' for level in range(_LEVELS + 1))
    body = "".join(_section(name, kinds) for name, kinds in chosen.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Values along solutions</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{_STYLE}</style></head>\n'
        "<body><main><header><h1>Values along solutions</h1><p>The colour of a text is the value behind it: the chance "
        "that the solution is right so far. ▼ and a line mark where it falls most; point at a text to read its value."
        f'</p><p class="legend">wrong {steps} right</p></header>\n{body}</main></body></html>\n'
    )


def _section(name: str, kinds: dict[str, list[Shown]]) -> str:
    parts = []
    for kind, title in _KINDS.items():
        if kinds[kind]:
            parts.append(f"<h3>{escape(title)}</h3>" + "".join(map(_article, kinds[kind])))
    return f"<section><h2>{escape(name)}</h2>{''.join(parts)}</section>\n"


def _article(found: Shown) -> str:
    s = found.solution
    wrong = "wrong" if s.answer is None else f"wrong: {s.predicted or 'no answer'}, not {s.answer}"
    verdict = "right" if s.solved else wrong
    facts = f"{s.id} · {verdict} · last value {found.values[-1]:.3f}"
    if found.fall is not None:
        facts += f" · falls from {found.values[found.fall - 1]:.3f} to {found.values[found.fall]:.3f}"
    spans = "".join(_spans(found))
    return f'<article><p>{escape(facts)}</p><p class="problem">{escape(s.problem)}</p><pre>{spans}</pre></article>'


def _spans(found: Shown) -> Iterator[str]:
    before = None
    for i, (text, value) in enumerate(zip(found.texts, found.values, strict=True)):
        change = "" if before is None else f" ({value - before:+.3f})"
        level = round(min(max(value, 0.0), 1.0) * _LEVELS)
        mark = " fall" if i == found.fall else ""
        # A line end alone has no width, and could be neither seen nor pointed at.
        body = escape(text.replace("\n", "↵\n") if text.strip() == "" else text)
        yield f'<span class="v{level}{mark}" title="{value:.3f}{change}">{body}</span>'
        before = value


# Blue and orange are told apart by the colour-blind (Okabe and Ito 2008); the middle has no colour. The text is ink.
_STYLE = """
:root{--low:213 94 0;--high:0 114 178}
@media(prefers-color-scheme:dark){:root{--low:240 138 75;--high:86 180 233}}
h3{font-size:1rem;margin:1.5rem 0 .5rem}
article{border:1px solid var(--line);border-radius:6px;padding:.8rem 1rem;margin:0 0 1rem}
article p{margin:0 0 .5rem;max-width:none;font-size:.88rem}
article .problem{color:var(--ink)}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:.92rem/1.9 ui-monospace,"SFMono-Regular",Menlo,monospace}
pre span,.legend span{padding:.12rem 0;border-radius:2px}
.legend span{padding:.12rem .45rem;color:var(--ink);font-variant-numeric:tabular-nums}
pre span:hover{outline:1px solid var(--ink)}
pre .fall{box-shadow:inset 0 -2px var(--ink);-webkit-box-decoration-break:clone;box-decoration-break:clone}
pre .fall::before{content:"▼"}
""" + "".join(
    f".v{level}{{background:rgb(var(--{'low' if level < _LEVELS / 2 else 'high'})/"
    f"{abs(level - _LEVELS / 2) / (_LEVELS / 2) * 0.62:.2f})}}\n"
    for level in range(_LEVELS + 1)
)
