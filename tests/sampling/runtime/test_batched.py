"""Small calls of many coroutines that go to a thread together."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampling.runtime import batched
from sampling.runtime.batched import Batched


class Held:
    """Doubles numbers; each call waits until it is let go, and notes what it was given."""

    def __init__(self):
        self.given, self.go = [], threading.Semaphore(0)

    def __call__(self, items):
        self.given.append(items)
        assert self.go.acquire(timeout=30)
        if "bad" in items:
            raise KeyboardInterrupt("stop")
        return [2 * item for item in items]


def run(work):
    with ThreadPoolExecutor(1) as pool:
        call = Held()
        asyncio.run(work(call, Batched(call, pool)))
    return call.given


async def arrived(call, number):
    while len(call.given) < number:
        await asyncio.sleep(0.001)


def test_what_waits_while_the_thread_works_goes_in_one_call():
    """The first list is alone; three more wait for it, and share a call; an empty one has no result."""

    async def work(call, double):
        first = asyncio.create_task(double(iter([1])))
        await arrived(call, 1)
        others = [asyncio.create_task(double(items)) for items in ([2, 3], [], [4])]
        await asyncio.sleep(0)
        call.go.release(2)
        assert [await task for task in (first, *others)] == [[2], [4, 6], [], [8]]
        call.go.release()
        assert await double([5]) == [10]  # after a rest

    assert run(work) == [[1], [2, 3, 4], [5]]


def test_a_call_is_full_at_some_number_of_items(monkeypatch):
    monkeypatch.setattr(batched, "MAX_ITEMS", 3)

    async def work(call, double):
        call.go.release(9)
        tasks = [asyncio.create_task(double([n, n])) for n in range(5)]
        assert [await task for task in tasks] == [[2 * n, 2 * n] for n in range(5)]

    assert run(work) == [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4]]


def test_an_error_is_that_of_its_call_alone():
    """Even an interruption of the thread is raised where the results are awaited, and the next call goes on."""

    async def work(call, double):
        first = asyncio.create_task(double([1]))
        await arrived(call, 1)
        failing = [asyncio.create_task(caught(double, items)) for items in ([2], ["bad"])]
        await asyncio.sleep(0)
        call.go.release(3)
        assert await first == [2]
        assert [await task for task in failing] == ["stop", "stop"]
        assert await double([3]) == [6]

    assert run(work) == [[1], [2, "bad"], [3]]


async def caught(double, items):
    with pytest.raises(KeyboardInterrupt) as error:
        await double(items)
    return str(error.value)


def test_a_list_that_nobody_waits_for_is_left_out():
    """One is cancelled before its call, which leaves it out, and one during it, which changes nothing for the others."""

    async def work(call, double):
        tasks = [asyncio.create_task(double([n])) for n in range(2)]
        await arrived(call, 1)
        tasks += [asyncio.create_task(double([n])) for n in range(2, 4)]
        await asyncio.sleep(0)
        for task in (tasks[0], tasks[2]):
            task.cancel()
        await asyncio.sleep(0)
        call.go.release(2)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(f, asyncio.CancelledError) or f for f in found] == [True, [2], True, [6]]

    assert run(work) == [[0, 1], [3]]
