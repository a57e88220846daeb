"""Kills at every operation on the disk and at random moments, and disks that fail: nothing lost, doubled or changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.campaign import disk, stages
from tests.campaign.trial import End, Trial, forked, judge

NAME = "kills"
CHOSEN: list[str] = []  # stages; all where there is none


def trials(folder: Path, size: float, seed: int) -> Iterator[Trial]:
    """Yield kills and failures of every stage; at ``size`` 1 all operations, and 25 random moments a stage.

    Args:
        folder: of inputs and undisturbed runs.
        size: the share of the operations.
        seed: of the choice.
    """
    inputs = stages.prepare(folder / "inputs")
    for stage, run in stages.STAGES.items():
        if CHOSEN and stage not in CHOSEN:
            continue
        rng = Random(f"{seed} {stage}")
        count = count_operations(folder, inputs, stage)
        every = range(1, count + 1)
        chosen = sorted(rng.sample(every, min(count, max(2, round(size * count)))))
        for at in chosen:
            for how, act in (("kill", disk.die), ("tear", disk.tear)):
                # Every third time the run that goes on is killed too.
                again = rng.randrange(1, count + 1) if at % 3 == 0 else 0
                yield Trial(f"{stage}: {how} at operation {at}, then {again}", f"kills at disk operations: {stage}",
                            _killed(inputs, run, folder, stage, at, act, again))  # fmt: skip
            name = [*disk.FAILURES][at % len(disk.FAILURES)]
            yield Trial(f"{stage}: {name} at operation {at}", f"failing disks: {stage}",
                        _failed(inputs, run, folder, stage, at, name))  # fmt: skip
        for number in range(max(1, round(25 * size))):
            yield Trial(f"{stage}: kill at moment {number}", f"timed kills: {stage}",
                        _timed(inputs, run, folder, stage, rng.random()))  # fmt: skip


@cache
def undisturbed(folder: Path, inputs: Path, stage: str) -> tuple[dict[str, Any], float]:
    """Content and seconds of a run that nothing disturbs."""
    out = folder / "undisturbed" / stage.replace(", ", "-")
    stages.clear(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    end = forked(lambda: _run(stages.STAGES[stage], inputs, out))
    assert end.code == 0, end.err
    return stages.content(out), time.monotonic() - start


@cache
def count_operations(folder: Path, inputs: Path, stage: str) -> int:
    """Count the operations on the disk of an undisturbed run."""
    undisturbed(folder, inputs, stage)
    out = folder / "counted" / stage.replace(", ", "-")
    stages.clear(out)
    out.parent.mkdir(parents=True, exist_ok=True)

    def work() -> None:
        hook = disk.Disk(out.parent, 0, disk.die)
        _run(stages.STAGES[stage], inputs, out)
        print(f"\noperations: {hook.count}")

    return int(forked(work).out.rpartition("operations: ")[2])


def _run(run: Callable[[Path, Path], None], inputs: Path, out: Path) -> None:
    stages.small()
    run(inputs, out)


def _disturbed(run: Callable, inputs: Path, out: Path, at: int, act: Callable[[str, str], None]) -> End:  # type: ignore[type-arg]
    def work() -> None:
        disk.Disk(out.parent, at, act)
        _run(run, inputs, out)

    return forked(work)


def _compared(run: Callable, inputs: Path, folder: Path, stage: str, out: Path) -> tuple[str, str]:  # type: ignore[type-arg]
    """Let the stage go on to its end, and compare with an undisturbed run."""
    end = forked(lambda: _run(run, inputs, out))
    if end.code is None:
        return "hang", end.err[-500:]
    if end.code:
        return "lost", f"it does not go on: exit {end.code}: {end.err[-1500:]}"
    try:
        found = stages.content(out)
    except AssertionError as error:
        return "doubled", str(error)
    expected, _ = undisturbed(folder, inputs, stage)
    if found == expected:
        return "equal", ""
    for name in expected.keys() | found.keys():
        before, now = expected.get(name), found.get(name)
        if before != now:
            if isinstance(before, dict) and isinstance(now, dict) and before.keys() - now.keys():
                return "lost", f"{name}: {sorted(before.keys() - now.keys())[:3]}"
            return "changed", f"{name}: {str(before)[:600]} → {str(now)[:600]}"
    raise AssertionError


def _killed(
    inputs: Path, run: Callable, folder: Path, stage: str, at: int, act: Callable, again: int
) -> Callable[[Path], tuple[str, str]]:  # type: ignore[type-arg]
    def trial(own: Path) -> tuple[str, str]:
        out = own / "out"
        for number in (at, again):
            if number and (end := _disturbed(run, inputs, out, number, act)).code not in (0, -9):
                return ("hang" if end.code is None else "traceback"), f"exit {end.code}: {end.err[-1500:]}"
        return _compared(run, inputs, folder, stage, out)

    return trial


def _failed(
    inputs: Path, run: Callable, folder: Path, stage: str, at: int, name: str
) -> Callable[[Path], tuple[str, str]]:  # type: ignore[type-arg]
    def trial(own: Path) -> tuple[str, str]:
        out = own / "out"
        end = _disturbed(run, inputs, out, at, disk.failing(disk.FAILURES[name]))
        outcome, said = judge(end, [str(out), f"{out.parent}/.{out.name}.", f"{out.parent}: "])
        wanted = {"full": ("kept", "accepted")}.get(name, ("refused", "accepted"))
        return (
            _compared(run, inputs, folder, stage, out)
            if outcome in wanted
            else (outcome if outcome != "refused" else "unnamed", said)
        )

    return trial


def _timed(inputs: Path, run: Callable, folder: Path, stage: str, share: float) -> Callable[[Path], tuple[str, str]]:  # type: ignore[type-arg]
    def trial(own: Path) -> tuple[str, str]:
        out = own / "out"
        _, seconds = undisturbed(folder, inputs, stage)
        forked(lambda: _run(run, inputs, out), kill_after=share * seconds)
        return _compared(run, inputs, folder, stage, out)

    return trial
