"""What people make of selected solutions: sheets that are filled in, read and selected from again."""

import json
import math

import pytest

from sampling.report.browser.columns import UNKNOWN
from sampling.stages.score import score
from sampling.stages.select import select
from stepverify.data.targets import StepTargets
from stepverify.jsonl import read_records, write_records
from stepverify.readers import HumanRatings, Solutions
from stepverify.readers.synthetic import verdicts
from stepverify.records import InputError, RatingSheet, Solution, StepLabel
from tests.helpers.browsing import read_page, solutions_of
from tests.helpers.fits import fit, write_labelled
from tests.helpers.sheets import sheets, write_scored


@pytest.fixture
def scored(tmp_path):
    return write_scored(tmp_path / "scored")


def fill_in(folder, ratings, **known):
    """Edit the sheets by hand: the first ones get ``ratings``, and the file loses its last line end."""
    path = folder / "part-00000.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, given_ratings in zip(rows, ratings, strict=False):
        row.update(known, ratings=given_ratings)
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_ratings_are_never_written_over(scored, tmp_path, capsys):
    out = tmp_path / "out"
    select(scored, out, per_problem=2)
    path = fill_in(out, [[1, -1]])
    edited = path.read_bytes()
    capsys.readouterr()
    select(scored, out, per_problem=2)
    assert capsys.readouterr().out == f"{out}: already selected, left as it is; 1 of 4 solutions have ratings\n"
    with pytest.raises(InputError) as caught:
        select(scored, out, per_problem=3)
    assert str(caught.value) == (
        f"{out}: was made with config.per_problem = 2, now it is 3; "
        "people have rated 1 solutions in it: choose another output"
    )
    assert path.read_bytes() == edited
    fill_in(out, [[None, None]])
    with pytest.raises(InputError, match="or remove this one"):
        select(scored, out, per_problem=3)


def test_ratings_come_back_as_step_labels(scored, tmp_path):
    """Of four sheets the first is rated whole, the second in part, the others not at all."""
    out = tmp_path / "out"
    select(scored, out, per_problem=2)
    fill_in(out, [[1, -1], [None, 0]], meta={"by": "somebody"})
    reader = HumanRatings(str(out))
    for _ in range(2):
        first, second = reader.solutions()
        assert reader.left_out == {"without a rating": 2}
    assert (first.id, first.step_labels) == ("q#0", [StepLabel(rating=1), StepLabel(rating=-1)])
    assert (second.id, second.step_labels) == ("p#1", [None, StepLabel(rating=0)])
    assert (first.problem, first.answer, first.correct, first.meta) == ("Question q", "1", None, {"by": "somebody"})
    assert StepTargets(neutral="negative").of(second) == [None, 0.0]
    assert [p.id for p in reader.problems()] == ["q", "p"]
    assert [s.id for s in HumanRatings(str(out), limit=1).solutions()] == ["q#0"]

    whole = list(HumanRatings(str(out), solutions=Solutions(str(scored))).solutions())
    assert [(s.correct, s.scores["prm"], s.predicted) for s in whole] == [(True, [1, 0.6], "1"), (False, [1, 0.9], "2")]
    assert [s.step_labels for s in whole] == [first.step_labels, second.step_labels]


def test_the_folds_of_rated_problems_are_those_of_their_solutions(tmp_path):
    rows = [RatingSheet(id=f"p{i}#0", problem_id=f"p{i}", problem="?", steps=["a"], ratings=[1]) for i in range(40)]
    write_records(tmp_path / "s.jsonl", rows)
    write_records(
        tmp_path / "o.jsonl", [Solution(id=r.id, problem_id=r.problem_id, problem="?", steps=["a"]) for r in rows]
    )
    for fold in ("train", "validation"):
        ours = [s.id for s in HumanRatings(str(tmp_path / "s.jsonl"), fold=fold).solutions()]
        assert ours == [s.id for s in Solutions(str(tmp_path / "o.jsonl"), fold=fold).solutions()] != []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ratings": [1, 2]}, "key 'ratings[1]': expected -1, 0, 1 or null, got 2"),
        ({"ratings": [1, "good"]}, "key 'ratings[1]': expected an integer, got \"good\""),
        ({"ratings": [1, True]}, "key 'ratings[1]': expected an integer, got true"),
        ({"ratings": [1]}, "ratings: expected one for each of 2 steps, got 1"),
        ({"rating": [1, 1]}, "unknown key 'rating'; a RatingSheet has "),
        ({"ratings": [1, 1], "id": "p#3"}, "id 'p#3' occurs in "),
        ({"ratings": [1, 1], "steps": ["step 1", "End"]}, "key 'steps[1]': 'End', originally 'end'"),
        ({"ratings": [1, 1, 1], "steps": ["step 1", "end", "more"]}, "key 'steps[2]': 'more', originally None"),
        ({"ratings": [1], "steps": ["step 1"]}, "key 'steps[1]': None, originally 'end'"),
        ({"ratings": [1, 1], "problem_id": "q"}, "key 'problem_id': 'q', originally 'p'"),
        ({"ratings": [1, 1], "id": "p#77"}, "key 'id': 'p#77' is no solution of Solutions"),
    ],
)
def test_bad_sheets_are_named(scored, tmp_path, changed, message):
    select(scored, tmp_path / "out", total=2)
    path = tmp_path / "out" / "part-00000.jsonl"
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["id"], second["id"]) == ("p#1", "p#3")
    path.write_text(json.dumps(second) + "\n" + json.dumps(first | changed) + "\n")
    with pytest.raises(InputError) as caught:
        list(HumanRatings(str(path), solutions=Solutions(str(scored))).solutions())
    assert str(caught.value).startswith(f"{path}:2: {message}")


@pytest.mark.slow
def test_rounds_of_active_learning(tmp_path, tiny_model_dir):
    """A verifier scores 48 solutions, half of them incorrect; the oracle rates what is selected, as a person would.

    Ten sheets are of the eight best-scored incorrect solutions and two others, and so are the next ten of what remains.
    """
    first = fit(
        tmp_path / "prm", "ProcessRewardModel", write_labelled(tmp_path / "labels"), {"path": str(tiny_model_dir)}
    )
    score(tmp_path / "labels", tmp_path / "scores", {"prm": str(first)})
    best = sorted(read_records(tmp_path / "scores", Solution), key=lambda s: -math.prod(s.scores["prm"]))
    rated = []
    for number in range(2):
        out = tmp_path / f"round_{number}"
        earlier = HumanRatings(str(tmp_path / "round_0")) if number else None
        select(tmp_path / "scores", out, total=10, rated=earlier)
        verdict = {True: 1, False: -1}
        fill_in(out, [[verdict[r] for r in verdicts(s.problem, s.steps, 7)] for s in sheets(out)])
        rated += HumanRatings(str(out), solutions=Solutions(str(tmp_path / "scores"))).solutions()
    incorrect = {s.id for s in rated if not s.correct}
    assert len({s.id for s in rated}) == 20
    assert {s.id for s in [b for b in best if not b.correct][:16]} <= incorrect
    assert all((s.step_labels[-1].rating == 1) == s.correct for s in rated)


def test_the_page_for_raters_shows_what_the_sheets_do(scored, tmp_path, capsys):
    """Neither verdicts nor scores, unless they are asked for; ratings made by hand are on it when it is written again."""
    out = tmp_path / "out"
    select(scored, out, per_problem=2)
    assert "people rate the steps in" in capsys.readouterr().out
    _, data = read_page(out / "rate.html")
    index = data["index"]
    assert (index["kind"], index["verifiers"], index["said"]) == ("sheets", [], "2 problems, 4 solutions")
    assert {*index["columns"]["correct"], *index["columns"]["error"]} == {None, UNKNOWN}
    shown = [one for bodies in solutions_of(data).values() for one in bodies]
    assert [one["values"] for one in shown] == [{}] * 4
    fill_in(out, [[1, -1]], meta={"remark": "odd"})
    (out / "rate.html").unlink()
    select(scored, out, per_problem=2)
    shown = solutions_of(read_page(out / "rate.html")[1])
    assert shown["q"][0] == {
        "steps": ["step 0", "end"], "separator": "\n", "values": {}, "ratings": [1, -1], "meta": {"remark": "odd"},
    }  # fmt: skip
    select(scored, tmp_path / "primed", total=1, show_scores=True)
    _, data = read_page(tmp_path / "primed/rate.html")
    assert data["index"]["judged"] == [{"score": [0.9], "predicted": [UNKNOWN], "flags": [0]}]
