"""Scores without the value of the final answer's step."""

import json

import pytest

from sampling.selection import pool as pool_module
from sampling.selection.pool import has_many, read_pool
from sampling.stages.rank import rank
from stepverify.answers import Extracted, Grader
from stepverify.jsonl import read_records, write_records
from stepverify.records import InputError, Ranking, Solution


def scored(number, steps, values, correct, orm=0.5):
    return Solution(
        id=f"p#{number}", problem_id="p", problem="?", steps=steps, answer="1", predicted=steps[-1].split()[-1],
        correct=correct, finish="stop", scores={"prm": values, "orm": [orm]},
    )  # fmt: skip


SOLUTIONS = [
    scored(0, ["a = 1", "#### 1"], [0.9, 0.1], True),
    scored(1, ["a = 2", "#### 2"], [0.6, 0.9], False),
    scored(2, ["#### 3"], [0.8], False),  # its only step stays
    scored(3, ["a", "so 4"], [0.7, 0.7], False),  # no step with a final answer
]


def test_a_final_answer_is_left_out_of_the_score(tmp_path, capsys):
    """prod of all: 0.09, 0.54, 0.8, 0.49, so the third wins; without final answers 0.9, 0.6, 0.8, 0.49: the first."""
    write_records(tmp_path / "in.jsonl", SOLUTIONS)
    rank(tmp_path / "in.jsonl", tmp_path / "all", sizes=[1, 4])
    rank(tmp_path / "in.jsonl", tmp_path / "less", sizes=[1, 4], without_final_step=["prm"])
    (every,), (less,) = (read_records(tmp_path / name, Ranking) for name in ("all", "less"))
    assert (every.choices["prm/best_of_n"], less.choices["prm/best_of_n"]) == ("p#2", "p#0")
    assert every.choices["orm/best_of_n"] == less.choices["orm/best_of_n"]
    manifest = json.loads((tmp_path / "less" / "manifest.json").read_text())
    assert manifest["config"]["without_final_step"] == ["prm"]
    assert manifest["summary"]["final_steps_left_out"] == 2
    assert manifest["summary"]["aggregation"]["prm"] == {"how": "prod", "chosen_on": "default"}
    assert "final steps left out 2" in capsys.readouterr().out
    assert "final_steps_left_out" not in json.loads((tmp_path / "all" / "manifest.json").read_text())["summary"]


def test_values_that_are_left_out_still_count_as_those_of_steps(tmp_path):
    """Two steps each: one value is left, and the verifier is still one of steps."""
    write_records(tmp_path / "in.jsonl", SOLUTIONS[:2])
    pool = read_pool(tmp_path / "in.jsonl", ["prm", "orm"])
    assert [sample.scores for sample in pool["p"]] == [{"prm": [0.9], "orm": [0.5]}, {"prm": [0.6], "orm": [0.5]}]
    assert [sample.num_values("prm") for sample in pool["p"]] == [2, 2]
    assert has_many(pool, "prm")
    assert not has_many(pool, "orm")


def test_a_final_step_that_is_not_read_in_time_stays(tmp_path, monkeypatch, capsys):
    """The second is late, so that its values stay; it is counted and said."""

    class Slow(Grader):
        def extract(self, texts, fallback="no_answer"):
            return [Extracted(None, timed_out=True) if text == "#### 2" else Extracted("1") for text in texts]

    monkeypatch.setattr(pool_module, "Grader", Slow)
    write_records(tmp_path / "in.jsonl", SOLUTIONS[:2])
    pool = read_pool(tmp_path / "in.jsonl", ["prm"])
    assert [sample.scores["prm"] for sample in pool["p"]] == [[0.9], [0.6, 0.9]]
    rank(tmp_path / "in.jsonl", tmp_path / "out", without_final_step=["prm"])
    assert "final steps left out 1, final steps timed out 1" in capsys.readouterr().out


def test_an_unknown_verifier_is_refused(tmp_path):
    write_records(tmp_path / "in.jsonl", SOLUTIONS)
    with pytest.raises(InputError, match=r"without_final_step: prn: expected one of \['orm', 'prm'\]"):
        rank(tmp_path / "in.jsonl", tmp_path / "o", sizes=[1, 4], without_final_step=["prn"])
