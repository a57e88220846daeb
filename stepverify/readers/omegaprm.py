"""Read OmegaPRM (Luo et al. 2024): Monte Carlo values of prefixes.

The prefixes are from a tree search over each problem's solutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepverify.readers.base import entry
from stepverify.readers.released import Released, Step, digest, valued
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem, StepLabel


class OmegaPRM(Released):
    """Read rows ``{question, final_answer, reasoning_steps}``, as OpenR writes them.

    ``reasoning_steps`` are many ``{solution_prefix, mc_value}``, or the tree itself (``save_data_tree``): ``{text,
    mc_value, children}`` with the question as root, where a step is the text of a node.

    A prefix is the question and the solution so far. If one prefix continues another at a space or line end, the added
    text is a step. A prefix that no other continues is a solution; a step that several solutions share has its value in
    the first one only, so that it counts once. If a prefix occurs again, its first value is kept. Problems have the id
    ``omegaprm/<digest of the question>``.

    Args:
        path: a JSON Lines file (``.gz`` too), or a Hub id.
        split: split of a Hub dataset.
        common: arguments of ``Released``: limit, exclude, math500, multiline, strict, fold, validation_fraction.
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
        """Map each solution so far to its label.

        The question alone has none.
        """
        values: dict[str, StepLabel] = {}
        for i, node in enumerate(entry(where, data, "reasoning_steps", list)):
            here = f"{where}: reasoning_steps[{i}]"
            prefix = entry(here, node, "solution_prefix", str).strip()
            label = valued(f"{here}: key 'mc_value'", node.get("mc_value"))
            if not prefix.startswith(question):
                raise InputError(f"{here}: key 'solution_prefix': expected the question first, got {prefix!r:.80}")
            if text := prefix.removeprefix(question).strip():
                if text in values:
                    self.noted.note("repeated prefixes", here)
                values.setdefault(text, label)
        return values


def _leaves(values: dict[str, StepLabel]) -> Iterator[list[Step]]:
    """Yield the labelled steps to each prefix that no other continues.

    In sorted order a prefix is followed immediately by all its continuations: white space sorts before printed
    characters.
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
    """Yield the labelled steps to each leaf.

    The label of a step that several leaves share is in the first one only.
    """
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
