"""The pool of worker processes: order, hostile answers, deaths, classes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stepverify.answers import Grader, equivalent
from stepverify.records import InputError

SLOW = r"\sum_{k=1}^{10^{12}} \frac{1}{k^2+1}"  # SymPy would add it up


@pytest.fixture(scope="module")
def grader():
    with Grader(num_workers=2, time_limit=20) as grader:
        yield grader


def test_works_in_any_thread():
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(equivalent("x + 1", "1 + x")))
    thread.start()
    thread.join()
    assert verdicts == [True]


def test_verdicts_come_in_order(grader):
    pairs = [("7", "7"), ("x+1", "1+x"), ("7", None), ("x", "y"), ("7", ""), (None, "7"), ("x+1", "1+x"), ("2a", "a+a")]
    assert grader.grade(iter(pairs)) == [True, True, False, False, False, False, True, True]
    assert grader.grade([]) == []


def test_a_hostile_answer_costs_its_own_verdict_alone():
    with Grader(num_workers=2, time_limit=1.0) as grader:
        grader.grade([("x+1", "1+x")])
        pairs = [(f"x+{n}", f"{n}+x") for n in range(6)]
        verdicts = grader.grade([*pairs[:3], ("7", SLOW), ("5", "9" * 100_000), *pairs[3:]])
        assert verdicts == [True, True, True, None, False, True, True, True]
        assert grader.num_timeouts == 1
        assert grader.classes(["x", SLOW, "x + 0"]) == [0, 1, 0]  # a timeout counts as not equal
        assert grader.num_timeouts > 1


def test_survives_the_death_of_its_workers(grader):
    assert grader.grade([("y+1", "1+y")]) == [True]
    workers = [child for child in multiprocessing.active_children() if child.name == "pebble_pool_worker"]
    assert workers
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    assert grader.grade([("y+2", "2+y"), ("y", "z")]) == [True, False]
    assert grader.num_timeouts == 0


def test_classes(grader):
    answers = ["1/2", None, "x+1", "0.5", "1+x", "", r"\frac12", "y", "  ", "x+1"]
    assert grader.classes(answers) == [0, None, 1, 0, 1, None, 0, 2, None, 1]
    assert grader.classes([]) == []
    assert grader.classes([None, ""]) == [None, None]
    # The class is that of the first representative: 20% equals 20 and 1/5, which differ.
    assert grader.classes(["20", "1/5", "20%"]) == [0, 1, 0]
    assert grader.classes(["20%", "1/5", "20"]) == [0, 0, 0]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the arguments of processes from /proc")
def test_workers_fork_from_a_server_that_has_loaded_what_they_need():
    """Math-Verify is loaded once, and by no server of the program; texts alone do not load it."""
    for algebra, use in ((False, lambda g: g.extract(["so\n#### 5"])), (True, lambda g: g.grade([("x+1", "1+x")]))):
        before = {child.pid for child in multiprocessing.active_children()}
        with pytest.MonkeyPatch.context() as patch, Grader(num_workers=1) as grader:
            patch.setattr("stepverify.answers.processes.has_algebra", lambda: False)
            use(grader)
            (worker,) = (child.pid for child in multiprocessing.active_children() if child.pid not in before)
            server = Path(f"/proc/{worker}/stat").read_text().rpartition(") ")[2].split()[1]
            arguments = Path(f"/proc/{server}/cmdline").read_text()
            assert "'pebble', 'stepverify.answers.pool'" in arguments
            assert ("stepverify.answers.warm_up" in arguments) is algebra


def test_starts_no_process_for_plain_answers():
    before = set(multiprocessing.active_children())
    with Grader() as grader:
        assert grader.grade([("1,000", "1000"), ("7", "8")]) == [True, False]
        assert grader.classes(["7", "7.0", "8"]) == [0, 0, 1]
        assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize("values", [{"num_workers": 0}, {"time_limit": 0.0}])
def test_bad_settings(values):
    with pytest.raises(InputError, match=f"{next(iter(values))}: expected"):
        Grader(**values)


PROGRAM = """
import sys
from stepverify.answers import Grader
loaded = {"torch", "lightning", "math_verify", "sympy"} & set(sys.modules)
assert not loaded, loaded
print("start", flush=True)
with Grader(num_workers=1, time_limit=60) as grader:
    print({})
"""


@pytest.mark.parametrize(
    ("how", "call", "printed"),
    [
        ("script", 'grader.grade([("x+1", "1+x"), ("x", "y")])', "[True, False]"),
        # Workers that read texts start in the same way, without Math-Verify, which takes two seconds to load.
        ("stdin", r'[found.answer for found in grader.extract(["so\n#### 5"])]', "['5']"),
    ],
    ids=["script", "stdin"],
)
def test_works_without_a_main_guard_and_loads_nothing_heavy(how, call, printed, tmp_path):
    script, program = tmp_path / "program.py", PROGRAM.replace("{}", call)
    script.write_text(program)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    arguments = [sys.executable, str(script) if how == "script" else "-"]
    run = subprocess.run(arguments, input=program, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == f"start\n{printed}\n", run.stderr


@pytest.mark.parametrize("nested", [r"\left(" * 400 + "1" + r"\right)" * 400, "{" * 400 + "x" + "}" * 400, "(" * 3000])
def test_what_is_nested_too_deeply_does_not_end_this_process(grader, nested):
    assert grader.grade([("7", nested), (nested, "7"), ("7", "7")]) in ([False, False, True], [None, None, True])
    assert grader.classes([nested, "7", nested]) == [0, 1, 0]


def test_the_limit_is_of_cpu_time():
    """A worker that is stopped for longer than its limit goes on; by the clock it would have been given up."""
    before = {child.pid for child in multiprocessing.active_children()}
    with Grader(num_workers=1, time_limit=1.0) as grader:
        grader.grade([("x+1", "1+x")])
        (worker,) = (child for child in multiprocessing.active_children() if child.pid not in before)
        os.kill(worker.pid, signal.SIGSTOP)
        threading.Timer(2.0, os.kill, (worker.pid, signal.SIGCONT)).start()
        assert grader.grade([("x+2", "2+x")]) == [True]
        assert grader.num_timeouts == 0


ENDLESS = f"""
import multiprocessing
from stepverify.answers import Grader
with Grader(num_workers=1, time_limit=600) as grader:
    grader.grade([("x+1", "1+x")])
    print(*(c.pid for c in multiprocessing.active_children() if c.name == "pebble_pool_worker"), flush=True)
    grader.grade([("7", {SLOW!r})])
"""


def ticks(pid):
    """CPU time of a process, in hundredths of a second; None after its end."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except FileNotFoundError:
        return None
    return None if state == "Z" else int(fields[10]) + int(fields[11])


def wait_until(holds):
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, "in vain"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends workers with their parent on Linux alone")
def test_workers_end_with_a_killed_parent():
    program = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    worker = int(program.stdout.readline())
    before = ticks(worker)
    wait_until(lambda: ticks(worker) > before + 20)  # it is at work: an idle one ends by itself
    program.kill()
    program.wait()
    wait_until(lambda: ticks(worker) is None)
