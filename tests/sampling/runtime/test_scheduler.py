"""Many coroutines at once: bounds, errors, cancellation, and that no order of arrival changes a record."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.engines import SamplingOptions
from sampling.labelling import Consensus, EarlyStop, Rollouts
from sampling.runtime.scheduler import PriorityLimit, run, run_all, together
from sampling.runtime.store import Store
from sampling.runtime.writer import Writer
from sampling.stages.generate import generate
from sampling.stages.label import label
from stepverify.jsonl import read_records
from stepverify.records import Judgement, Problem, Rollout, Solution
from tests.helpers.engines import FakeEngine
from tests.helpers.judges import PLAIN, Judge, third_zero
from tests.helpers.labels import TEMPLATE
from tests.helpers.problems import Given, problem
from tests.helpers.walks import Walk

# ── the scheduler ─────────────────────────────────────────────────────────────────────────────────


def test_so_many_are_in_work_and_items_are_read_when_there_is_room():
    """Of 100 items seven are in work at the same time, and no more than seven are read ahead."""
    read, running, most = [], 0, 0

    def items():
        for i in range(100):
            read.append(i)
            yield i

    async def work(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(1 + item % 5):
            await asyncio.sleep(0)
        running -= 1
        done.append(item)
        assert len(read) <= len(done) + 7

    done = []
    run(run_all(items(), work, max_in_work=7))
    assert sorted(done) == list(range(100))
    assert most == 7


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt("stop"), SystemExit(3)])
def test_the_first_error_cancels_the_others_and_is_raised_as_it_is(error):
    """Also those that stop programs: others end by their ``finally``, before the error leaves."""
    ended = []

    async def work(item):
        try:
            if item == 3:
                await asyncio.sleep(0)
                raise error
            await asyncio.sleep(60)
        finally:
            ended.append(item)

    with pytest.raises(type(error)) as raised:
        run(run_all(range(10), work))
    assert raised.value is error
    assert sorted(ended) == list(range(10))


def test_together_gives_results_in_order():
    async def late(number):
        for _ in range(10 - number):
            await asyncio.sleep(0)
        return number

    assert run(together(late(i) for i in range(10))) == list(range(10))
    assert run(together([])) == []


def test_callers_of_one_turn_begin_in_their_order_however_many_works_they_have():
    begun = []

    async def work(name):
        begun.append(name)

    async def problem(number, works):
        await together(work((number, i)) for i in range(works))

    async def all_problems():
        await asyncio.gather(problem(0, 2), problem(1, 1), problem(2, 3))

    run(all_problems())
    assert begun == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


def test_it_runs_inside_a_running_event_loop():
    """As in a notebook."""

    async def answer():
        return 42

    async def cell():
        return run(answer())

    assert asyncio.run(cell()) == 42


def test_a_limit_lets_the_lowest_key_in_first():
    """Four places. First 3 and 1 of the lowest keys; then one of 9, larger than the limit, alone; then the rest."""
    order, used, most = [], 0, 0

    async def work(amount, key):
        nonlocal used, most
        async with limit.hold(amount, key):
            used += amount
            most = max(most, used if amount <= 4 else 0)
            assert amount <= 4 or used == amount
            order.append(key)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            used -= amount

    limit = PriorityLimit(4)
    run(together(work(amount, key) for amount, key in [(2, 5), (9, 2), (1, 1), (3, 0), (2, 4), (4, 3)]))
    assert order == [0, 1, 2, 3, 4, 5]
    assert most == 4


def test_one_that_gives_up_waiting_leaves_its_place():
    async def hold():
        async with limit.hold(1, 0):
            await asyncio.sleep(60)

    async def main():
        first, second = (asyncio.ensure_future(hold()) for _ in range(2))
        await asyncio.sleep(0.01)
        for task in (second, first):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        async with limit.hold(1, 0):
            return limit._used

    limit = PriorityLimit(1)
    assert asyncio.run(main()) == 1


def test_a_writer_syncs_what_comes_together_once(tmp_path, make_problem, monkeypatch):
    """Twenty coroutines, one sync; one that is cancelled has its record written all the same."""
    synced, sync = [], os.fsync
    with Store(tmp_path / "o", Problem, stage="s", config={}, inputs={}) as store:
        monkeypatch.setattr(os, "fsync", lambda number: synced.append(number) or sync(number))

        async def main():
            with Writer(store) as writer:
                await asyncio.gather(*(writer.write([make_problem(i)]) for i in range(20)))
                before = len(synced)
                task = asyncio.ensure_future(writer.write([make_problem(20)]))
                await asyncio.sleep(0)
                task.cancel()
            return before

        store.write([make_problem(99)])
        synced.clear()
        assert asyncio.run(main()) == 1
        assert {p.id for p in store.records()} == {f"p/{i}" for i in [*range(21), 99]}
        with pytest.raises(ValueError, match="already"):
            asyncio.run(Writer(store).write([make_problem(0)]))


# ── no order changes a record ─────────────────────────────────────────────────────────────────────


class Shuffled:
    """An engine that answers after a random number of turns."""

    def __init__(self, engine, seed, capacity):
        self.engine, self.random, self.capacity = engine, random.Random(seed), capacity
        self.in_flight = self.most = 0

    def __getattr__(self, name):
        return getattr(self.engine, name)

    async def complete(self, request, options):
        self.in_flight += request.n
        self.most = max(self.most, self.in_flight)
        for _ in range(self.random.randrange(20)):
            await asyncio.sleep(0)
        self.in_flight -= request.n
        return await self.engine.complete(request, options)


def lines(folder):
    return sorted(line for shard in folder.glob("part-*.jsonl") for line in shard.read_text().splitlines())


@pytest.fixture(scope="module")
def in_order(tmp_path_factory):
    """What engines that answer at once give."""
    folder = tmp_path_factory.mktemp("in order")
    return folder, pipeline(folder, lambda engine: engine)


def pipeline(folder, wrap):
    problems = Given(*(Problem(id=f"p/{i}", problem=f"{i}", answer="5") for i in range(5)))
    generator, judge = wrap(Walk()), wrap(Judge(third_zero))
    generate(generator, problems, folder / "g", num_samples=4, template=TEMPLATE)
    rollouts = Rollouts(generator, EarlyStop(8, 2), template=TEMPLATE, reuse_samples=True, reuse_rollouts=True)
    label(
        folder / "g",
        folder / "l",
        Consensus(rollouts, judge, sampling=SamplingOptions(temperature=0.0), template=PLAIN),
    )
    return [lines(folder / part) for part in ("g", "l", "l/rollouts", "l/judge")]


@given(seed=st.integers(0, 99), capacity=st.sampled_from([1, 3, 8, 600]))
@settings(max_examples=8)
def test_records_do_not_depend_on_concurrency_or_order(tmp_path_factory, in_order, seed, capacity):
    """Solutions, labels, rollouts and judgements, byte for byte, as sets of lines; and capacity is kept."""
    engines = []

    def wrap(engine):
        engines.append(Shuffled(engine, seed, capacity))
        return engines[-1]

    assert pipeline(tmp_path_factory.mktemp("shuffled"), wrap) == in_order[1]
    # Generation asks for whole problems of four samples; a request larger than the limit goes alone.
    assert engines[0].most <= max(capacity + 3, 4)
    assert engines[1].most <= capacity
    kinds = (Solution, Solution, Rollout, Judgement)
    assert all(
        list(read_records(in_order[0] / part, kind))
        for part, kind in zip(("g", "l", "l/rollouts", "l/judge"), kinds, strict=True)
    )


# ── stopped from outside ──────────────────────────────────────────────────────────────────────────

CHILD = """
import asyncio, sys
from pathlib import Path
from sampling.stages.generate import generate
from tests.helpers.engines import FakeEngine
from tests.helpers.problems import Given, problem
class Slow(FakeEngine):
    capacity = 6
    async def complete(self, request, options):
        completions = await super().complete(request, options)
        await asyncio.sleep(60 if len(self.asked) > 10 else 0)
        return completions
generate(Slow(), Given(*map(problem, range(60))), Path(sys.argv[1]), num_samples=3)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_keeps_what_is_finished(tmp_path, number, code):
    """Sent when the engine has stopped answering: the lines are whole, the manifest is unfinished, another run goes on."""
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "o")], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "o").glob("part-*"))) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    child.send_signal(number)
    _, said = child.communicate(timeout=30)
    assert child.returncode == code, said
    assert "never awaited" not in said
    kept = [json.loads(line)["id"] for line in lines(tmp_path / "o")]
    assert len(kept) == len(set(kept)) >= 24
    assert not json.loads((tmp_path / "o" / "manifest.json").read_text())["finished"]
    engine = FakeEngine()
    generate(engine, Given(*map(problem, range(60))), tmp_path / "o", num_samples=3)
    assert sum(r.n for r in engine.asked) == 180 - len(kept)
