"""Two starts of one stage on one output, and readers beside them: no record is doubled or lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from sampling.runtime.store import Store
from stepverify.records import InputError, Solution
from tests.campaign import stages
from tests.campaign.kills import undisturbed
from tests.campaign.trial import Trial, forked, judge

NAME = "writers"
_STORED = ("generate", "label", "label, rollouts", "label, judge", "score", "select", "rank")


def trials(folder: Path, size: float, seed: int) -> Iterator[Trial]:
    """Yield two starts of every stage at once, 12 of each at ``size`` 1, half of them with a third process that looks."""
    inputs = stages.prepare(folder / "inputs")
    for stage in _STORED:
        rng = Random(f"{seed} {stage}")
        for number in range(max(1, round(12 * size))):
            yield Trial(
                f"{stage}: two starts {number}",
                "two writers",
                _Two(folder, inputs, stage, rng.random() ** 2, number % 2).trial,
            )


class _Two:
    def __init__(self, folder: Path, inputs: Path, stage: str, delay: float, looks: int) -> None:
        self.folder, self.inputs, self.stage, self.delay, self.looks = folder, inputs, stage, delay, looks

    def trial(self, own: Path) -> tuple[str, str]:
        expected, seconds = undisturbed(self.folder, self.inputs, self.stage)
        out = own / "out"

        def work() -> None:
            stages.small()
            stages.STAGES[self.stage](self.inputs, out)

        first = _beside(work)
        looking = _beside(lambda: _look(out, time.monotonic() + seconds)) if self.looks else None
        time.sleep(self.delay * seconds)
        second = forked(work)
        codes = [_joined(first), second.code]
        if looking is not None and (code := _joined(looking)):
            return "traceback", f"the process that looked: exit {code}"
        outcome, said = judge(second, [str(out)])
        if outcome not in ("accepted", "refused") or codes[0] not in (0, 2) or 0 not in codes:
            return (outcome if outcome not in ("accepted", "refused") else "silent"), f"exits {codes}: {said}"
        try:
            found = stages.content(out)
        except AssertionError as error:
            return "doubled", str(error)
        return ("equal", f"exits {codes}") if found == expected else ("changed", f"exits {codes}: {str(found)[:500]}")


def _look(out: Path, end: float) -> None:
    """Open the folder to read, again and again; it may not be a stage's yet, or another's."""
    while time.monotonic() < end:
        try:
            store: Store[Any] = Store(out, Solution, stage="look", config={}, inputs={})
            list(store.records()) if (out / "manifest.json").is_file() else ()
        except (InputError, FileNotFoundError):
            pass


def _beside(work: Callable[[], object]) -> int:
    """Fork a process that runs beside this one."""
    pid = os.fork()
    if not pid:
        os._exit(forked(work).code or 0)
    return pid


def _joined(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
