"""Read PRM800K (Lightman et al. 2023): human ratings of steps.

The solutions are of MATH problems, as OpenAI released them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from stepverify.readers.base import entry, optional
from stepverify.readers.released import Choice, Released, Step, digest, is_incorrect, rated
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem

FINISH_REASONS = ("solution", "found_error", "give_up", "bad_problem")


class PRM800K(Released):
    """Read both phases of PRM800K, ``phase{1,2}_{train,test}.jsonl``.

    A row is one labeller's annotation of one problem. The main path follows the chosen completions, and the labeller's
    own step where no completion was good enough; if there is neither, the first rated completion ends the path. It
    always ends at the first -1. Every other completion was rated as the next step after the path so far, and after no
    other: it becomes a solution of its own, made of the steps before it and itself, in which the steps before have no
    label (the main path has theirs), so that each rating counts once. A null rating is no label. Neutral stays 0, see
    :class:`stepverify.data.targets.StepTargets`.

    With ``alternatives: product`` every combination of rated completions, one of each step, is a solution with labels
    at all of its steps, up to its first -1, although people rated an alternative after the chosen steps only; a rating
    then counts once for each combination.

    Problems have the id ``prm800k/<digest of the text>``, solutions have ``meta.generation`` and
    ``meta.finish_reason``, and ``meta.alternative`` if they are not main paths.

    Args:
        path: a file (``.gz`` too) or Hub id, or several.
        split: split of a Hub dataset.
        quality_control: ``keep`` or ``drop`` rows that checked the labeller.
        screening: ``keep`` or ``drop`` rows of the labellers' screening (generation -1).
        give_up: ``keep`` or ``drop`` rows in which the labeller gave up.
        bad_problem: ``keep`` or ``drop`` rows in which the labeller found the problem bad.
        alternatives: ``branches`` makes a solution of each alternative, ``chosen`` leaves them out, ``product`` takes
            all combinations.
        max_product: with ``product``, number of combinations of a row at most, the main path first; others are counted.
        max_generation: leave out rows of later generations of the model that wrote the solutions (phase 2); rows
            without a generation (phase 1) stay. None takes all.
        common: arguments of ``Released``: limit, exclude, math500, multiline, strict, fold, validation_fraction.
    """

    def __init__(
        self, path: str | list[str], split: str = "train", quality_control: Choice = "drop",
        screening: Choice = "drop", give_up: Choice = "drop", bad_problem: Choice = "drop",
        alternatives: Literal["branches", "chosen", "product"] = "branches", max_product: int = 64,
        max_generation: int | None = None, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(**common)
        if max_product < 1:
            raise InputError(f"max_product: expected 1 or more, got {max_product}")
        self.alternatives, self.max_product, self.max_generation = alternatives, max_product, max_generation
        self.paths, self.split = [path] if isinstance(path, str) else path, split
        self.choices = {
            "quality_control": quality_control, "screening": screening, "give_up": give_up, "bad_problem": bad_problem,
        }  # fmt: skip

    def _found(self) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        for where, data in (row for path in self.paths for row in rows(path, self.split)):
            label, question = (entry(where, data, key, dict) for key in ("label", "question"))
            reason = entry(where, label, "finish_reason", str)
            if reason not in FINISH_REASONS:
                raise InputError(f"{where}: key 'finish_reason': expected one of {FINISH_REASONS}, got {reason!r}")
            kinds = [
                kind for kind, key in (("quality_control", "is_quality_control_question"),
                                       ("screening", "is_initial_screening_question"))
                if entry(where, data, key, bool)
            ]  # fmt: skip
            if dropped := [kind for kind in (*kinds, reason) if self.choices.get(kind) == "drop"]:
                self.left_out.note(f"rows of {dropped[0]}", where)
                continue
            generation = optional(where, data, "generation", int)
            if self.max_generation is not None and generation is not None and generation > self.max_generation:
                self.left_out.note("rows of later generations", where)
                continue
            text = entry(where, question, "problem", str).strip()
            if not self._refused(where, text):
                meta = {"generation": generation, "finish_reason": reason}
                answer = optional(where, question, "ground_truth_answer", str)
                problem = Problem(id=f"prm800k/{digest(text)}", problem=text, answer=answer)
                steps = enumerate(entry(where, label, "steps", list))
                turns = [self._turn(f"{where}: step {i}", step) for i, step in steps]
                walk = self._product if self.alternatives == "product" else self._row
                yield from walk(problem, meta, turns, where)

    def _row(
        self, problem: Problem, meta: dict[str, Any], turns: list[_Turn], where: str
    ) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        """Yield the main path, then the alternatives to its steps."""
        path: list[Step] = []
        alternatives: list[list[Step]] = []
        ended = False
        for turn in turns:
            if ended:
                self.noted.note("steps after the end of their path", turn.where)
                continue
            before: list[Step] = [(text, None) for text, _ in path]
            for i, (text, label) in enumerate(turn.completions):
                here = f"{turn.where}: completion {i}"
                if i == turn.on:
                    pass
                elif label is None:
                    self.left_out.note("alternatives without a rating", here)
                elif self.alternatives == "chosen":
                    self.left_out.note("alternatives", here)
                elif own := self._steps(here, text, label):
                    alternatives.append(before + own)
            if turn.step is None:
                ended = True
            else:
                path += self._on_path(turn.where, *turn.step)
                ended = turn.last or is_incorrect(turn.step[1])
        if any(label for _, label in path):
            whole = meta["finish_reason"] == "solution" and not ended
            yield problem, path, {"meta": meta, "finish": "stop" if whole else None}
        else:
            self.left_out.note("paths without a rating", where)
        for alternative in alternatives:
            yield problem, alternative, {"meta": meta | {"alternative": True}}

    def _product(
        self, problem: Problem, meta: dict[str, Any], turns: list[_Turn], where: str
    ) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        """Yield the combinations of the steps' rated completions, those of the main path first."""
        options: list[list[tuple[list[Step], bool]]] = []  # of each turn: steps, and whether they end the path
        for turn in turns:
            if turn.step is None or (options and all(ends for _, ends in options[-1])):
                break
            others = [(f"{turn.where}: completion {i}", c) for i, c in enumerate(turn.completions) if i != turn.on]
            rated_ones = [(here, step) for here, step in others if step[1]]
            for here, _ in (other for other in others if not other[1][1]):
                self.left_out.note("alternatives without a rating", here)
            first = self._on_path(turn.where, *turn.step), turn.last or is_incorrect(turn.step[1])
            found = ((self._steps(here, *step), turn.last or is_incorrect(step[1])) for here, step in rated_ones)
            options.append([first, *(one for one in found if one[0])])
        for turn in turns[len(options) :]:
            if turn.step is not None:
                self.noted.note("steps after the end of their path", turn.where)
        paths = islice(_combine(options), self.max_product)
        ended = len(options) < len(turns) or any(row[0][1] for row in options)
        for number, path in enumerate(paths):
            if not any(label for _, label in path):
                self.left_out.note("paths without a rating", where)
            elif number:
                yield problem, path, {"meta": meta | {"alternative": True}}
            else:
                whole = meta["finish_reason"] == "solution" and not ended
                yield problem, path, {"meta": meta, "finish": "stop" if whole else None}
        if (more := _count(options) - self.max_product) > 0:
            self.left_out.note(reason := f"combinations beyond max_product = {self.max_product}", where)
            self.left_out[reason] += more - 1

    def _turn(self, where: str, step: Any) -> _Turn:
        completions: list[Step] = []
        for i, completion in enumerate(optional(where, step, "completions", list) or []):
            here = f"{where}: completion {i}"
            if optional(here, completion, "flagged", bool):
                self.noted.note("flagged completions", here)
            completions.append((entry(here, completion, "text", str), rated(here, completion.get("rating"))))
        human = optional(where, step, "human_completion", dict)
        chosen = optional(where, step, "chosen_completion", int)
        if chosen is not None and not 0 <= chosen < len(completions):
            raise InputError(
                f"{where}: key 'chosen_completion': expected null or 0 to {len(completions) - 1}, got {chosen}"
            )
        written = None if human is None else entry(where, human, "text", str)
        return _Turn(where, completions, chosen, written if chosen is None else None)


def _combine(options: list[list[tuple[list[Step], bool]]]) -> Iterator[list[Step]]:
    """Yield the paths through the options of each turn; a path ends where an option ends it."""
    if not options:
        yield []
        return
    for steps, ends in options[0]:
        for rest in _combine([] if ends else options[1:]):
            yield steps + rest


def _count(options: list[list[tuple[list[Step], bool]]]) -> int:
    """Count the paths of :func:`_combine`."""
    total = 1
    for turn in reversed(options):
        total = sum(1 if ends else total for _, ends in turn)
    return total


class _Turn:
    """Hold one step of an annotation: completions and continuation.

    Attributes:
        on: index of the completion that continues the path; None for the labeller's own step, or for none.
        step: that step and its label; None if there is none.
        last: nothing was chosen, so the path ends here.
    """

    def __init__(self, where: str, completions: list[Step], chosen: int | None, written: str | None) -> None:
        self.where, self.completions = where, completions
        self.last = chosen is None and written is None
        first_rated = next((i for i, (_, label) in enumerate(completions) if label), None)
        self.on = first_rated if self.last else chosen
        self.step: Step | None = None
        if self.on is not None:
            self.step = completions[self.on]
        elif written is not None:
            self.step = written, None
