"""The limit by the clock, which stopped workers need, decides no verdict: the pair is compared again."""

import concurrent.futures
import signal

import pytest

from stepverify.answers import Grader

PAIR = ("x+1", "1+x")


def out_of_cpu_time():
    error = RuntimeError("the worker ended")
    error.exitcode = -signal.SIGPROF
    return error


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([out_of_cpu_time()], None),
        ([concurrent.futures.TimeoutError(), [True]], True),
        ([concurrent.futures.TimeoutError(), concurrent.futures.TimeoutError(), [True]], True),
        ([concurrent.futures.TimeoutError()] * 3, None),
        ([concurrent.futures.TimeoutError(), out_of_cpu_time()], None),
    ],
)
def test_a_worker_that_stands_still_is_replaced_twice(monkeypatch, ends, verdict):
    """``ends`` are those of the tasks with the pair, one after the other."""
    left = list(ends)
    grader = Grader(num_workers=1)
    monkeypatch.setattr(grader._pool, "_run", lambda operation, chunks: [left.pop(0) for _ in chunks])
    assert grader._compare([PAIR]) == {PAIR: verdict}
    assert left == []
    assert grader.num_timeouts == (verdict is None)
