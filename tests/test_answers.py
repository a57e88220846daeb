import gzip
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.answers import Grader, answer_key, equivalent, extract_answer
from stepverify.answers.compare import settle
from stepverify.records import InputError

DATA = os.environ.get("STEPVERIFY_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="STEPVERIFY_DATA does not name the folder of real data")
NEVER_RETURNS = "10^{10^{10^{10}}}"  # SymPy would write the number out


@pytest.fixture(scope="module")
def grader():
    with Grader(num_workers=2, time_limit=20) as grader:
        yield grader


# ── extraction ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("16 - 3 - 4 = 9\n9 * 2 = $18\n#### 18", "18"),
        ("#### 1,000", "1,000"),
        ("#### $18", "18"),
        ("#### 18 dollars", "18 dollars"),
        ("A: 3\nSo it takes 3 bolts\nA: 72", "72"),
        ("A: 72\nthen more text", None),  # OpenAI's form counts on the last line alone
        ("The answer is 72.", "72"),
        ("The answer is: 3.14. I hope it is correct.", "3.14"),
        ("the final answer is $72$", "72"),
        ("The answer is $18.", "18"),
        ("So the answer is $5$ and $6$.", "$5$ and $6$"),
        ("The answer to the second question is 7, because 3 + 4 = 7.", "7"),
        ("The answer is\n$$\n\\frac{1}{2}\n$$", r"\frac{1}{2}"),
        ("**Answer:** 12", "12"),
        ("So, the answer is **3 trucks**.", "3 trucks"),
        ("**The answer is 12**", "12"),
        ("The answer is 2**3", "2**3"),
        ("The answer is Evelyn.", "Evelyn"),
        ("The answer is not 5.", None),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"$\boxed 7$ apples", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1} or rather \boxed{2}.", "2"),
        (r"\boxed{1} and then \boxed{2", "1"),  # cut off
        (r"\boxed{2", None),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\text{The answer is } 5}", r"\text{The answer is } 5"),
        (r"\boxed{1} The answer is 2.", "2"),  # the last one wins, whatever its form
        ("The answer is 2.\n#### 3", "3"),
        (r"The answer is $\boxed{4}$.", "4"),
        (r"\boxed{44}. So our answer is correct.", "44"),
        ("So it is 6.\n\n# Answer\n\n6", "6"),  # PRM800K's last step, as it is and on one line
        ("So the answer is 5.\n# Answer\n\n\\[(\\frac{1}{2}, \\infty)\\]\n\nQuestion: 7", r"(\frac{1}{2}, \infty)"),
        (r"Right. # Answer \frac{1}{2}", r"\frac{1}{2}"),
        ("## Final Answer: even", "even"),
        ("# Answer\n\nThe answer is 5.", "5"),
        ("# Answers\n5", None),
        ("# Answer to the question\n5", None),
        ("# Answer", None),
        ("There are 5 apples and 3 = 3", None),
        ("####", None),
        ("", None),
    ],
)  # fmt: skip
def test_extracts_the_last_statement(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [r"\boxed{" * 20_000, r"\boxed" + "{" * 50_000, "answer is " * 10_000, "\n" * 100_000, "answer" + " " * 100_000,
     "####\n" * 20_000, "# Answer\n" * 20_000, "# Answer" + "\n" * 100_000, "#" * 100_000, "# " * 50_000, f"A:{' ' * 100_000}x\ny", "answer is " + "$ " * 50_000,
     "\\boxed{" + "." * 100_000 + "}"],
)  # fmt: skip
def test_time_is_linear_in_the_length(text):
    # Quadratic time would be minutes on 100 kB; 10 s leaves room for a busy machine.
    start = time.process_time()
    extract_answer(text)
    settle(text, "5")
    assert time.process_time() - start < 10


# ── plain numbers and words ───────────────────────────────────────────────────────────────────────

EQUAL = [
    ("18", "18.0"), ("1000", "1,000"), ("1000", "1 000"), ("3110400", r"3,\!110,\!400"), ("14916", "14{,}916"),
    ("18", "$18"), ("-15", "-$15"), ("18", r"\$18.00"), ("18", "18 dollars"), ("18", r"18 \text{ cm}^2"), ("5", "5 km"),
    ("60", r"60^\circ"), ("60", r"60^{\circ}"), ("60", "60 degrees"), ("0.5", "1/2"), ("1/2", r"\frac12"),
    ("-1/2", r"\frac{-1}{2}"), ("-1/2", r"-\dfrac{1}{2}"), ("1.5", "1 1/2"), ("2.5", r"2\frac{1}{2}"), ("20", r"20\%"),
    ("1/5", "20%"), ("2000000", "2 million"), ("−3", "-3"), ("15", r"\15"), (r"\text{(C)}", "C"),
    (r"\text{Even}", "even"), ("1477", "4210_{7}"),  # 4 · 343 + 2 · 49 + 1 · 7
    ("(3,2)", "(3, 2)"), (r"\left(3, 2\right)", "(3,2)"), ("7", "$7$"), ("7", r"\boxed{7}"),
    ("1000.99", "it is 1,000.99€"),
]  # fmt: skip
UNEQUAL = [
    ("0.333", "1/3"), ("18", "81"), ("15", "-$15"), ("1 1/2", "11/2"), ("50%", "0.5%"), ("2b", "2"), ("2 pi", "2"),
    ("6 and 8", "6"), ("12_7", "12"), ("32349", "32, 349"), (r"\text{Even}", "odd"), ("3", "3:2"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "predicted"), EQUAL)
def test_equal_without_computer_algebra(gold, predicted):
    assert settle(gold, predicted) is True
    assert settle(predicted, gold) is True


@pytest.mark.parametrize(("gold", "predicted"), UNEQUAL)
def test_unequal_or_left_to_computer_algebra(gold, predicted):
    assert not settle(gold, predicted)
    assert not settle(predicted, gold)
    assert not equivalent(gold, predicted)


@pytest.mark.parametrize(("gold", "predicted"), [("5", None), ("5", ""), ("5", "  "), ("", ""), ("", "5")])
def test_nothing_equals_a_missing_answer(gold, predicted):
    assert equivalent(gold, predicted) is False


def test_huge_numbers_are_not_plain():
    assert answer_key("9" * 100) == "9" * 100
    assert answer_key("9" * 101) is None
    assert answer_key("1/0") is None
    assert answer_key("1e999999999") is None
    assert settle("9" * 100_000, "9" * 100_001) is False  # over 2,000 characters: equal to a copy only
    assert settle("9" * 100_000, "9" * 100_000) is True


@given(value=st.fractions(max_denominator=10**6), other=st.fractions(max_denominator=20))
def test_numbers_are_compared_exactly_and_symmetrically(value, other):
    one, latex = f"{value}", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert equivalent(one, latex)
    assert equivalent(latex, one)
    assert equivalent(one, f"{other}") is equivalent(f"{other}", one) is (value == other)
    assert answer_key(one) == answer_key(latex) == f"{value}"


@given(st.integers(-(10**12), 10**12), st.integers(0, 999))
def test_separators_and_currency_leave_the_value(whole, thousandths):
    text = f"{whole:,}.{thousandths:03d}"
    sign = -1 if text.startswith("-") else 1
    expected = sign * (abs(whole) + Fraction(thousandths, 1000))
    assert answer_key(text) == answer_key(text.replace(",", "")) == answer_key(rf"\${text}") == f"{expected}"


@given(st.lists(st.sampled_from([*r"0123456789.,/-+%$ \{}()x^=_", r"\frac", r"\text{", "cm", "and"])).map("".join))
def test_settling_any_text_is_symmetric_and_does_not_fail(text):
    assert settle(text, "5") is settle("5", text)
    assert settle(text, text) is bool(text.strip())


# ── computer algebra ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ("x^2-1", "(x-1)(x+1)", True), ("x", "x + 0", True), ("x", "y", False), (r"\sqrt{6}", r"\sqrt{7}", False),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", True), (r"\frac{\sqrt{3}}{2}", "0.8660254037844386", True),
        ("(0,1]", "(0, 1)", False), ("-2,-1,1", "1, -1, -2", True), ("(1,2)", "(2,1)", False), ("2", "x = 2", True),
        ("12:00", "1:00", False),
        ("7", r"\frac{28}{4}=7", True), ("0", "a + 3z = 0", False), (r"\cos x", r"\sin(90^\circ - x)", True),
        (r"8\sqrt{3} \text{ square inches}", r"8\sqrt{3}", True),
        (r"\begin{pmatrix} 1/5 \\ -3/5 \end{pmatrix}", r"\begin{pmatrix} 0.2 \\ -\frac{3}{5} \end{pmatrix}", True),
    ],
)  # fmt: skip
def test_expressions(gold, predicted, expected):
    assert equivalent(gold, predicted) is expected
    assert equivalent(predicted, gold) is expected


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [("18", "18.0"), ("1/2", r"\frac12"), ("7", "8"), ("-1/2", "1/2"), ("20", r"20\%"), ("3/4", "0.75")],
)
def test_the_fast_path_agrees_with_math_verify(gold, predicted):
    from math_verify import parse, verify

    slow = verify(parse(f"${gold}$"), parse(f"${predicted}$"))
    assert settle(gold, predicted) is slow


def test_works_in_any_thread():
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(equivalent("x + 1", "1 + x")))
    thread.start()
    thread.join()
    assert verdicts == [True]


# ── worker processes ──────────────────────────────────────────────────────────────────────────────


def test_verdicts_come_in_order(grader):
    pairs = [("7", "7"), ("x+1", "1+x"), ("7", None), ("x", "y"), ("7", ""), (None, "7"), ("x+1", "1+x"), ("2a", "a+a")]
    assert grader.grade(iter(pairs)) == [True, True, False, False, False, False, True, True]
    assert grader.grade([]) == []


def test_a_hostile_answer_costs_its_own_verdict_alone():
    with Grader(num_workers=2, time_limit=2.0) as grader:
        grader.grade([("x+1", "1+x")])
        pairs = [(f"x+{n}", f"{n}+x") for n in range(6)]
        verdicts = grader.grade([*pairs[:3], ("7", NEVER_RETURNS), ("5", "9" * 100_000), *pairs[3:]])
        assert verdicts == [True, True, True, None, False, True, True, True]
        assert grader.num_timeouts == 1
        assert grader.classes(["x", NEVER_RETURNS, "x + 0"]) == [0, 1, 0]  # a timeout counts as not equal
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
    print(grader.grade([("x+1", "1+x"), ("x", "y")]))
"""


@pytest.mark.parametrize("how", ["script", "stdin"])
def test_works_without_a_main_guard_and_loads_nothing_heavy(how, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = [sys.executable, str(script) if how == "script" else "-"]
    run = subprocess.run(arguments, input=PROGRAM, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == "start\n[True, False]\n", run.stderr


# ── real data ─────────────────────────────────────────────────────────────────────────────────────


def read(name):
    with gzip.open(Path(str(DATA)) / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@needs_data
def test_agrees_with_openai_on_its_released_solutions():
    wrong = []
    for row in read("gsm8k/example_model_solutions.jsonl.gz"):
        gold = extract_answer(row["ground_truth"])
        for name in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            solution = row[name]["solution"]
            # One of 5,276 is no plain number and stays unsettled: 10+John's age, wrong.
            if bool(settle(gold, extract_answer(solution))) != row[name]["is_correct"]:
                wrong.append(solution)
    assert wrong == []


@needs_data
def test_finds_the_answers_of_math_solutions():
    rows = read("math/math500_prm800k_test.jsonl.gz")
    assert [row["answer"] for row in rows if settle(row["answer"], extract_answer(row["solution"])) is not True] == []


@needs_data
def test_finds_the_answers_of_prm800k():
    """252 solutions state one below ``# Answer``; four are sentences of words alone, which are no answers."""
    texts = ["\n".join(row["steps"]) for row in read("prm800k/train_val2pct_decoded_dedup.jsonl.gz")]
    written = [(text, text.rpartition("# Answer")[2].strip()) for text in texts if "# Answer" in text]
    assert len(written) == 252
    other = [answer for text, answer in written if settle(answer, extract_answer(text)) is not True]
    assert len(other) == 4
    assert all(answer.startswith("Dana") for answer in other)
    joined = [" ".join(text.split()) for text, _ in written]
    assert [extract_answer(text) for text in joined] == [extract_answer(text) for text, _ in written]
