"""The pump of engines in this process: it steps a core while calls wait, and calls come and go between steps."""

import asyncio
import threading

import pytest

from sampling.engines import Completion, Request, SamplingOptions
from sampling.engines.pump import Core, InProcessEngine
from tests.helpers.engines import CodePoints, complete_all


class Steps(Core):
    """Completes calls in as many steps as their seed says, three of them at the same time; fails at a step."""

    tokenizer, limit = CodePoints(), 100

    def __init__(self, fail_at=None):
        self.waiting, self.running, self.fail_at, self.number, self.arrived = [], {}, fail_at, 0, []

    @property
    def busy(self):
        return bool(self.waiting or self.running)

    def submit(self, call):
        self.waiting.append(call)

    def drop(self, calls):
        self.waiting = [c for c in self.waiting if c not in calls]
        self.running = {c: left for c, left in self.running.items() if c not in calls}

    def step(self):
        self.number += 1
        if self.number == self.fail_at:
            raise RuntimeError("out of memory")
        while self.waiting and len(self.running) < 3:
            self.running[self.waiting.pop(0)] = 0
        self.arrived.append(len(self.running))
        self.running = {c: left + 1 for c, left in self.running.items()}
        done = [c for c, steps in self.running.items() if steps >= c.request.seed]
        for c in done:
            del self.running[c]
        return [(c, [Completion([c.request.seed], c.request.key, "stop")] * c.request.n) for c in done]


class Stepping(InProcessEngine):
    model, tokenizer = "stepping", CodePoints()

    def __init__(self, core, in_thread=True, error=None):
        super().__init__(in_thread=in_thread)
        self.core, self.error, self.loaded = core, error, 0

    def identity(self):
        return {"engine": "stepping"}

    def _load(self):
        self.loaded += 1
        if self.error:
            raise self.error
        return self.core


def asked(*seeds):
    return [Request(str(i), [5], 1, seed) for i, seed in enumerate(seeds)]


@pytest.mark.parametrize("in_thread", [True, False])
def test_a_long_call_holds_nobody_up(in_thread):
    """Three at a time: one of 40 steps, and twenty of two steps that go through the other two places meanwhile."""
    engine = Stepping(Steps(), in_thread)
    found = complete_all(engine, asked(40, *[2] * 20), SamplingOptions())
    assert [*found][-1] == "0"
    assert len(found) == 21
    assert engine.core.arrived[:20] == [3] * 20, "the places are filled before each step"
    assert engine.core.number == 40
    assert engine.loaded == 1


@pytest.mark.parametrize("in_thread", [True, False])
@pytest.mark.parametrize("engine", ["fails", "does not load"])
def test_an_error_of_the_engine_reaches_every_call(engine, in_thread):
    """Of those that run, that wait, and that come later; after closing it is tried again."""
    error = RuntimeError("no such model") if engine != "fails" else None
    engine = Stepping(Steps(fail_at=3), in_thread, error)

    async def main():
        results = await asyncio.gather(
            *(engine.complete(r, SamplingOptions()) for r in asked(*[9] * 8)), return_exceptions=True
        )
        assert [str(r) for r in results] == [str(error or "out of memory")] * 8
        with pytest.raises(RuntimeError, match=str(error or "out of memory")):
            await engine.complete(asked(1)[0], SamplingOptions())
        await engine.aclose()

    asyncio.run(asyncio.wait_for(main(), 20))
    engine.core, engine.error = Steps(), None
    assert len(complete_all(engine, asked(1, 2), SamplingOptions())) == 2


@pytest.mark.parametrize("in_thread", [True, False])
def test_cancelled_calls_leave_the_core(in_thread):
    engine = Stepping(Steps(), in_thread)

    async def main():
        calls = [asyncio.ensure_future(engine.complete(r, SamplingOptions())) for r in asked(10**9, 10**9, 5, 10**9)]
        await calls[2]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await engine.complete(asked(3)[0], SamplingOptions())
        assert not engine.core.busy
        calls = [asyncio.ensure_future(engine.complete(r, SamplingOptions())) for r in asked(10**9, 10**9)]
        await asyncio.sleep(0.01)
        await engine.aclose()
        assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*calls, return_exceptions=True))
        assert not engine.core.busy

    asyncio.run(asyncio.wait_for(main(), 20))
    assert engine.loaded == 1


def test_the_event_loop_goes_on_while_a_step_runs():
    """The first step ends when the loop has gone round twenty times."""

    class Slow(Steps):
        def step(self):
            assert turned.wait(20)
            return super().step()

    async def main():
        call = asyncio.ensure_future(engine.complete(asked(2)[0], SamplingOptions()))
        turns = 0
        while not call.done():
            await asyncio.sleep(0.001)
            turns += 1
            if turns == 20:
                turned.set()
        await engine.aclose()
        return turns

    turned, engine = threading.Event(), Stepping(Slow())
    assert asyncio.run(main()) >= 20
