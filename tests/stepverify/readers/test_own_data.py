"""Data of users: other columns, types and file formats, and rows of other projects given to the wrong reader."""

import csv
import gzip
import json

import pytest

from sampling.__main__ import main
from stepverify.foreign import name_reader
from stepverify.jsonl import read_records
from stepverify.readers import Problems, Solutions, Stepwise
from stepverify.readers.released import digest
from stepverify.records import InputError, Problem, Solution, StepLabel

ROWS = [
    {"question": "1 + 1?", "gold": 2, "level": "easy", "worked": "1 + 1 = 2\n\n#### 2\n"},
    {"question": 'Say "a, b".\nNow?', "gold": None, "level": "hard", "worked": "é"},
]
COLUMNS = {"question": "problem", "gold": "answer", "level": "meta.level", "worked": "steps"}
TRL = {"prompt": "1 + 1?", "completions": ["1 + 1 = 2", "3"], "labels": [True, False]}


def write(folder, kind, rows=ROWS):
    path = folder / f"d.{kind}"
    if kind.startswith(("csv", "tsv")):
        with gzip.open(path, "wt", newline="") if kind.endswith(".gz") else path.open("w", newline="") as file:
            made = csv.DictWriter(file, [*rows[0]], delimiter="," if kind.startswith("csv") else "\t")
            made.writeheader()
            made.writerows(rows)
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if kind.startswith("json") and not kind.startswith("jsonl") else (
            "".join(json.dumps(row) + "\n" for row in rows)
        )  # fmt: skip
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode())
    return str(path)


def said(read):
    with pytest.raises(InputError) as caught:
        list(read)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet", "json", "json.gz", "jsonl", "jsonl.gz"])
def test_problems_of_every_format_with_their_own_columns(kind, tmp_path):
    """A number is an answer, a text of lines two steps, an empty cell nothing; ids are made of the text, and counted."""
    reader = Problems(write(tmp_path, kind), columns=COLUMNS)
    first, second = reader.problems()
    assert first == Problem(
        id=f"problem/{digest('1 + 1?')}", problem="1 + 1?", answer="2", steps=["1 + 1 = 2", "#### 2"], meta={"level": "easy"}
    )  # fmt: skip
    assert second == Problem(
        id=f"problem/{digest(ROWS[1]['question'])}", problem=ROWS[1]["question"], steps=["é"], meta={"level": "hard"}
    )
    assert reader.noted["rows without id, which was made of the problem's text"] == 2
    assert [p.problem for p in Problems(reader.path, columns=COLUMNS, start=1).problems()] == [second.problem]


def test_columns_that_are_fields_need_no_entry_and_others_are_counted(tmp_path):
    reader = Problems(write(tmp_path, "csv", [{"id": 7, "problem": "a", "answer": "1.50", "extra": "x"}]))
    assert [*reader.problems()] == [Problem(id="7", problem="a", answer="1.50")]
    assert dict(reader.noted) == {"rows with columns that are not read: extra": 1}
    # A renamed column goes before one with the field's name.
    given = write(tmp_path, "json", [{"id": "p", "problem": 3, "text": "a"}])
    assert [*Problems(given, columns={"text": "problem"}).problems()] == [Problem(id="p", problem="a")]


def test_solutions_of_a_table(tmp_path):
    """Solutions of one problem are numbered; truth and labels may be of other types; scores have a name."""
    rows = [
        {"q": "1 + 1?", "text": "1 + 1 = 2\n#### 2", "ok": 1, "labels": [True, 0.25], "r": 0.5},
        {"q": "1 + 1?", "text": "#### 3", "ok": 0, "labels": [None], "r": 0.75},
    ]
    columns = {"q": "problem", "text": "steps", "ok": "correct", "labels": "step_labels", "r": "scores.orm"}
    for kind in ("json", "jsonl"):
        first, second = Solutions(write(tmp_path, kind, rows), columns=columns).solutions()
        name = f"problem/{digest('1 + 1?')}"
        assert first == Solution(
            id=f"{name}#0", problem_id=name, problem="1 + 1?", steps=["1 + 1 = 2", "#### 2"], correct=True,
            step_labels=[StepLabel(rating=1), StepLabel(value=0.25)], scores={"orm": [0.5]},
        )  # fmt: skip
        assert (second.id, second.correct, second.step_labels) == (f"{name}#1", False, [None])
    flat = write(tmp_path, "csv", [{k: row[k] for k in ("q", "text")} | {"ok": "False"} for row in rows])
    named = {"q": "problem", "text": "steps", "ok": "correct"}
    assert [s.correct for s in Solutions(flat, columns=named).solutions()] == [False, False]
    pairs = [{"id": "a", "problem_id": "p", "steps": ["1"]}]
    texts = Problems(write(tmp_path, "csv", [{"id": "p", "problem": "What?"}]))
    (joined,) = Solutions(write(tmp_path, "json", pairs), problems=texts).solutions()
    assert joined.problem == "What?"


def test_stepwise_rows_of_every_format(tmp_path):
    row = {"q": "1 + 1?", "steps": ["1 + 1 = 2", "3"], "good": [True, False]}
    columns = {"q": "prompt", "steps": "completions", "good": "labels"}
    for kind in ("parquet", "json", "jsonl.gz"):
        (solution,) = Stepwise(write(tmp_path, kind, [row]), columns=columns).solutions()
        assert solution.problem == "1 + 1?"
        assert solution.step_labels == [StepLabel(rating=1), StepLabel(rating=-1)]


def test_all_missing_columns_are_named_beside_those_of_the_row(tmp_path):
    path = write(tmp_path, "csv", [{"a": 1, "b": 2}])
    reader = Problems(path, columns={"question": "problem", "gold": "answer"})
    assert said(reader.problems()) == (
        f"{path}:2: missing keys 'question', 'gold'; found ['a', 'b']; `columns: {{their column: gold}}` of Problems "
        "renames columns"
    )
    assert said(Solutions(path).solutions()).startswith(f"{path}:2: missing keys 'problem', 'steps'; found ['a', 'b'];")
    plain = write(tmp_path, "jsonl", [{"text": "?"}])
    assert said(Problems(plain).problems()) == f"{plain}:1: missing keys 'id', 'problem'; found ['text']"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"problem": "question"}, "columns: problem: 'question' is no field of Problems, which has ['id', 'problem', "),
        ({"a": "answer", "b": "answer"}, "columns: 'answer' is given by two columns"),
        ({"a": "meta."}, "columns: a: 'meta.' is no field of Problems"),
        ({"a": "scores.prm"}, "columns: a: 'scores.prm' is no field of Problems"),
    ],
)
def test_columns_are_checked_when_the_reader_is_made(columns, message):
    with pytest.raises(InputError) as caught:
        Problems("x", columns=columns)
    assert str(caught.value).startswith(message)
    if "question" in message:
        assert str(caught.value).endswith("; it is {their column: our field}, here {question: problem}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", "a,b\n1\n", "d.csv:2: expected 2 values, one per column, got 1"),
        ("d.csv", "", "d.csv: the file is empty"),
        ("d.csv", 'problem\n"a\n', "d.csv:2: not CSV: unexpected end of data"),
        ("d.parquet", "no", "d.parquet: not Parquet: "),
        ("d.json", "[1", "d.json: not JSON ("),
        ("d.json", "[1]", "d.json[0]: expected an object, got 1"),
        ("d.json", '[{"problem": 1}]', "d.json[0]: key 'problem': expected a string, got 1"),
        ("d.json", '[{"problem": "a"}, {"problem": " A "}]', f"d.json[1]: id 'problem/{digest('a')}' occurs twice"),
        ("d.csv.gz", "a", "d.csv.gz: not readable as .csv: "),
    ],
)
def test_broken_files_are_refused_with_their_place(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    assert said(Problems(str(tmp_path / name)).problems()).startswith(f"{tmp_path}/{message}")


def test_data_sets_of_the_hub(monkeypatch):
    """Through ``datasets``, which honours its offline cache; without it, one line."""
    import datasets

    calls = []

    def load(path, name, *, split, revision):
        calls.append((path, name, split, revision))
        return ROWS

    assert said(Problems("no-one/nothing", columns=COLUMNS).problems()).startswith(
        "no-one/nothing: no such file, and no such data set on the Hub: "
    )
    monkeypatch.setattr(datasets, "load_dataset", load)
    how = {"split": "test", "name": "main", "revision": "v1"}
    assert [p.answer for p in Problems("me/data", columns=COLUMNS, **how).problems()] == ["2", None]
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: calls.append((*a, *k.values())) or [TRL])
    assert len([*Stepwise("me/steps", **how).solutions()]) == 1
    assert calls == [("me/data", "main", "test", "v1"), ("me/steps", "main", "test", "v1")]


def test_rows_of_trl_are_recognised(tmp_path, capsys):
    """By the wrong reader, and by stages."""
    path = write(tmp_path, "jsonl", [TRL])
    hint = "; these are TRL's rows of the reader Stepwise: give class_path: Stepwise where a reader is asked for, or convert"
    assert hint in said(Solutions(path).solutions())
    assert said(Solutions(path, columns={"prompt": "problem"}).solutions()).endswith(
        "; these are rows of the reader Stepwise"
    )
    for arguments in (["score", "--verifiers", '{"prm": "x"}'], ["rank"]):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--input", path, "--output", str(tmp_path / "o")])
        assert stopped.value.code == 2
        told = capsys.readouterr().err
        assert hint in told or "x: not an exported verifier" in told
    main(
        [
            "convert",
            "--input.class_path",
            "Stepwise",
            "--input.init_args.path",
            path,
            "--output",
            str(tmp_path / "ours.jsonl"),
        ]
    )
    assert len([*read_records(tmp_path / "ours.jsonl", Solution)]) == 1


@pytest.mark.parametrize(
    ("row", "reader"),
    [
        (TRL, "Stepwise"), ({"input": "", "label": "", "task": ""}, "MathShepherd"), ({"conversations": []}, "RLHFlow"),
        ({"input": "", "value": []}, "OpenRLHF"), ({"question": "", "process": "", "label": []}, "OpenR"),
        ({"labeler": "", "question": {}, "label": {}}, "PRM800K"), ({"id": "", "problem": "", "steps": []}, None),
        ({"id": "", "problem": "", "steps": [], "label": -1}, "ProcessBench"), (["prompt"], None),
    ],
)  # fmt: skip
def test_formats_are_told_apart_by_their_keys(row, reader):
    assert name_reader(row) == reader
