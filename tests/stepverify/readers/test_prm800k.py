"""PRM800K's raw rows and flat rated solutions; the counts of what is dropped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.data.encode import SolutionEncoder
from stepverify.data.packing import count_once
from stepverify.data.targets import StepTargets
from stepverify.data.tree import share
from stepverify.jsonl import write_records
from stepverify.readers import MATH, PRM800K, Problems
from stepverify.readers.prm800k import FINISH_REASONS
from stepverify.readers.released import digest, math500
from stepverify.records import Problem
from stepverify.template import Template
from tests.helpers.readers import count, read, said, written
from tests.helpers.stores import store_of

DROPPED = ("quality_control", "screening", "give_up", "bad_problem")


def step(*completions, chosen=None, human=None):
    """A step from ``(text, rating)`` pairs."""
    return {
        "completions": [{"text": text, "rating": rating, "flagged": None} for text, rating in completions],
        "human_completion": human and {"text": human, "rating": None, "source": "human", "flagged": False},
        "chosen_completion": chosen,
    }


def row(*steps, reason="solution", problem="1 + 1 ?", control=False, screening=False, generation=None):
    return {
        "labeler": "l", "timestamp": "2022-07-30", "generation": generation, "is_quality_control_question": control,
        "is_initial_screening_question": screening,
        "question": {"problem": problem, "ground_truth_answer": "2"},
        "label": {"steps": list(steps), "total_time": 1, "finish_reason": reason},
    }  # fmt: skip


def one(folder, *rows, **options):
    return PRM800K(written(folder / "p.jsonl", *rows), **options)


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_walk_of_a_labeller(tmp_path):
    """Phase 1: chosen, then the labeller's own step, then the second of three. Alternatives end their own paths."""
    reader = one(
        tmp_path,
        row(
            step(("a", 1), chosen=0),
            step(("b", -1), ("c", 0), human="d"),
            step(("e", 0), ("f ", 1), ("g", None), chosen=1),
        ),
    )
    assert read(reader) == [
        (["a", "d", "f"], [1, None, 1]),
        (["a", "b"], [None, -1]),
        (["a", "c"], [None, 0]),
        (["a", "d", "e"], [None, None, 0]),
    ]
    first, second, *_ = reader.solutions()
    name = f"prm800k/{digest('1+1?')}"
    assert (first.id, first.problem_id, first.problem, first.answer) == (f"{name}#0", name, "1 + 1 ?", "2")
    assert (first.finish, second.finish, second.id) == ("stop", None, f"{name}#1")
    assert first.meta == {"generation": None, "finish_reason": "solution"}
    assert second.meta == first.meta | {"alternative": True}
    assert list(reader.problems()) == [Problem(id=name, problem="1 + 1 ?", answer="2", meta=first.meta)]
    assert reader.left_out == {"alternatives without a rating": 1}
    assert reader.noted == {"steps without a rating": 1}
    assert reader.left_out.first == {"alternatives without a rating": f"{tmp_path}/p.jsonl:1: step 2: completion 2"}
    assert str(reader.noted) == f"1 steps without a rating ({tmp_path}/p.jsonl:1: step 1)"


def test_an_error_that_was_found(tmp_path):
    """Phase 2: the first completion of the last step is the generator's own; it ends the path, others go beside it."""
    reader = one(tmp_path, row(step(("a", 1), chosen=0), step(("b", -1), ("c", 1)), reason="found_error", generation=6))
    assert read(reader) == [(["a", "b"], [1, -1]), (["a", "c"], [None, 1])]
    assert [s.finish for s in reader.solutions()] == [None, None]
    assert next(reader.solutions()).meta == {"generation": 6, "finish_reason": "found_error"}


def test_a_path_ends_at_its_first_error_even_where_it_was_chosen(tmp_path):
    reader = one(tmp_path, row(step(("a", 1), chosen=0), step(("b", -1), chosen=0), step(("c", 1), ("d", 1), chosen=0)))
    assert read(reader) == [(["a", "b"], [1, -1])]
    assert reader.noted == {"steps after the end of their path": 1}


@pytest.mark.parametrize(
    ("steps", "expected", "noted"),
    [
        ([step(("a", 1), chosen=0), step(human=None) | {"completions": None}], [(["a"], [1])], {}),
        ([step(("a", None), ("b", 0), ("c", 1))], [(["b"], [0]), (["c"], [1])], {}),
        ([step(("a", 1), chosen=0), step(("b", None))], [(["a"], [1])], {}),
        ([step(("a", None), chosen=0)], [], {"steps without a rating": 1}),
        ([], [], {}),
        ([step((" ", 1), ("b", 1), chosen=0), step(("c", 1), chosen=0)], [(["c"], [1]), (["b"], [1])], {"empty steps": 1}),
    ],
)  # fmt: skip
def test_steps_of_every_kind(tmp_path, steps, expected, noted):
    reader = one(tmp_path, row(*steps))
    assert read(reader) == expected
    assert reader.noted == noted


@pytest.mark.parametrize("kind", DROPPED)
def test_rows_that_are_dropped_are_options(tmp_path, kind):
    bad = row(
        step(("x", 1), chosen=0), control=kind == "quality_control", screening=kind == "screening",
        reason=kind if kind in FINISH_REASONS else "solution",
    )  # fmt: skip
    good = row(step(("a", 1), chosen=0))
    reader = one(tmp_path, good, bad, bad)
    assert read(reader) == [(["a"], [1])]
    assert reader.left_out == {f"rows of {kind}": 2}
    assert reader.left_out.first == {f"rows of {kind}": f"{tmp_path}/p.jsonl:2"}
    assert read(one(tmp_path, good, bad, bad, **{kind: "keep"})) == [(["a"], [1]), (["x"], [1]), (["x"], [1])]


def test_solutions_of_a_problem_are_numbered_over_all_files(tmp_path):
    paths = [written(tmp_path / f"{i}.jsonl", row(step(("a", 1), chosen=0), problem=f"1 + {j} ?"))
             for i, j in enumerate((1, 2, 1))]  # fmt: skip
    found = list(PRM800K(paths).solutions())
    assert [s.id.rpartition("#")[2] for s in found] == ["0", "0", "1"]
    assert found[0].problem_id == found[2].problem_id != found[1].problem_id
    assert len(list(PRM800K(paths, limit=2).solutions())) == 2


ratings = st.sampled_from([-1, 0, 1, None])
walks = st.lists(
    st.tuples(st.lists(ratings, min_size=1, max_size=4), st.integers(0, 3), st.booleans()), min_size=1, max_size=5
)


@given(walks)
def test_every_rating_counts_once(tmp_path_factory, walk):
    """Up to the end of the path each rating is the label of one solution; it stands at its end or on the main path."""
    steps, expected, ended = [], [], False
    for i, (rated, chosen, human) in enumerate(walk):
        on = chosen if chosen < len(rated) else None
        steps.append(
            step(*((f"{i} {j} {r}", r) for j, r in enumerate(rated)), chosen=on, human="own" if human else None)
        )
        if not ended:
            expected += [f"{i} {j} {r}" for j, r in enumerate(rated) if r is not None]
            ended = (on is None and not human) or (on is not None and rated[on] == -1)
    reader = one(tmp_path_factory.mktemp("p"), row(*steps))
    labelled = [
        (text, str(label.rating), s.meta.get("alternative"), i == len(s.steps) - 1)
        for s in reader.solutions() for i, (text, label) in enumerate(zip(s.steps, s.step_labels, strict=True)) if label
    ]  # fmt: skip
    assert sorted(text for text, *_ in labelled) == sorted(expected)
    assert all(text.split()[2] == rating for text, rating, *_ in labelled)
    assert all(at_the_end for *_, alternative, at_the_end in labelled if alternative)


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ([], ":2: expected an object, got []"),
        (row() | {"label": None}, ":2: key 'label': expected an object, got None"),
        (row(reason="tired"), ":2: key 'finish_reason': expected one of "),
        (row(step(("a", 2), chosen=0)), ":2: step 0: completion 0: key 'rating': expected -1, 0, 1 or null, got 2"),
        (
            row(step(("a", True), chosen=0)),
            ":2: step 0: completion 0: key 'rating': expected -1, 0, 1 or null, got True",
        ),
        (row(step(("a", 1), chosen=1)), ":2: step 0: key 'chosen_completion': expected null or 0 to 0, got 1"),
        (row(step((7, 1))), ":2: step 0: completion 0: key 'text': expected a string, got 7"),
        (row([]), ":2: step 0: expected an object, got []"),
        (row(step(("a", -1), chosen=0), step(("b", 3))), ":2: step 1: completion 0: key 'rating': expected -1, 0, 1"),
        (row(control="no"), ":2: key 'is_quality_control_question': expected true or false, got 'no'"),
    ],
)
def test_bad_rows_are_named(tmp_path, bad, expected):
    assert said(one(tmp_path, row(), bad)).startswith(f"{tmp_path}/p.jsonl{expected}")


def test_alternatives_cost_their_own_step_alone(tmp_path, characters):
    """A step is its character, line end and tag. A path of 3 steps and 2 alternatives: prompt + 5 · 3 tokens."""
    reader = one(
        tmp_path, row(step(("1", 1), chosen=0), step(("2", 1), ("3", 0), chosen=0), step(("4", 1), ("5", -1), chosen=0))
    )
    encoder = SolutionEncoder(characters, Template(prompt="Q{problem}A"), 99)
    examples = [encoder.process(s, StepTargets().of(s)) for s in reader.solutions()]
    prompt = len(encoder.prompt("1 + 1 ?"))
    assert len(share([e.input_ids for e in examples]).ids) == prompt + 5 * 3
    assert [e.targets for e in examples] == [[1, 1, 1], [1], [0]]
    count_once(store := store_of(*examples))
    assert [e.weights for e in store] == [[1, 1, 1], [1], [1]]


# ── steps, problems that must not enter ───────────────────────────────────────────────────────────


def test_steps_of_several_lines(tmp_path):
    """Kept as they are and counted; joined to one line; or split, the label on the last of them."""
    good = row(step(("a", 1), chosen=0), step(("so\n\n# Answer\n\n2", 1), ("b\nc", 0), chosen=0))
    reader = one(tmp_path, good)
    assert read(reader) == [(["a", "so\n\n# Answer\n\n2"], [1, 1]), (["a", "b\nc"], [None, 0])]
    assert reader.noted == {"steps of several lines": 2}
    joined = one(tmp_path, good, multiline="join")
    assert read(joined) == [(["a", "so # Answer 2"], [1, 1]), (["a", "b c"], [None, 0])]
    assert joined.noted == {"steps of several lines": 2}
    assert read(one(tmp_path, good, multiline="split")) == [
        (["a", "so", "# Answer", "2"], [1, None, None, 1]), (["a", "b", "c"], [None, None, 0]),
    ]  # fmt: skip
    where = f"{tmp_path}/p.jsonl:1: step 1: completion 1"
    assert said(one(tmp_path, good, strict=True)) == f"{where}: steps of several lines, refused, as strict is set"
    assert said(one(tmp_path, row(step(("\n", 1), chosen=0)), strict=True)).endswith(
        ": empty steps, refused, as strict is set"
    )


def test_problems_of_other_readers_never_enter(tmp_path):
    rows = [row(step(("a", 1), ("b", 1), chosen=0), problem=f"1 + {i} ?") for i in range(3)]
    write_records(tmp_path / "q.jsonl", [Problem(id="other/9", problem="1+1 ?\n")])
    reader = one(tmp_path, *rows, exclude=[Problems(str(tmp_path / "q.jsonl"))])
    assert [s.problem for s in reader.solutions()] == ["1 + 0 ?"] * 2 + ["1 + 2 ?"] * 2
    assert reader.left_out == {"of excluded problems": 1}
    assert [p.problem for p in reader.problems()] == ["1 + 0 ?", "1 + 2 ?"]


def test_math500_never_enters_by_accident(tmp_path, monkeypatch):
    """500 hashes without a text; spaces and case make no difference."""
    assert len(math500()) == 500
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in math500())
    monkeypatch.setattr("stepverify.readers.released.math500", lambda: {digest("What is 1 + 1?")})
    rows = [row(step(("a", 1), chosen=0), problem=p) for p in ("what is\n1 + 1?", "What is 1 + 2?")]
    reader = one(tmp_path, *rows)
    assert len(list(reader.solutions())) == 1
    assert reader.left_out == {"of MATH-500 problems": 1}
    assert len(list(one(tmp_path, *rows, math500="keep").solutions())) == 2


# ── real data ─────────────────────────────────────────────────────────────────────────────────────


def test_raw_rows_as_openai_released_them(data_folder):
    """16 rows: 2 given up, 1 of the screening; all the others but row 13 are of MATH-500 problems.

    Row 13: 4 steps and the second of 7 completions on its path, and the 6 others: 10 of them rated 1, one 0.
    """
    path = str(data_folder / "prm800k/raw_full_schema_records.jsonl.gz")
    reader = PRM800K(path)
    assert count(reader) == (7, 1, 10, 1, 0)
    assert reader.left_out == {"of MATH-500 problems": 12, "rows of give_up": 2, "rows of screening": 1}
    assert count(PRM800K(path, math500="keep")) == (88, 8, 105, 27, 40)
    everything = PRM800K(path, math500="keep", give_up="keep", screening="keep")
    assert count(everything) == (185, 11, 145, 62, 97)
    assert everything.left_out == {"alternatives without a rating": 7}


def test_the_hashes_are_those_of_math500(data_folder):
    problems = list(MATH(str(data_folder / "math/math500_prm800k_test.jsonl.gz")).problems())
    assert {digest(p.problem) for p in problems} == math500()
    assert not {digest(p.problem) for p in MATH(str(data_folder / "math/math_train.jsonl.gz")).problems()} & math500()
