"""The rank stage: its records, its summary, the aggregation it chooses, and what it refuses."""

import json

import pytest

from sampling.__main__ import main
from sampling.selection.pool import largest_size
from sampling.selection.rules import Majority
from sampling.stages.rank import rank
from sampling.stages.report import report
from stepverify.answers import Grader
from stepverify.jsonl import read_located, read_records, write_records
from stepverify.records import InputError, Ranking, Solution


def solution(problem, index, predicted="1", *, prefix="p", **known):
    known = {"correct": predicted == "1", "finish": "stop", "scores": {"orm": [0.5], "prm": [0.5, 0.5]}} | known
    return Solution(
        id=f"{prefix}{problem}#{index}", problem_id=f"{prefix}{problem}", problem=f"Question {problem}", answer="1",
        steps=["a", "b"], predicted=predicted, **known,
    )  # fmt: skip


def scored(folder, solutions):
    write_records(folder / "part-00000.jsonl", solutions)
    return folder


def summary_of(folder):
    return json.loads((folder / "manifest.json").read_text())["summary"]


def test_stage(tmp_path, capsys):
    """Problem 0, interleaved with 1: answers 1, 1.0, 2, so two of one class. Problem 1: 3, 3 and a cut-off 1."""
    zero = [solution(0, i, a, correct=a != "2") for i, a in enumerate(("2", "1", "1.0"))]
    one = [solution(1, i, a, finish=f) for i, (a, f) in enumerate((("3", "stop"), ("3", "stop"), ("1", "length")))]
    data = scored(tmp_path / "in", [s for pair in zip(zero, one, strict=True) for s in pair])
    rank(data, tmp_path / "out")
    rankings = list(read_records(tmp_path / "out", Ranking))
    assert [r.problem_id for r in rankings] == ["p0", "p1"]
    assert "  aggregation: orm last (default), prm prod (default)\n" in capsys.readouterr().out
    assert rankings[0].sizes == [1, 2, 3]
    assert [r.curves["majority"][-1] for r in rankings] == [1.0, 0.0]
    assert [r.curves["oracle"][-1] for r in rankings] == [1.0, 0.0], "a cut-off solution is never correct"
    assert rankings[0].choices["majority"] == "p0#1"
    assert summary_of(tmp_path / "out")["aggregation"] == {
        "orm": {"how": "last", "chosen_on": "default"}, "prm": {"how": "prod", "chosen_on": "default"},
    }  # fmt: skip
    before = (tmp_path / "out/part-00000.jsonl").read_bytes()
    rank(data, tmp_path / "out")
    assert "already ranked" in capsys.readouterr().out
    assert (tmp_path / "out/part-00000.jsonl").read_bytes() == before


def test_the_stage_counts_what_no_rule_can_change_and_ranks_as_asked(tmp_path, capsys):
    """Problem 0 has no correct sample, 1 no incorrect one, 2 both; two samples have no answer."""
    answers = [["2", None], ["1", "1.0"], ["1", None]]
    rows = [
        solution(p, i, a, correct=a in ("1", "1.0")) for p, group in enumerate(answers) for i, a in enumerate(group)
    ]
    data = scored(tmp_path / "in", rows)
    rank(data, tmp_path / "out", top_k=[2], every_aggregation=True)
    counts = {"without_answer": 2, "problems_without_correct": 1, "problems_without_incorrect": 1}
    assert summary_of(tmp_path / "out").items() >= counts.items()
    assert "without answer 2, problems without correct 1, problems without incorrect 1" in capsys.readouterr().out
    rules = next(read_records(tmp_path / "out", Ranking)).curves.keys()
    assert {"orm/top_2", "prm/top_2", "prm/top_2/min", "prm/weighted_vote/max"} <= rules
    assert "orm/best_of_n/last" not in rules, "one value has no aggregation"
    with pytest.raises(InputError, match=r"was made with config\.top_k"):
        rank(data, tmp_path / "out", every_aggregation=True)


def test_missing_samples_count_as_misses(tmp_path, capsys):
    """Problem 0 has three samples, problem 1 a single correct one, to which two that are missing are added.

    Of N of three it is among them with probability N / 3, and then every rule picks it. A sample without values that is there
    is ranked last, too: the second one of problem 2 is picked among its missing third with probability 1/2 at N = 2, where
    both are sampled (1/3), but the first one, incorrect, is not; with the first it is never picked: 1/6, and 0 at N = 3.
    """
    rows = [solution(0, i, a) for i, a in enumerate(("1", "2", "2"))] + [solution(1, 0, "1")]
    rows += [solution(2, 0, "2"), solution(2, 1, "1", scores={"orm": [], "prm": []})]
    data = scored(tmp_path / "in", rows)
    with pytest.raises(
        InputError, match="sizes: 3 samples requested, but 2 of 3 problems have fewer; problem p1 has 1"
    ):
        rank(data, tmp_path / "out", sizes=[3])
    rank(data, tmp_path / "out", count_missing=True)
    _, one, two = read_records(tmp_path / "out", Ranking)
    assert (one.sizes, one.num_samples, two.num_samples) == ([1, 2, 3], 1, 2)
    for rule in ("majority", "shortest", "orm/best_of_n", "prm/weighted_vote", "oracle"):
        assert one.curves[rule] == pytest.approx(
            [1 / 3, 2 / 3, 1], abs=0.1 * (rule in ("majority", "prm/weighted_vote")) + 1e-9
        )
        assert one.choices[rule] == "p1#0"
    assert one.curves["pass@1"] == pytest.approx([1 / 3] * 3)
    assert one.auroc_by_rule == {}, "only samples that are there are ordered"
    assert two.curves["prm/best_of_n"] == pytest.approx([1 / 3, 1 / 6, 0])
    assert two.choices["prm/best_of_n"] == "p2#0"
    found = summary_of(tmp_path / "out")
    assert [found[key] for key in ("missing", "num_solutions", "num_samples", "without_answer")] == [3, 6, 3, 0]
    assert found["aggregation"]["prm"]["how"] == "prod"
    assert "missing 3" in capsys.readouterr().out


def test_the_configuration_names_rules(tmp_path, capsys):
    """Short names for ours, a dotted path for others; each is part of what the folder was made with."""
    data = scored(tmp_path / "in", [solution(0, i, a) for i, a in enumerate("122")])
    (tmp_path / "rank.yaml").write_text(
        f"input: {data}\noutput: {tmp_path / 'out'}\nrules:\n"
        "- class_path: SampleAccuracy\n- class_path: Majority\n- class_path: tests.helpers.rules.Longest\n"
        "- class_path: tests.helpers.rules.SquaredVote\n  init_args: {power: 3.0, verifier: prm}\n"
        "- class_path: Simulated\n  init_args: {area: 0.75, rule: {class_path: BestOfN}}\n"
    )
    main(["rank", "--config", str(tmp_path / "rank.yaml")])
    (found,) = read_records(tmp_path / "out", Ranking)
    rules = ["pass@1", "majority", "longest", "prm/squared_vote", "simulated_0.75/best_of_n"]
    assert [*found.curves] == rules
    config = json.loads((tmp_path / "out/manifest.json").read_text())["config"]
    assert config["rules"][3]["init_args"] == {"verifier": "prm", "power": 3.0}
    report(tmp_path / "out", output=tmp_path / "report", num_bootstrap=10)
    assert "| longest | " in (tmp_path / "report/report.md").read_text()
    with pytest.raises(InputError, match=r"was made with config\.rules"):
        rank(data, tmp_path / "out")
    with pytest.raises(InputError, match="add TopKVote and Simulated to rules"):
        rank(data, tmp_path / "other", rules=[Majority()], top_k=[2])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([4, 4, 4], 4),
        ([16, 16, 16, 1], 16),  # 16 x 3 samples against 1 x 4
        ([16] * 51 + [15] * 49, 15),  # 15 x 100 against 16 x 51
        ([16] * 5 + [8] * 5, 8),  # 8 x 10 = 16 x 5: of equals the one that keeps more problems
        ([16] * 6 + [8] * 4, 16),  # 16 x 6 against 8 x 10
        ([100, 1, 1], 1),  # less than half have 100
        ([4, 1], 4),
        ([2], 2),
    ],
)
def test_the_largest_size_keeps_the_most_samples_of_half_the_problems(counts, expected):
    assert largest_size(counts) == expected


def test_a_problem_with_one_sample_does_not_shrink_the_curves(tmp_path, capsys):
    """Three of four problems have four samples: curves up to 4 over those three, the same as without the fourth."""
    whole = [solution(p, i, a) for p in range(3) for i, a in enumerate("1221")]
    rank(scored(tmp_path / "whole", whole), tmp_path / "a")
    capsys.readouterr()
    rank(scored(tmp_path / "in", [whole[0], solution(9, 0, "1"), *whole[1:]]), tmp_path / "b")
    assert [*read_records(tmp_path / "b", Ranking)] == [*read_records(tmp_path / "a", Ranking)]
    found = summary_of(tmp_path / "b")
    assert [found[key] for key in ("sizes", "num_problems", "num_solutions")] == [[1, 2, 4], 3, 12]
    assert found["fewer_samples"] == {"p9": 1}
    assert "fewer_samples" not in summary_of(tmp_path / "a")
    said = "left out: 1 problems with fewer than 4 samples: p9 (1)"
    assert said in capsys.readouterr().out
    report(tmp_path / "b", output=tmp_path / "report", num_bootstrap=10)
    assert "1 problems with fewer than 4 samples are left out: p9" in capsys.readouterr().out
    assert "fewer than 4 samples are left out: p9" in (tmp_path / "report/report.md").read_text()
    assert (
        "Warnings" not in [report(tmp_path / "a", output=tmp_path / "r", num_bootstrap=10), capsys.readouterr().out][1]
    )
    rank(tmp_path / "in", tmp_path / "c", sizes=[1])
    assert len([*read_records(tmp_path / "c", Ranking)]) == 4, "sizes that all have leave none out"


def test_a_validation_problem_with_one_sample_does_not_decide_the_aggregation(tmp_path, capsys):
    """At N = 1 every aggregation solves as much; over the two problems with two samples `last` is the best."""
    scores = {"1": [0.1, 0.9], "2": [0.8, 0.7]}
    other = [solution(p, i, a, prefix="v", scores={"prm": scores[a]}) for p in range(2) for i, a in enumerate("12")]
    other.append(solution(2, 0, "2", prefix="v", scores={"prm": [0.5, 0.5]}))
    data = scored(tmp_path / "in", [solution(9, i, a, scores={"prm": scores["12"[i]]}) for i, a in enumerate("22")])
    rank(data, tmp_path / "out", validation=scored(tmp_path / "other", other))
    found = summary_of(tmp_path / "out")
    assert found["aggregation"]["prm"] == {"how": "last", "chosen_on": "validation"}
    assert [found["validation"][key] for key in ("num_problems", "n", "fewer_samples")] == [2, 2, {"v2": 1}]
    assert "validation: left out: 1 problems with fewer than 2 samples: v2 (1)" in capsys.readouterr().out


def test_an_interrupted_stage_ends_as_a_whole_one(tmp_path):
    data = scored(tmp_path / "in", [solution(p, i, str((p + i) % 3)) for p in range(5) for i in range(6)])
    rank(data, tmp_path / "whole", num_subsets=7)
    rank(data, tmp_path / "torn", num_subsets=7)
    part, manifest = tmp_path / "torn/part-00000.jsonl", tmp_path / "torn/manifest.json"
    part.write_bytes(part.read_bytes()[:-500])
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": False}))
    rank(data, tmp_path / "torn", num_subsets=7)
    assert part.read_bytes() == (tmp_path / "whole/part-00000.jsonl").read_bytes()


def test_comparisons_that_take_too_long_are_counted(tmp_path, capsys, monkeypatch):
    """Two of problem 1 and none of the others; the count is in its record, so a resumed run has it too."""

    class Slow(Grader):
        num_timeouts = 0

        def classes(self, answers):
            self.num_timeouts += 2 * ("11" in answers)
            return super().classes(answers)

    monkeypatch.setattr("stepverify.answers.Grader", Slow)
    data = scored(tmp_path / "in", [solution(p, i, f"{p}{i}") for p in range(3) for i in range(2)])
    rank(data, tmp_path / "out")
    assert [r.num_timeouts for r in read_records(tmp_path / "out", Ranking)] == [0, 2, 0]
    assert summary_of(tmp_path / "out")["answer_timeouts"] == 2
    assert (
        "  2 readings or comparisons of answers took longer than 3 s of CPU time; they count as not equal"
        in capsys.readouterr().out
    )


def test_the_aggregation_is_chosen_on_other_problems(tmp_path):
    """On validation the correct one has the better last value and the worse of all others: ``last`` solves all.

    Correct: 0.1, 0.9 (prod 0.09, min 0.1, mean 0.5). Incorrect: 0.8, 0.7 (0.56, 0.7, 0.75).
    """
    scores = {"1": [0.1, 0.9], "2": [0.8, 0.7]}
    other = [solution(p, i, a, prefix="v", scores={"prm": scores[a]}) for p in range(2) for i, a in enumerate("12")]
    data = scored(tmp_path / "in", [solution(9, i, a, scores={"prm": scores["12"[i]]}) for i, a in enumerate("22")])
    rank(data, tmp_path / "out", validation=scored(tmp_path / "other", other))
    found = summary_of(tmp_path / "out")
    assert found["aggregation"] == {"prm": {"how": "last", "chosen_on": "validation"}}
    table = {"prod": 0.0, "min": 0.0, "last": 1.0, "mean": 0.0}
    assert found["validation"] == {"num_problems": 2, "n": 2, "best_of_n": {"prm": table}}
    rank(data, tmp_path / "fixed", validation=tmp_path / "other", aggregation={"prm": "min"})
    assert summary_of(tmp_path / "fixed")["aggregation"]["prm"] == {"how": "min", "chosen_on": "configured"}


@pytest.mark.parametrize(
    ("solutions", "options", "message"),
    [
        ([solution(0, 0, correct=None)], {}, "p0#0 is not graded.*sampling label"),
        ([solution(0, 0), solution(0, 1, scores={"orm": [0.5]})], {}, "p0#1 has no score by 'prm'"),
        ([solution(0, 0, scores={"orm": [0.5]}), solution(0, 1)], {}, "p0#0 has no score by 'prm'"),
        (
            [solution(0, i) for i in range(3)] + [solution(1, 0)],
            {"sizes": [4]},
            "4 samples.* 2 of 2 .* problem p0 has 3",
        ),
        ([solution(0, 0)], {"sizes": []}, "sizes: expected numbers of 1 or more"),
        ([solution(0, 0)], {"aggregation": {"qrm": "min"}}, "aggregation.qrm"),
        ([solution(0, 0)], {"aggregation": {"prm": "median"}}, "aggregation.prm"),
        ([solution(0, 0)], {"num_subsets": 0}, "num_subsets"),
        ([solution(0, 0)], {"top_k": [3, 0]}, "top_k: expected different numbers of 1 or more"),
        ([solution(0, 0)], {"validation": "in"}, "1 problems are also in the input, for example p0"),
    ],
)
def test_bad_input_is_refused_and_claims_no_folder(tmp_path, solutions, options, message):
    data = scored(tmp_path / "in", solutions)
    if "validation" in options:
        options = {"validation": data}
    with pytest.raises(InputError, match=message):
        rank(data, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": "yes"}, "key 'correct': expected true or false"),
        ({"scores": {"orm": ["0.5"]}}, r"key 'scores.orm\[0\]': expected a number"),
        ({"scores": {"orm": 0.5}}, "key 'scores.orm': expected a list"),
        ({"steps": "a"}, "key 'steps': expected a list"),
        ({"finish": "eos"}, "finish: expected 'stop' or 'length'"),
        ({"token_ids": 3}, "key 'token_ids': expected a list"),
        ({"score": 1}, "unknown key 'score'"),
    ],
)
def test_reading_names_line_and_key(tmp_path, change, message):
    path = tmp_path / "a.jsonl"
    write_records(path, [solution(0, 0)])
    path.write_text(path.read_text() + json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(InputError, match=f"a.jsonl:2: {message}"):
        list(read_located(path, Solution))


@pytest.mark.parametrize(("value", "got"), [("1e999", "Infinity"), ("NaN", "NaN"), ("-Infinity", "-Infinity")])
def test_reading_refuses_what_is_no_finite_number(tmp_path, value, got):
    path = tmp_path / "a.jsonl"
    write_records(path, [solution(0, 0, scores={"orm": [0.5]})])
    path.write_text(path.read_text() + path.read_text().replace("[0.5]", f"[{value}]").replace("p0#0", "p0#1"))
    with pytest.raises(InputError, match=rf"a.jsonl:2: key 'scores.orm\[0\]': expected .*, got {got}"):
        list(read_located(path, Solution))
