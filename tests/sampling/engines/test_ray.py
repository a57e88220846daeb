"""Replicas in Ray actors: the records of one engine, whatever dies."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

ray = pytest.importorskip("ray")

from sampling.engines import RayEngine, Request, SamplingOptions  # noqa: E402
from sampling.runtime.replicas import Lethal  # noqa: E402
from sampling.runtime.scheduler import run_all, together  # noqa: E402
from sampling.scorers import RayScorer  # noqa: E402
from sampling.stages.generate import generate  # noqa: E402
from stepverify.jsonl import read_records  # noqa: E402
from stepverify.records import InputError, Problem, Solution  # noqa: E402
from tests.helpers.replicas import SMALL, Lengths, Noted, asked_of, notes, plain  # noqa: E402
from tests.helpers.searches import problems  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]

OPTIONS = SamplingOptions()


def test_two_replicas_make_the_records_of_one_engine(tmp_path, capsys):
    """A stage over both: equal solutions and configuration, and both have sampled; usage is that of both together."""
    (tmp_path / "notes").mkdir()
    for name in ("one", "two"):
        engine = Noted(tmp_path / "notes" if name == "two" else tmp_path, 0.3 if name == "two" else 0)
        if name == "two":
            engine = RayEngine(engine, replicas=2, resources=SMALL)
            assert engine.capacity == 16
        generate(engine, problems(30), tmp_path / name, num_samples=2)
    assert "2 replicas" in capsys.readouterr().err
    one, two = ({s.id: s for s in read_records(tmp_path / name, Solution)} for name in ("one", "two"))
    assert one == two
    assert len(two) == 60
    asked = [len(asked) for asked in notes(tmp_path / "notes").values()]
    assert sum(asked) == 30
    assert len(asked) == 2
    assert (engine.usage.prompt_tokens, engine.usage.cached_tokens) == (300, 120)
    assert engine.identity() == Noted(tmp_path).identity()


def test_what_is_killed_is_asked_again_and_nothing_else(tmp_path):
    """Two replicas of eight places, one of which is killed six times while both work: at most 6 × 8 are asked twice.

    Both have been asked 24 times before: requests that are killed four times in a row would count as lethal.
    """
    engine = RayEngine(Noted(tmp_path, 0.03), replicas=2, resources=SMALL)
    killed = []

    async def kill():
        while len(killed) < 6:
            await asyncio.sleep(0.05)
            running = [pid for pid, asked in notes(tmp_path).items() if pid not in killed and len(asked) >= 24]
            if len(running) == 2:
                killed.append(running[len(killed) % 2])
                os.kill(killed[-1], signal.SIGKILL)

    found = {}

    def numbers():
        """As many as there are until the last kill, and fifty more."""
        number = 0
        while len(killed) < 6:
            yield (number := number + 1)
        yield from range(number + 1, number + 51)

    async def one(i):
        found[i] = await engine.complete(Request(f"{i}", [i] * 9, 1, i), OPTIONS)

    async def every():
        await together([kill(), run_all(numbers(), one, max_in_work=16)])
        alive = engine.status()
        await engine.aclose()
        return alive

    assert asyncio.run(every()).endswith("(6 died)")  # the last one may not be replaced yet
    assert found == {i: plain(i, 1) for i in range(1, len(found) + 1)}
    times = Counter(key for asked in notes(tmp_path).values() for key in asked)
    assert set(times) == {f"{i}" for i in found}
    assert sum(times.values()) - len(found) <= 6 * 8


def test_a_lethal_request_is_named_and_the_others_are_answered(tmp_path):
    """It ends four replicas, the last two alone; by option it is left out instead."""
    requests = [Request(f"{i}", [i] * 9, 1, i) for i in range(20)]
    requests.insert(5, Request("lethal", [7] * 9, 2, 0))
    for failed in ("error", "skip"):
        folder = tmp_path / failed
        folder.mkdir()
        found, errors = asked_of(RayEngine(Noted(folder, 0.01), 2, SMALL, failed=failed), requests)
        assert {key: value for key, value in found.items() if key != "lethal"} == {
            f"{i}": plain(i, 1) for i in range(20)
        }
        died = [asked for asked in notes(folder).values() if "lethal" in asked]
        assert len(died) == 4
        assert sum(asked[-1] == "lethal" for asked in died) >= 2, "the last two were given nothing else meanwhile"
        if failed == "error":
            (error,) = errors.values()
            assert isinstance(error, Lethal)
            assert str(error) == (
                "lethal: 4 replicas of Noted of noted died while they worked on it, the last two on it alone"
            )
        else:
            assert [c.finish for c in found["lethal"]] == ["refused", "refused"]


def test_an_error_of_the_engine_is_raised_as_it_is(tmp_path):
    found, errors = asked_of(
        RayEngine(Noted(tmp_path), 1, SMALL), [Request("wrong", [1], 1, 0), Request("a", [1], 1, 0)]
    )
    assert [*found] == ["a"]
    assert str(errors["wrong"]) == "wrong: the prompt is too long"
    assert type(errors["wrong"]) is InputError
    assert len(notes(tmp_path)) == 1


def test_a_cancelled_call_is_cancelled_in_its_replica(tmp_path):
    engine = RayEngine(Noted(tmp_path), 1, SMALL)

    async def main():
        task = asyncio.create_task(engine.complete(Request("endless", [1], 8, 0), OPTIONS))
        while not (said := notes(tmp_path)):
            await asyncio.sleep(0.05)
        task.cancel()
        while "cancelled" not in next(iter(said.values())):
            said = notes(tmp_path)
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task
        (again,) = await engine.complete(Request("a", [1], 1, 3), OPTIONS)  # its place is free
        await engine.aclose()
        return again

    assert [asyncio.run(main())] == plain(3, 1)


def test_a_scorer_in_replicas_gives_its_values_and_keeps_problems_together(tmp_path):
    """Forty problems, five calls each: every call of a problem goes to one replica while none is ahead."""
    alone, together_ = Lengths(tmp_path), RayScorer(Lengths(tmp_path / "notes"), 2, SMALL)
    (tmp_path / "notes").mkdir()
    given = [Problem(id=f"p/{i}", problem="x" * i, answer="1") for i in range(40)]
    solutions = [Solution.of(p, k, ["a" * (k + 1), "b"], step_separator="\n") for p in given for k in range(5)]

    async def every():
        one = [await alone.score([s]) for s in solutions]
        found = {}

        async def problem(i):
            for k in range(5):
                found[5 * i + k] = await together_.score([solutions[5 * i + k]])

        await run_all(range(40), problem, max_in_work=together_.concurrency)
        assert await together_.score([]) == []
        await together_.aclose()
        return one, [found[i] for i in range(200)]

    one, two = asyncio.run(every())
    assert one == two
    assert together_.usage.prompt_tokens == 200
    read = [set(asked) for asked in notes(tmp_path / "notes").values()]
    assert len(read) == 2
    assert all(read), "both have read some"
    assert together_.identity() == alone.identity()
    assert together_.objective == "process"


DRIVER = """
import sys
from pathlib import Path
from sampling.engines import RayEngine
from sampling.stages.generate import generate
from tests.helpers.replicas import Noted
from tests.helpers.searches import problems

folder = Path(sys.argv[1])
engine = RayEngine(Noted(folder / "notes", 0.05), 2, {"num_cpus": 0.1})
generate(engine, problems(400), folder / "out", num_samples=1)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_killed_driver_leaves_no_actor_and_goes_on(root, tmp_path, number, code):
    """Killed after the first records; its actors end, and the same command makes the records of one engine."""
    (tmp_path / "notes").mkdir()
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": str(root)}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while sum(map(len, notes(tmp_path / "notes").values())) < 60:
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    actors = [*notes(tmp_path / "notes")]
    first.send_signal(number)
    assert first.wait(60) == code
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}") for pid in actors):
        assert time.monotonic() < deadline, "actors outlived the driver"
        time.sleep(0.1)
    kept = sum(file.read_text().count("\n") for file in (tmp_path / "out").glob("part-*.jsonl"))
    generate(Noted(tmp_path / "notes"), problems(400), tmp_path / "out", num_samples=1)
    generate(Noted(tmp_path), problems(400), tmp_path / "alone", num_samples=1)
    again, alone = ({s.id: s for s in read_records(tmp_path / name, Solution)} for name in ("out", "alone"))
    assert again == alone
    mine = Counter(notes(tmp_path / "notes")[os.getpid()])
    assert 400 - kept - 1 <= len(mine) <= 400 - kept  # a torn last line is sampled again
    assert kept > 0
