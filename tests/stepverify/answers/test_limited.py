"""Every text that is not short and plain is read in a worker, under its limit; what that changes: nothing but safety."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepverify.answers import Extracted, Grader, answer_key, equivalent, extract_answer, pool, worker
from stepverify.answers.extract import concluded_number, last_number
from tests.helpers import slow_texts
from tests.helpers.slow_texts import ENDLESS, WAITING

LATE = Extracted(None, timed_out=True)


@pytest.fixture(scope="module")
def grader():
    with Grader(num_workers=2, time_limit=20) as grader:
        yield grader


@pytest.fixture
def slow(monkeypatch):
    """Have new workers take for ever with texts that say so."""
    monkeypatch.setattr(worker, "extract", slow_texts.extract)
    monkeypatch.setattr("stepverify.answers.processes.has_algebra", lambda: False)  # whatever other tests have started
    for name, function in (("_SETTLE", slow_texts.settle), ("_KEY", slow_texts.key)):
        monkeypatch.setattr(pool, name, dataclasses.replace(getattr(pool, name), function=function))


# ── extraction ────────────────────────────────────────────────────────────────────────────────────

TEXTS = [
    "so\n#### 5",
    "It takes 5 days, which leaves 8.",
    "2 + 3 = 5\n5 days leave 8.",
    "",
    "  \n",
    "so\n#### 5",
    r"\boxed{\frac12}",
    "a\ud800 9",
]


@pytest.mark.parametrize(
    ("fallback", "read"),
    [("no_answer", lambda text: None), ("last_number", last_number), ("conclusion", concluded_number)],
)
def test_extraction_is_that_of_one_text(grader, fallback, read):
    expected = [Extracted(extract_answer(text) or read(text) if text.strip() else None) for text in TEXTS]
    assert grader.extract(iter(TEXTS), fallback) == expected
    assert expected[1].answer == {"no_answer": None, "last_number": "8", "conclusion": "8"}[fallback]
    assert expected[2].answer == {"no_answer": None, "last_number": "8", "conclusion": "5"}[fallback]
    assert grader.extract([]) == []


def test_a_slow_text_costs_its_own_answer_alone(slow):
    """Among 40 texts three are slow, one of them given twice: three are given up, each after one limit."""
    texts = [f"so\n#### {n}" for n in range(40)]
    for place, text in ((3, "a"), (17, "b"), (18, "c"), (30, "b")):
        texts[place] = ENDLESS + text
    with Grader(num_workers=2, time_limit=0.15) as grader:
        found = grader.extract(texts)
        assert found == [LATE if n in (3, 17, 18, 30) else Extracted(str(n)) for n in range(40)]
        assert grader.num_timeouts == 3
        assert grader.extract(["so\n#### 5"]) == [Extracted("5")]


def test_a_text_that_is_slow_by_its_length():
    """Seven megabytes take over a second; the limit is a twentieth."""
    with Grader(num_workers=1, time_limit=0.05) as grader:
        assert grader.extract(["The answer is " * 500_000, "so\n#### 5"]) == [LATE, Extracted("5")]
        assert grader.grade([("5", "The answer is " * 500_000), ("5", "#### 5")]) == [None, True]
        assert grader.num_timeouts == 2


def test_a_worker_that_is_killed_while_it_extracts_is_replaced(slow, tmp_path):
    """The text goes to another worker, and is not given up."""
    go = tmp_path / "go"
    found = []
    with Grader(num_workers=1, time_limit=20) as grader:
        thread = threading.Thread(target=lambda: found.extend(grader.extract([f"{WAITING}{go}\n#### 5", "#### 6"])))
        thread.start()
        ends = time.monotonic() + 60
        while not (pid := go.with_suffix(".pid")).exists() or not pid.read_text():
            assert time.monotonic() < ends, "no worker has begun"
            time.sleep(0.01)
        go.touch()
        os.kill(int(pid.read_text()), signal.SIGKILL)
        thread.join()
        assert (found, grader.num_timeouts) == ([Extracted("5"), Extracted("6")], 0)


FORKED = """
import os
from stepverify.answers import Grader
with Grader(num_workers=1) as grader:
    grader.extract(["so\\n#### 5"])
child = os.fork()
with Grader(num_workers=1) as grader:
    print(grader.extract(["so\\n#### 6"])[0].answer, flush=True)
print(os.waitpid(child, 0)[1] if child else "child")
"""


def test_a_fork_of_a_program_that_has_graded_grades_too():
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=60)
    assert sorted(run.stdout.split()) == ["0", "6", "6", "child"], run.stderr


@pytest.mark.parametrize("text", [r"The answer is **`\( $ $ \)`**.", r"\boxed{ }", "#### $ $", "Answer: ** **"])
def test_an_answer_is_never_blank(text):
    """So that a text equals itself, without being read."""
    answer = extract_answer(text)
    assert answer is None or answer.strip()
    assert equivalent(text, text)


# ── comparison ────────────────────────────────────────────────────────────────────────────────────


def test_a_slow_comparison_costs_its_own_verdict_alone(slow):
    """The pairs need no computer algebra, so no worker loads it."""
    pairs = [(f"({n}, 1)", f"({n}.0, 1)") for n in range(12)]
    with Grader(num_workers=2, time_limit=0.15) as grader:
        verdicts = grader.grade([*pairs, (f"({ENDLESS}, 1)", "(1, 2)"), ("(1, 2)", "(2, 1)")])
        assert verdicts == [True] * 12 + [None, False]
        assert grader.num_timeouts == 1
        assert not grader._pool.has_algebra


def test_a_slow_key_is_no_key(slow):
    """It costs a limit, and so does its comparison with the other class; its two copies are one class all the same."""
    answers = [r"\frac12", f"{ENDLESS}!", "0.5", f"{ENDLESS}!", r"\frac{1}{2}", None]
    with Grader(num_workers=2, time_limit=0.15) as grader:
        assert grader.classes(answers) == [0, 1, 0, 1, 0, None]
        assert grader.num_timeouts == 2


def test_memory_and_stack_of_a_worker_are_those_of_one_text(monkeypatch):
    """Where they end, a comparison is False, and another text is given up."""

    def exhausted(*_):
        raise RecursionError

    monkeypatch.setattr("stepverify.answers.compare.settle", exhausted)
    monkeypatch.setattr("stepverify.answers.compare.equivalent", exhausted)
    assert (worker.settle(("{1}", "1")), worker.equivalent(("{1}", "1"))) == (False, False)
    assert worker.work(lambda item: item or exhausted(), [1, 0, 2], limit=9.0) == [1, worker.Failure.GIVEN_UP, 2]


# ── what is plain stays in this process ───────────────────────────────────────────────────────────

_PIECES = [
    "1",
    "7",
    "20",
    "x",
    "y",
    "a",
    "-",
    "+",
    "/",
    "$",
    ".",
    ",",
    " ",
    "%",
    "1,000",
    "0.5",
    " and ",
    "or ",
    "one ",
    "forty",
    "half",
    " dollars",
    "cm",
    "1/2",
    "2/4",
    "1e9",
    "inf",
    "A",
    "(",
    ")",
    r"\frac12",
    "^2",
    "{",
    "}",
    "\\",
    "=",
    "#### ",
]
texts = st.lists(st.sampled_from(_PIECES), max_size=6).map("".join)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=5, max_size=8))
def test_verdicts_are_the_same_wherever_a_pair_is_read(grader, pairs):
    """In this process if it is plain, or all of them in workers."""
    pairs += [(a, a) for a, _ in pairs]
    verdicts, classes = grader.grade(pairs), grader.classes([a for pair in pairs for a in pair])
    plain, pool._PLAIN = pool._PLAIN, re.compile(r"(?!)")
    try:
        assert grader.grade(pairs) == verdicts
        assert grader.classes([a for pair in pairs for a in pair]) == classes
        assert grader._keys(a for a, _ in pairs) == {a: answer_key(a) for a, _ in pairs}
    finally:
        pool._PLAIN = plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [("1,000.50", True), ("-3/4 cm", True), ("$20 + 5%", True), ("", True), ("x" * 40, True), ("x" * 41, False), ("x\n", False),
     ("(1)", False), ("2^9", False), ("#1", False), ("²", False), ("٣", False), ("a_b", False), ("1\\2", False), ("9!", False)],
)  # fmt: skip
def test_what_is_plain(text, plain):
    assert bool(pool._PLAIN.fullmatch(text)) is plain
