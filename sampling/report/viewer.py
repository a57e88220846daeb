"""Show a verifier's value after each token or step of solutions.

One page of scored solutions, which also marks where the value drops most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from pathlib import Path

from sampling.report.render import render
from stepverify.aggregate import Aggregation, aggregate, deepest_fall
from stepverify.jsonl import read_records
from stepverify.records import Solution

_LEVELS = 10
_KINDS = {
    "incorrect": "Incorrect, with the highest scores",
    "correct": "Correct, with the highest scores",
    "fall": "The deepest falls",
}


@dataclass(slots=True)
class Shown:
    """Hold a solution as the page shows it.

    Attributes:
        texts: tokens or steps, none of them empty.
        values: the value after each.
        fall: index of the text after which the value has dropped most; None if it never drops.
        score: score of the whole solution, in [0, 1] except for products, which are logarithms.
    """

    solution: Solution
    texts: list[str]
    values: list[float]
    score: float
    fall: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.fall = deepest_fall(self.values)

    @property
    def facts(self) -> str:
        """Return what is known of the solution, in one line."""
        s = self.solution
        incorrect = "incorrect" if s.answer is None else f"incorrect: {s.predicted or 'no answer'}, not {s.answer}"
        facts = f"{s.id} · {'correct' if s.solved else incorrect} · last value {self.values[-1]:.3f}"
        if self.fall is not None:
            facts += f" · falls from {self.values[self.fall - 1]:.3f} to {self.values[self.fall]:.3f}"
        return facts

    def spans(self) -> Iterator[tuple[str, str, str]]:
        """Yield CSS class, tooltip and text of each token or step."""
        before = None
        for i, (text, value) in enumerate(zip(self.texts, self.values, strict=True)):
            change = "" if before is None else f" ({value - before:+.3f})"
            level = round(min(max(value, 0.0), 1.0) * _LEVELS)
            # A line end alone has no width, so it could be neither seen nor hovered over.
            body = text.replace("\n", "↵\n") if text.strip() == "" else text
            yield f"v{level}{' fall' if i == self.fall else ''}", f"{value:.3f}{change}", body
            before = value

    def depth(self) -> float:
        """Return the largest drop of the value; 0 if it never drops."""
        return 0.0 if self.fall is None else self.values[self.fall - 1] - self.values[self.fall]


def shown(solution: Solution, name: str, how: Aggregation) -> Shown | None:
    """Pair a solution's values with its tokens or steps.

    None if it has less than two values, or values that match neither.
    """
    values, texts = (
        solution.scores[name],
        solution.token_texts.get(name) or [step + solution.step_separator for step in solution.steps],
    )
    if len(values) < 2 or len(values) != len(texts):
        return None
    # The text of a character with several tokens is at the last of them, whose value counts.
    visible = [(text, value) for text, value in zip(texts, values, strict=True) if text]
    return Shown(solution, [t for t, _ in visible], [v for _, v in visible], aggregate(values, how))


def choose(path: Path, used: dict[str, Aggregation], number: int) -> dict[str, dict[str, list[Shown]]]:
    """Choose the solutions to show, the most extreme ones first.

    Args:
        path: graded and scored solutions.
        used: verifier → aggregation; ``last`` if it is unknown.
        number: largest number of solutions of each kind.

    Returns:
        verifier → kind → solutions; of equals those that come first in the input.
    """
    heaps: dict[str, dict[str, list[tuple[float, int, Shown]]]] = {}
    for place, solution in enumerate(read_records(path, Solution)):
        if solution.correct is None:
            continue
        for name in solution.scores:
            if (found := shown(solution, name, used.get(name, "last"))) is None:
                continue
            kinds = heaps.setdefault(name, {kind: [] for kind in _KINDS})
            kind = "correct" if solution.solved else "incorrect"
            for heap, key in ((kinds[kind], found.score), (kinds["fall"], found.depth())):
                (heappush if len(heap) < number else heappushpop)(heap, (key, -place, found))
    return {
        name: {kind: [found for _, _, found in sorted(heap, reverse=True)] for kind, heap in kinds.items()}
        for name, kinds in heaps.items()
    }


def to_page(chosen: dict[str, dict[str, list[Shown]]]) -> str:
    """Render one self-contained page, without a script."""
    shades = [0.62 * abs(level - _LEVELS / 2) / (_LEVELS / 2) for level in range(_LEVELS + 1)]
    verifiers = {
        name: {title: kinds[kind] for kind, title in _KINDS.items() if kinds[kind]} for name, kinds in chosen.items()
    }
    return render("tokens.html", verifiers=verifiers, shades=shades)
