"""Read PRM800K (Lightman et al. 2023): human ratings of steps.

The solutions are of MATH problems, as OpenAI released them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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

    Problems have the id ``prm800k/<digest of the text>``, solutions have ``meta.generation`` and
    ``meta.finish_reason``, and ``meta.alternative`` if they are not main paths.

    Args:
        path: a file (``.gz`` too) or Hub id, or several.
        split: split of a Hub dataset.
        quality_control: ``keep`` or ``drop`` rows that checked the labeller.
        screening: ``keep`` or ``drop`` rows of the labellers' screening (generation -1).
        give_up: ``keep`` or ``drop`` rows in which the labeller gave up.
        bad_problem: ``keep`` or ``drop`` rows in which the labeller found the problem bad.
        common: arguments of ``Released``: limit, exclude, math500, multiline, strict, fold, validation_fraction.
    """

    def __init__(
        self, path: str | list[str], split: str = "train", quality_control: Choice = "drop",
        screening: Choice = "drop", give_up: Choice = "drop", bad_problem: Choice = "drop", **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(**common)
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
            text = entry(where, question, "problem", str).strip()
            if not self._refused(where, text):
                meta = {"generation": optional(where, data, "generation", int), "finish_reason": reason}
                answer = optional(where, question, "ground_truth_answer", str)
                problem = Problem(id=f"prm800k/{digest(text)}", problem=text, answer=answer)
                steps = enumerate(entry(where, label, "steps", list))
                turns = [self._turn(f"{where}: step {i}", step) for i, step in steps]
                yield from self._row(problem, meta, turns, where)

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
