"""``sampling grade``: a file of pairs in, a file of verdicts out, whole or not at all."""

import gzip
import json

import pytest

from sampling.__main__ import main
from sampling.stages import grade as stage
from sampling.stages.grade import grade
from stepverify.records import InputError


def pairs(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pair(number, gold, predicted, **more):
    return {"id": f"p/{number}", "gold": gold, "pred": predicted, **more}


def graded(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_pairs_become_verdicts_in_order(tmp_path, capsys):
    rows = [
        pair(0, "1/2", "0.5", expected=True), pair(1, "1/2", "2"), pair(2, "7", None), pair(3, None, "7"), pair(4, "7", " "),
        pair(5, "x + 1", "1 + x"), pair("ü", r"\text{A, B}", "B and A"),
    ]  # fmt: skip
    source = pairs(tmp_path / "pairs.jsonl", *rows)
    main(["grade", "--input", str(source), "--output", str(tmp_path / "new" / "graded.jsonl"), "--num_workers", "1"])
    assert graded(tmp_path / "new" / "graded.jsonl") == [
        {"id": row["id"], "correct": correct}
        for row, correct in zip(rows, [True, False, False, False, False, True, True], strict=True)
    ]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["graded.jsonl"]
    printed = capsys.readouterr().out
    # 3 of 7 are correct: 42.9 %; three lines lack one of their answers
    assert "graded.jsonl: 7 pairs, 3 correct (42.9%), 3 with no answer, 0 timed out, " in printed
    assert printed.endswith(" pairs/s\n")


def test_many_chunks_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_CHUNK", 3)
    folder = tmp_path / "pairs"
    folder.mkdir()
    pairs(folder / "a.jsonl", *(pair(n, f"{n}", f"{n % 2}.0") for n in range(7)))
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps(pair(7, "7", r"\frac{14}{2}")) + "\n")
    grade(folder, tmp_path / "graded.jsonl")
    assert [row["correct"] for row in graded(tmp_path / "graded.jsonl")] == [True, True, *[False] * 5, True]
    assert [row["id"] for row in graded(tmp_path / "graded.jsonl")] == [f"p/{n}" for n in range(8)]


def test_whole_solutions(tmp_path, capsys):
    source = pairs(
        tmp_path / "pairs.jsonl",
        pair(0, "18", "16 - 7 = 9\n9 * 2 = 18\n#### 18"),
        pair(1, "18", r"So it is $\boxed{17}$, not 18"),
        pair(2, "18", "It may be 18"),  # states nothing
        pair(3, "1, -2", r"\boxed{-2} and \boxed{1}"),
    )
    grade(source, tmp_path / "graded.jsonl", solutions=True)
    assert [row["correct"] for row in graded(tmp_path / "graded.jsonl")] == [True, False, False, True]
    assert "2 correct (50.0%), 1 with no answer" in capsys.readouterr().out


def test_a_timeout_has_no_verdict_and_is_counted(tmp_path, capsys):
    source = pairs(
        tmp_path / "pairs.jsonl", pair(0, "7", r"\sum_{k=1}^{10^{12}} \frac{1}{k^2+1}"), pair(1, "2a", "a + a")
    )
    grade(source, tmp_path / "graded.jsonl", time_limit=1.0, num_workers=2)
    assert graded(tmp_path / "graded.jsonl") == [{"id": "p/0", "correct": None}, {"id": "p/1", "correct": True}]
    assert "1 correct (50.0%), 0 with no answer, 1 timed out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", "gold": "7"}', "pairs.jsonl:2: missing key 'pred'; found ['gold', 'id']"),
        ('{"id": "b", "gold": 7, "pred": "7"}', "pairs.jsonl:2: key 'gold': expected a string, got 7"),
        ('{"id": null, "gold": "7", "pred": "7"}', "pairs.jsonl:2: key 'id': expected a string, got None"),
        ('{"id": "a", "gold": "7", "pred": "7"}', "pairs.jsonl:2: key 'id': 'a' is that of "),
        ('["b", "7", "7"]', "pairs.jsonl:2: expected an object, got ['b', '7', '7']"),
        ('{"id": "b", "gold": "7", "pred": "7"', "pairs.jsonl:2: not JSON"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_graded(tmp_path, monkeypatch, line, message):
    monkeypatch.setattr(stage, "write_lines", None)  # work would begin with it
    source = pairs(tmp_path / "pairs.jsonl", {"id": "a", "gold": "7", "pred": "7"})
    source.write_text(source.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"pairs\.jsonl:2") as raised:
        grade(source, tmp_path / "graded.jsonl")
    assert message in str(raised.value)
    assert not (tmp_path / "graded.jsonl").exists()


def test_bad_files_and_settings(tmp_path, capsys):
    source = pairs(tmp_path / "pairs.jsonl", pair(0, "7", "7"))
    before = source.read_text()
    for arguments, message in (
        ((tmp_path / "none", tmp_path / "graded.jsonl"), "none: no such file or folder"),
        ((source, tmp_path), "a folder, where a file is to be written"),
        ((source, tmp_path / ".." / tmp_path.name / "pairs.jsonl"), "is the input, expected"),
    ):
        with pytest.raises(InputError, match=message):
            grade(*arguments)
    with pytest.raises(InputError, match="time_limit: expected a positive number"):
        grade(source, tmp_path / "graded.jsonl", time_limit=0)
    assert source.read_text() == before
    with pytest.raises(SystemExit) as stop:
        main(["grade", "--input", str(tmp_path / "none"), "--output", str(tmp_path / "graded.jsonl")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("sampling grade: ")


def test_an_interrupted_run_leaves_what_was_there(tmp_path, monkeypatch):
    source = pairs(tmp_path / "pairs.jsonl", *(pair(n, "7", "7") for n in range(4)))
    monkeypatch.setattr(stage, "_CHUNK", 2)
    (tmp_path / "graded.jsonl").write_text("{}\n")
    calls = []

    def grade_once(self, given):
        if calls:
            raise KeyboardInterrupt
        calls.append(given)
        return [True for _ in given]

    monkeypatch.setattr(stage.Grader, "grade", grade_once)
    with pytest.raises(KeyboardInterrupt):
        grade(source, tmp_path / "graded.jsonl")
    assert (tmp_path / "graded.jsonl").read_text() == "{}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graded.jsonl", "pairs.jsonl"]
