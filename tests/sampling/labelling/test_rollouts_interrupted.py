"""Rollouts that are interrupted at any moment: the same labels, and no answer asked for twice."""

import contextlib
import random
import sys
from collections import Counter

import pytest

from sampling.labelling import BinarySearch, EarlyStop, Exhaustive
from stepverify.jsonl import read_records
from stepverify.records import Rollout, Solution
from tests.helpers.kills import run_with_kills
from tests.helpers.walks import Walk, run, samples, summary

STRATEGIES = [Exhaustive(4), EarlyStop(max_rollouts=8, round_size=2), BinarySearch(num_rollouts=8, round_size=2)]


# Every strategy, and both values of ``reuse`` and ``before`` with each other; the other combinations are slow ones.
QUICK = {
    ("Exhaustive", True, False),
    ("EarlyStop", True, True),
    ("BinarySearch", False, True),
}


@pytest.mark.parametrize(
    ("strategy", "reuse", "before"),
    [
        pytest.param(s, reuse, before, id=f"{name}-{reuse}-{before}", marks=[pytest.mark.slow] * ((name, reuse, before) not in QUICK))
        for s in STRATEGIES for name in [type(s).__name__] for reuse in (False, True) for before in (False, True)
    ],
)  # fmt: skip
def test_interrupted_ten_times_is_undisturbed(tmp_path, strategy, reuse, before):
    """Ended after some more requests, again and again: the same labels, and nothing that had an answer asked again."""
    source = samples(tmp_path, problems=10)
    options = {"reuse_samples": reuse, "reuse_rollouts": reuse}
    if before:
        run(source, tmp_path / "before", EarlyStop(max_rollouts=4, round_size=1))
        options["reuse_from"] = [tmp_path / "before"]
    whole, _ = run(source, tmp_path / "whole", strategy, **options)
    size = summary(tmp_path / "whole")["rollouts"]
    to_draw = size - summary(tmp_path / "whole").get("rollouts_reused", 0)
    asked, rng = Counter(), random.Random(1)
    for _ in range(10):
        engine = Walk(stop_after=rng.randint(1, max(1, to_draw // 6)))
        with contextlib.suppress(KeyboardInterrupt):
            run(source, tmp_path / "out", strategy, engine, **options)
        asked += engine.asked
    engine = Walk()
    found, _ = run(source, tmp_path / "out", strategy, engine, **options)
    asked += engine.asked
    assert found == whole
    assert summary(tmp_path / "out")["rollouts"] == size
    assert asked.total() == to_draw
    sampled = Counter(r.id for r in read_records(tmp_path / "out" / "rollouts", Rollout))
    assert set(sampled.values()) == {1}


CHILD = """
import sys, time
from pathlib import Path
from sampling.labelling import EarlyStop
from tests.helpers.walks import Walk, run
class Slow(Walk):
    capacity = 4
    async def complete(self, request, options):
        time.sleep(0.004)
        return await super().complete(request, options)
run(Path(sys.argv[1]), Path(sys.argv[2]), EarlyStop(max_rollouts=8, round_size=2), Slow(), reuse_rollouts=True)
"""


@pytest.mark.slow
def test_ten_sigkills_change_no_label(tmp_path):
    source = samples(tmp_path, problems=70)
    whole, _ = run(source, tmp_path / "whole", EarlyStop(max_rollouts=8, round_size=2), reuse_rollouts=True)
    total = sum(1 for _ in read_records(tmp_path / "whole" / "rollouts", Rollout))
    command = [sys.executable, "-c", CHILD, str(source), str(tmp_path / "out")]
    run_with_kills(command, tmp_path / "out" / "rollouts", total, kills=10, rng=random.Random(2))
    assert {s.id: s.step_labels for s in read_records(tmp_path / "out", Solution)} == whole
    assert sum(1 for _ in read_records(tmp_path / "out" / "rollouts", Rollout)) == total
