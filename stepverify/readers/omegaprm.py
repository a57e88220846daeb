"""OmegaPRM (Luo et al. 2024): Monte Carlo values of the prefixes that a search over one problem's solutions has met."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepverify.readers.base import entry, rows
from stepverify.readers.released import Released, Step, digest, valued
from stepverify.records import InputError, Problem, StepLabel


class OmegaPRM(Released):
    """Rows ``{question, final_answer, reasoning_steps}`` of many ``{solution_prefix, mc_value}``, as OpenR writes them.

    ``reasoning_steps`` may also be the tree itself (``save_data_tree``): ``{text, mc_value, children}``, the question
    first; a step is the text of a node then.

    A prefix is the question and the solution so far. Where one goes on from another at a space or line end, what it
    adds is a step. A prefix that no other goes on from is a solution; a step that several of them share has its value
    in the first one only, so that it counts once. Of a prefix that was met again the first value stays. Problems have
    the id ``omegaprm/<digest of the question>``.

    Args:
        path: a JSON Lines file (``.gz`` too), or a hub id.
        split: of a hub dataset.
        common: as :class:`~stepverify.readers.released.Released`.
    """

    def __init__(self, path: str, split: str = "train", **common: Any) -> None:
        super().__init__(**common)
        self.path, self.split = path, split

    def _found(self) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        for where, data in rows(self.path, self.split):
            question, answer = (entry(where, data, key, str).strip() for key in ("question", "final_answer"))
            if isinstance(root := data.get("reasoning_steps"), dict):
                chains = list(_walk(f"{where}: reasoning_steps", root, []))
            else:
                chains = list(_leaves(self._values(where, question, data)))
            if not self._refused(where, question):
                problem = Problem(id=f"omegaprm/{digest(question)}", problem=question, answer=answer)
                for chain in chains:
                    yield problem, self._each(where, chain), {}

    def _values(self, where: str, question: str, data: Any) -> dict[str, StepLabel]:
        """Solution so far → its label; the question alone has none."""
        values: dict[str, StepLabel] = {}
        for i, node in enumerate(entry(where, data, "reasoning_steps", list)):
            here = f"{where}: reasoning_steps[{i}]"
            prefix = entry(here, node, "solution_prefix", str).strip()
            label = valued(f"{here}: key 'mc_value'", node.get("mc_value"))
            if not prefix.startswith(question):
                raise InputError(f"{here}: key 'solution_prefix': expected the question first, got {prefix!r:.80}")
            if text := prefix.removeprefix(question).strip():
                if text in values:
                    self.noted.note("prefixes met again", here)
                values.setdefault(text, label)
        return values


def _leaves(values: dict[str, StepLabel]) -> Iterator[list[Step]]:
    """The labelled steps on the way to each prefix that no other goes on from.

    Sorted, a prefix stands before all that goes on from it, and those follow at once: white space is smaller than
    what is printed.
    """
    chain: list[tuple[str, Step]] = []  # prefixes, each with the step that it adds
    for text in sorted(values):
        if chain and not _goes_on(text, chain[-1][0]):
            yield [step for _, step in chain]
            chain = [(prefix, (added, None)) for prefix, (added, _) in chain if _goes_on(text, prefix)]
        added = text.removeprefix(chain[-1][0]) if chain else text
        chain.append((text, (added, values[text])))
    if chain:
        yield [step for _, step in chain]


def _walk(where: str, node: Any, before: list[Step]) -> Iterator[list[Step]]:
    """The labelled steps on the way to each leaf; the label of a step that several share is in the first one only."""
    for i, child in enumerate(entry(where, node, "children", list)):
        here = f"{where}.children[{i}]"
        step: Step = (entry(here, child, "text", str), valued(f"{here}: key 'mc_value'", child.get("mc_value")))
        path = [*before, step]
        if not entry(here, child, "children", list):
            yield path
        else:
            yield from _walk(here, child, path)
        before = [(text, None) for text, _ in before]


def _goes_on(text: str, prefix: str) -> bool:
    return text.startswith(prefix) and text[len(prefix)].isspace()
