"""Every family of answers, equal and unequal; symmetry; order; hostile answers.

``pairs.tsv`` has a pair a line: its family, ``=`` or ``≠``, and the two answers as they are written, tabs between.
"""

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepverify.answers import Grader, equivalent
from stepverify.answers.collection import MAX_PARTS, take_apart
from stepverify.answers.compare import settle
from stepverify.answers.formula import read
from stepverify.answers.number import number

ROWS = [
    line.split("\t")
    for line in (Path(__file__).parent / "pairs.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]
]
FAMILIES = sorted({family for family, *_ in ROWS})
POOL = sorted({text for _, _, *pair in ROWS for text in pair})


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_of_a_family(family):
    pairs = [(verdict == "=", one, other) for name, verdict, one, other in ROWS if name == family]
    assert [
        (one, other)
        for equal, one, other in pairs
        if (equivalent(one, other), equivalent(other, one)) != (equal, equal)
    ] == []


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(POOL), st.sampled_from(POOL))
def test_any_two_answers_are_compared_symmetrically(one, other):
    assert equivalent(one, other) is equivalent(other, one)
    assert settle(one, other) is settle(other, one)
    assert settle(one, other) in (None, equivalent(one, other))  # what is settled is what is found
    assert equivalent(one, one)


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=MAX_PARTS), st.randoms(use_true_random=False))
def test_lists_are_equal_in_any_order_and_tuples_in_theirs(values, random):
    shuffled = random.sample(values, len(values))
    text, other = ", ".join(map(str, values)), " and ".join(map(str, shuffled))
    assert settle(text, other) is True
    assert settle(f"({text})", f"({', '.join(map(str, shuffled))})") is (values == shuffled)
    assert settle(rf"\{{{text}\}}", ", ".join(map(str, set(values)))) in (
        {True} if len(set(values)) > 1 else {None, False}
    )
    assert settle(text, f"{other}, 6") is (False if len(values) < MAX_PARTS else None)


def test_lists_are_paired_off_although_equality_is_not_transitive():
    # 20% equals 20 and 1/5: of (20%, 20) and (20, 1/5), the first must not take the 20 away.
    assert settle(r"20\%, 20", r"20, \frac15") is True
    assert settle(r"20\%, 20", r"\frac15, 20") is True
    assert settle(r"20\%, 20", r"\frac15, \frac15") is False


@given(st.integers(0, 9999), st.integers(1, 4), st.integers(0, 99))
def test_a_recurring_decimal_is_its_fraction(period, digits, whole):
    # a.bbb... = a + b / (10^digits - 1)
    period %= 10**digits
    assert settle(rf"{whole}.\overline{{{period:0{digits}d}}}", f"{whole * (10**digits - 1) + period}/{10**digits - 1}")


@pytest.mark.parametrize(
    ("answer", "kind", "parts"),
    [
        ("1,000, 2,000", "list", ("1,000", "2,000")), ("(1,200)", "()", ("1", "200")), ("(1,200, 3)", "()", ("1,200", "3")),
        ("x_{1,2} = 3, y = 4", "system", ("x_{1,2} = 3", "y = 4")), ("x = 1, x = 2", "list", ("x = 1", "x = 2")),
        (r"\begin{matrix}1&2\\3&4\end{matrix}", "matrix 2", ("1", "2", "3", "4")), ("f(1, 2)", None, None), ("(1, 2", None, None),
        ("(1) + (2, 3)", None, None), ("1,2," * 20, None, None), ("This is a whole sentence, and one with a comma", None, None),
        (r"\begin{pmatrix}1\end{pmatrix} + \begin{pmatrix}2\end{pmatrix}", None, None), ("", None, None),
    ],
)  # fmt: skip
def test_taking_apart(answer, kind, parts):
    found = take_apart(answer)
    assert (found.kind, found.parts) == (kind, parts) if kind else found is None


def test_the_grammar_is_parsed_in_two_stages_to_the_same_trees():
    from latex2sympy2_extended import latex2sympy2

    read.cache_clear()
    fast = {answer: read(answer) for answer in POOL[::10]}
    two_stages = latex2sympy2.PSParser
    assert two_stages.__name__ == "TwoStageParser"
    latex2sympy2.PSParser = two_stages.__mro__[1]
    try:
        from math_verify import parser

        for cache in (read, parser.parse_latex_cached, parser.extract_latex):
            cache.cache_clear()
        assert {answer: read(answer) for answer in POOL[::10]} == fast
    finally:
        latex2sympy2.PSParser = two_stages
        read.cache_clear()


def test_a_solution_or_sentence_is_what_it_states():
    assert settle("72", "She sold 48 + 24 = 72 clips in all.\n#### 72") is True
    assert settle("72", "48 + 24 = 72\n#### 72") is True
    assert settle("72", r"So the two months together make $\boxed{72}$, and not 70.") is True
    assert equivalent("2/3", "Therefore the probability that Alice wins is 2/3. And so on")
    assert not equivalent("1/3", "Therefore the probability that Alice wins is 2/3. And so on")


# ── threads, processes, order ─────────────────────────────────────────────────────────────────────


def test_threads_processes_and_order_make_no_difference():
    known = {(one, other): verdict == "=" for _, verdict, one, other in ROWS[::7]}
    pairs, expected = list(known), list(known.values())
    in_thread = []
    with Grader(num_workers=2, time_limit=60) as grader:
        thread = threading.Thread(
            target=lambda: in_thread.extend(([equivalent(*pair) for pair in pairs], grader.grade(pairs)))
        )
        thread.start()
        thread.join()
        backwards = grader.grade((other, one) for one, other in reversed(pairs))
    assert in_thread == [expected, expected]
    assert backwards[::-1] == expected


# ── hostile answers ───────────────────────────────────────────────────────────────────────────────

SLOW = [  # to computer algebra
    "10^{10^{10^{10}}}", "(10^{10})!", "(" * 990 + "1" + ")" * 990, r"\frac{1}{" * 180 + "2" + "}" * 180,
    r"\sum_{k=1}^{10^{12}} \frac{1}{k^2+1}", "1," * 999, "{" * 2000,
]  # fmt: skip
LONG = [  # to patterns
    r"\sqrt{" * 300 + "2" + "}" * 300, "-" * 1990 + "1", "a" * 2000, r"\{1," * 400, r"\pm" * 400 + "1", "a and " * 330, "=".join("x" * 900),
    r"\text{" * 300, " " * 1000 + "." + " " * 999 + "x", "9" * 1_000_000, r"\boxed{" * 40_000, "x + y, " * 40_000,
    r"\left(" * 330 + r"\right)" * 3, "(((1,2),3),4)" * 150, r"\0" * 900, "1, 2; " * 300, r"\{1, 2, 3, 4\}, " * 100, r"1 \text{ m}^2 " * 150,
]  # fmt: skip


@pytest.mark.parametrize("text", SLOW + LONG, ids=lambda text: text[:20])
def test_hostile_answers_are_settled_or_left_at_once(text):
    start = time.process_time()
    settle(text, text[1:])
    settle("5", text)
    number(text)
    assert time.process_time() - start < 8  # quadratic time would be half a minute on 300 kB


def test_a_hostile_answer_costs_its_limit_and_no_other_verdict():
    with Grader(num_workers=2, time_limit=1.0) as grader:
        assert grader.grade([("x+1", "1+x")]) == [True]
        verdicts = grader.grade([pair for text in SLOW for pair in (("3x", text), ("2a", "a+a"), ("5", "6"))])
    assert verdicts[1::3] == [True] * len(SLOW)
    assert verdicts[2::3] == [False] * len(SLOW)
    assert True not in verdicts[::3]


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
