"""Choosing what people rate, the sheets that they fill in, and what is read back from them."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.stages.select import Candidate, incorrect_places, most_convincing, select
from stepverify.jsonl import read_records, write_records
from stepverify.readers import Solutions
from stepverify.readers.base import same_steps
from stepverify.records import InputError, Solution
from tests.helpers.sheets import sample, sheets, write_scored

CANDIDATES = st.lists(
    st.tuples(st.sampled_from("pq"), st.sampled_from([0.1, 0.5, 0.9]), st.booleans(), st.binary(max_size=1)),
    max_size=12,
).map(lambda rows: [Candidate(f"{i:02}", p, s, w, d) for i, (p, s, w, d) in enumerate(rows)])
SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0])


def candidates(text):
    """``"a9- b5+"``: a of score 9 is incorrect, b of score 5 correct; all have steps of their own."""
    return [Candidate(t[0], "p", float(t[1:-1]), t[-1] == "-", t.encode()) for t in text.split()]


def chosen(text, size, share=0.8):
    return "".join(c.id for c in most_convincing(candidates(text), size, share))


# ── the choice ────────────────────────────────────────────────────────────────────────────────────


def test_four_of_five_are_incorrect_and_the_fifth_is_the_best_that_remains():
    """0.8 · 5 = 4 incorrect ones: b, c, d, e. Of a (9, correct) and f (4, incorrect) a is the better one; with 3 for a it is f."""
    assert chosen("a9+ b8- c7- d6- e5- f4- g3+", 5) == "bcdea"
    assert chosen("a3+ b8- c7- d6- e5- f4- g2+", 5) == "bcdef"


def test_places_that_incorrect_ones_cannot_fill_go_to_the_others():
    """One incorrect for four places: the correct ones take three of them, and the fifth. Then there is none for the sixth."""
    assert chosen("a1- b8+ c7+ d6+ e5+ f4+", 5) == "abcde"
    assert chosen("a1- b8+", 6) == "ab"
    assert chosen("b8+ c9+", 1) == "c"


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (10, 8), (100, 80)])
def test_the_share_in_whole_places(size, expected):
    """0.8, 1.6, 2.4, 3.2, 4, 8, 80 to the nearest whole number; a half goes up: 0.5 · 3 = 1.5 to 2."""
    assert incorrect_places(size, 0.8) == expected
    assert incorrect_places(3, 0.5) == 2


def test_equal_scores_go_by_id():
    assert chosen("d5- b5- c5- a5+", 3, 0.5) == "bca", "two incorrect ones of b, c, d, and a of those that remain"


def test_the_same_steps_are_taken_once_a_problem():
    """a and b are one solution; c has these steps too, of another problem."""
    rows = [Candidate(i, p, s, True, b"x") for i, p, s in (("a", "p", 0.5), ("b", "p", 0.9), ("c", "q", 0.1))]
    assert [c.id for c in most_convincing(rows, 3)] == ["b", "c"]


def test_steps_are_the_same_up_to_spaces():
    assert same_steps(["a  = 1 ", "b"]) == same_steps([" a = 1", "b"]) == same_steps(["a\n= 1", "b"])
    assert len({same_steps(steps) for steps in (["a", "b"], ["a b"], ["ab"], ["A", "b"], ["b", "a"], [], ["a"])}) == 7
    assert len(same_steps(["x" * 10_000])) == 16


@given(CANDIDATES, st.integers(1, 8), SHARES)
def test_laws_of_the_choice(pool, size, share):
    """No solution twice; full, if there are enough; the share of incorrect ones is kept as far as there are any."""
    selected = most_convincing(pool, size, share)
    distinct = {(c.problem_id, c.steps) for c in pool}
    assert len({(c.problem_id, c.steps) for c in selected}) == len(selected) == min(size, len(distinct))
    best = {}
    for c in sorted(pool, key=lambda c: (-c.score, c.id)):
        best.setdefault((c.problem_id, c.steps), c)
    incorrect = sorted((c for c in best.values() if c.incorrect), key=lambda c: (-c.score, c.id))
    places = min(incorrect_places(size, share), len(incorrect))
    assert selected[:places] == incorrect[:places]
    worst = min((c.score for c in selected[places:]), default=math.inf)
    assert all(c.score <= worst or c in selected for c in best.values())


@given(CANDIDATES, st.integers(1, 8), SHARES, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_decides_nothing(pool, size, share, rng):
    shuffled = rng.sample(pool, len(pool))
    assert most_convincing(shuffled, size, share) == most_convincing(pool, size, share)


# ── the stage ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scored(tmp_path):
    return write_scored(tmp_path / "scored")


def selected(folder):
    return [sheet.id for sheet in sheets(folder)]


def summary_of(folder):
    return json.loads((folder / "manifest.json").read_text())["summary"]


def test_so_many_of_each_problem(scored, tmp_path, capsys):
    """Two each, 1.6 or 2 of them incorrect. p: 0.9 and 0.8. q has one incorrect answer, 0.4; the other place is for 0.6."""
    select(scored, tmp_path / "out", per_problem=2)
    assert selected(tmp_path / "out") == ["q#0", "p#1", "q#1", "p#3"], "in the order of the input"
    assert summary_of(tmp_path / "out") == {
        "selected": 4, "incorrect": 3, "correct": 1, "problems": 2, "places_of_incorrect_ones_not_filled_by_them": 1,
        "places_left_empty": 0, "verifier": "prm",
        "input": {"solutions": 11, "unanswered": 2, "without_scores": 1, "rated_before": 0, "duplicates": 1},
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "selected 4, incorrect 3, correct 1, problems 2, places of incorrect ones not filled by them 1" in printed
    assert "solutions 11, unanswered 2, without scores 1, rated before 0, duplicates 1" in printed


def test_so_many_in_all(scored, tmp_path):
    """Five, four of them incorrect: 0.9, 0.8, 0.7, 0.4; then 0.95. Of eight: all four incorrect ones and the three correct."""
    select(scored, tmp_path / "five", total=5)
    assert selected(tmp_path / "five") == ["p#0", "p#1", "p#2", "q#1", "p#3"]
    select(scored, tmp_path / "eight", total=8)
    assert len(selected(tmp_path / "eight")) == 7
    assert summary_of(tmp_path / "eight")["places_left_empty"] == 1
    assert summary_of(tmp_path / "eight")["places_of_incorrect_ones_not_filled_by_them"] == 2, "0.8 · 8 is 6"


def test_the_choices(scored, tmp_path):
    """The cut-off one (0.99) and the one without an answer (0.3) as incorrect ones; none incorrect; the least of two values."""
    select(scored, tmp_path / "a", total=1, unanswered="incorrect")
    assert selected(tmp_path / "a") == ["q#2"]
    assert summary_of(tmp_path / "a")["input"]["unanswered"] == 0
    select(scored, tmp_path / "b", total=1, incorrect_share=0.0)
    assert selected(tmp_path / "b") == ["p#2"]
    select(scored, tmp_path / "c", per_problem=1, aggregation="max", incorrect_share=0.0)
    assert selected(tmp_path / "c") == ["p#0", "q#0"], "all are 1.0: the first id"


def test_what_was_rated_before_is_not_selected_again(scored, tmp_path):
    write_records(tmp_path / "first.jsonl", [sample("p", 9, 0.0, False, ["step 1", " end"])])
    select(scored, tmp_path / "out", per_problem=1, rated=Solutions(str(tmp_path / "first.jsonl")))
    assert selected(tmp_path / "out") == ["q#1", "p#3"]
    assert summary_of(tmp_path / "out")["input"]["rated_before"] == 1


def test_a_sheet_says_what_a_person_needs_and_no_more(scored, tmp_path):
    select(scored, tmp_path / "out", total=1)
    (line,) = (tmp_path / "out" / "part-00000.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "id": "p#1", "problem_id": "p", "problem": "Question p", "answer": "1", "steps": ["step 1", "end"],
        "ratings": [None, None],
    }  # fmt: skip
    select(scored, tmp_path / "primed", total=1, show_scores=True)
    assert sheets(tmp_path / "primed")[0].scores == [1.0, 0.9]


def test_the_order_of_the_input_decides_nothing(scored, tmp_path):
    rows = list(read_records(scored, Solution))
    write_records(tmp_path / "shuffled" / "part-00000.jsonl", random.Random(0).sample(rows, len(rows)))
    for name in ("scored", "shuffled"):
        select(tmp_path / name, tmp_path / f"{name}_out", per_problem=3)
    assert sorted(selected(tmp_path / "scored_out")) == sorted(selected(tmp_path / "shuffled_out"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "per_problem, total: expected one of the two, got None and None"),
        ({"per_problem": 1, "total": 1}, "per_problem, total: expected one of the two, got 1 and 1"),
        ({"per_problem": 0}, "per_problem: expected 1 or more, got 0"),
        ({"total": -1}, "total: expected 1 or more, got -1"),
        ({"total": 1, "incorrect_share": 1.2}, "incorrect_share: expected 0 to 1, got 1.2"),
        ({"total": 1, "verifier": "orm"}, r"solution p#0 has scores by \['prm'\]; verifier: 'orm' is none of them"),
    ],
)
def test_what_cannot_be_selected(scored, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        select(scored, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_input_that_cannot_be_selected_from(tmp_path):
    def said(*rows):
        write_records(tmp_path / "in.jsonl", rows)
        with pytest.raises(InputError) as caught:
            select(tmp_path / "in.jsonl", tmp_path / "out", total=1)
        return str(caught.value).removeprefix(f"{tmp_path}/in.jsonl")

    assert said(sample("p", 0, 1, None)).startswith(":1: solution p#0 is not graded")
    assert said(sample("p", 0, 1, True), sample("p", 0, 1, True)) == (
        f":2: id 'p#0' occurs in {tmp_path}/in.jsonl:1 already"
    )
    two = sample("p", 0, 1, True, scores={"orm": [0.5], "prm": [0.5, 0.5]})
    assert said(two) == ":1: solution p#0 has scores by ['orm', 'prm']; verifier: None is none of them"
    assert said(sample("p", 0, 1, False, finish="length")).startswith(": nothing to select from: solutions 1, unan")


# ── what people make of it ────────────────────────────────────────────────────────────────────────


def test_an_interrupted_stage_ends_as_a_whole_one(scored, tmp_path):
    for name in ("whole", "torn"):
        select(scored, tmp_path / name, per_problem=2)
    part, manifest = tmp_path / "torn/part-00000.jsonl", tmp_path / "torn/manifest.json"
    part.write_bytes(part.read_bytes()[:-100])
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": False}))
    select(scored, tmp_path / "torn", per_problem=2)
    assert part.read_bytes() == (tmp_path / "whole/part-00000.jsonl").read_bytes()
