"""Scorers in processes of their own: batches, order, failures, ends; and two of a real verifier equal to one."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from msgspec.structs import replace

from sampling.__main__ import main
from sampling.scorers import ExportedVerifier
from stepverify.jsonl import read_records, write_records
from stepverify.records import InputError, Solution
from tests.helpers.exports import EMPTY, LONG, SOLUTIONS, many
from tests.helpers.processes import ROOT
from tests.sampling.scorers.fakes import FakeScorer, values_of

GIVEN = many(60, 10)  # 600 solutions: chunks of 130 and one of 80


async def gathered(scorer, groups, seconds=300):
    async with scorer:
        return await asyncio.wait_for(asyncio.gather(*map(scorer.score, groups)), seconds)


def batches(folder):
    """Sizes of what each process read together."""
    return [[int(n) for n in file.read_text().split()] for file in folder.iterdir()]


@pytest.mark.parametrize("processes", [0, 2])
def test_calls_that_wait_are_read_together_and_answered_in_order(processes, tmp_path):
    """A hundred calls of three prefixes: whole calls up to 128 solutions, so 129 and again, then what is left."""
    groups = [GIVEN[i : i + 3] for i in range(0, 300, 3)] + [[], [EMPTY]]
    found = asyncio.run(gathered(FakeScorer(str(tmp_path), processes, seconds=0.001), groups))
    assert found == [[values_of(s) for s in group] for group in groups]
    sizes = batches(tmp_path)
    assert sorted(n for one in sizes for n in one) == [43, 129, 129]
    assert len(sizes) == max(1, processes)
    assert multiprocessing.active_children() == []


def test_a_large_call_is_a_batch_by_itself(tmp_path):
    """However many wait: what is packed together does not depend on the number of devices. The second process starts for
    the second call alone."""
    calls = [GIVEN[:130], GIVEN[130:260], GIVEN[260:263], GIVEN[263:400]]
    found = asyncio.run(gathered(FakeScorer(str(tmp_path), 3, seconds=0.001), calls[:2]))
    assert found == [[values_of(s) for s in call] for call in calls[:2]]
    assert sorted(batches(tmp_path)) == [[130], [130]]


@pytest.mark.parametrize(
    ("ends_at", "kind", "message"),
    [
        (
            "p/3#4",
            InputError,
            r"^fake \d: its process was ended by SIGKILL \(memory may be short\); scored solutions are kept",
        ),
        ("input", InputError, "^an incorrect file$"),
        ("error", RuntimeError, "(?s)fake .: its process failed:.*ZeroDivisionError: nobody expected this"),
    ],
)
def test_a_failure_ends_every_call_that_waits(ends_at, kind, message, tmp_path):
    """And every later one; nothing hangs, no process is left."""
    bad = Solution(id=ends_at, problem_id="p/3", problem="a", steps=["1"])

    async def run():
        scorer = FakeScorer(str(tmp_path), 1, ends_at=ends_at)
        async with scorer:
            calls = [scorer.score(group) for group in ([*GIVEN[:20], bad], GIVEN[100:230], GIVEN[300:303])]
            ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
            with pytest.raises(kind):
                await scorer.score(GIVEN[:1])
        return ended

    for error in asyncio.run(run()):
        with pytest.raises(kind, match=message):
            raise error
    assert multiprocessing.active_children() == []


def test_a_call_that_is_given_up_is_not_read(tmp_path):
    async def run():
        async with FakeScorer(str(tmp_path), 0, seconds=0.02) as scorer:
            first = asyncio.create_task(scorer.score(GIVEN[:5]))
            await asyncio.sleep(0.03)
            second, third = (asyncio.create_task(scorer.score(part)) for part in (GIVEN[5:7], GIVEN[7:10]))
            await asyncio.sleep(0)
            second.cancel()
            return await first, await third

    assert asyncio.run(run()) == ([values_of(s) for s in GIVEN[:5]], [values_of(s) for s in GIVEN[7:10]])
    assert batches(tmp_path) == [[5, 3]]


# ── the stage ────────────────────────────────────────────────────────────────────────────────────


def arguments(tmp_path, **options):
    (tmp_path / "pids").mkdir(exist_ok=True)
    init = "".join(f", {key}: {value}" for key, value in options.items())
    verifier = (
        f"{{class_path: tests.sampling.scorers.fakes.FakeScorer, init_args: {{folder: {tmp_path / 'pids'}{init}}}}}"
    )
    paths = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "o")]
    return ["score", *paths, "--verifiers", f"{{fake: {verifier}}}"]


def started(tmp_path, **options):
    """The stage in a process group of its own, when both workers score."""
    run = subprocess.Popen(
        [sys.executable, "-m", "sampling", *arguments(tmp_path, **options)], cwd=ROOT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 60
    while len(list((tmp_path / "pids").iterdir())) < 2:
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    return run


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_stage(how, tmp_path):
    """Ctrl-C reaches the whole group; a SIGTERM or SIGKILL the stage alone."""
    write_records(tmp_path / "in.jsonl", GIVEN)
    run = started(tmp_path, seconds=0.05)
    pids = [int(file.name) for file in (tmp_path / "pids").iterdir()]
    (os.killpg if how == signal.SIGINT else os.kill)(run.pid, how)
    _, said = run.communicate(timeout=30)
    assert run.returncode != 0
    assert "SpawnProcess" not in said, "a worker said something of its own"
    until = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(is_alive, pids))


def test_a_dead_worker_ends_the_stage_with_one_line_and_it_goes_on(tmp_path, capsys):
    """The worker that reads solution 300 is killed: nothing after its chunk is written; the next run scores the rest."""
    write_records(tmp_path / "in.jsonl", [*GIVEN, replace(EMPTY, id="e", problem_id="e")])
    with pytest.raises(SystemExit) as stopped:
        main(arguments(tmp_path, ends_at=GIVEN[300].id))
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sampling score:")]
    assert (
        "its process was ended by SIGKILL (memory may be short); scored solutions are kept; run the stage again" in line
    )
    shards = list((tmp_path / "o").glob("part-*.jsonl"))
    assert sum(len(shard.read_text().splitlines()) for shard in shards) in (0, 130, 260)
    main(arguments(tmp_path, ends_at=GIVEN[300].id))
    found = list(read_records(tmp_path / "o", Solution))
    assert [s.id for s in found] == [*(s.id for s in GIVEN), "e"]
    assert [s.scores["fake"] for s in found] == [*map(values_of, GIVEN), []]
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_two_processes_of_a_verifier_equal_one(outcome, process):
    """To the bit: each reads whole calls. Killed, one of them is named; closed, the scorer may be used again."""
    calls = [[*GIVEN[:130], LONG], GIVEN[130:260], [*SOLUTIONS, EMPTY]]

    async def run():
        two = ExportedVerifier(process, device="cpu", devices=2)
        found = await gathered(two, calls)
        assert found == await gathered(ExportedVerifier(process, device="cpu"), calls)
        assert multiprocessing.active_children() == []
        async with two:
            await two.score(SOLUTIONS)
            (child,) = multiprocessing.active_children()
            os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(InputError, match=r"on cpu \(1 of 2\): its process was ended by SIGKILL"):
                await two.score(SOLUTIONS)

    asyncio.run(run())


def test_devices_that_are_not_there(outcome):
    with pytest.raises(
        InputError, match=r"devices: 2, but device names one, cuda:1|device: cuda:1: PyTorch finds no GPU"
    ):
        asyncio.run(gathered(ExportedVerifier(outcome, device="cuda:1", devices=2), [SOLUTIONS]))
