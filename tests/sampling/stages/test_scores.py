"""Scores and ids that come from elsewhere: what contradicts itself is refused by every stage, with file, line and key."""

import gzip
import json

import pytest

from sampling.__main__ import main
from sampling.report.collect import collect
from sampling.stages.convert import convert
from sampling.stages.rank import rank
from stepverify.jsonl import read_json_lines, read_records, write_records
from stepverify.readers import GSM8K, Solutions
from stepverify.records import InputError, Problem, Solution
from stepverify.template import Template


def row(number=0, sample=0, values=(0.5, 0.25), steps=("a", "b"), **known):
    known = {"answer": "1", "predicted": "1", "correct": True, "scores": {"prm": list(values)}} | known
    ids = {"id": f"p{number}#{sample}", "problem_id": f"p{number}", "problem": f"{number}?"}
    return ids | {"steps": list(steps)} | known


def written(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def said(capsys, *args):
    """The one line with which a program ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    return line


BAD = {
    "range": ({"values": (0.5, 3.2)}, "key 'scores.prm[1]': expected a probability from 0 to 1, got 3.2; logits are"),
    "nan": ({"values": (0.5, float("nan"))}, "key 'scores.prm[1]': expected a finite number, got NaN"),
    "inf": ({"values": (float("-inf"), 0.5)}, "key 'scores.prm[0]': expected a finite number, got -Infinity"),
    "few": (
        {"steps": "abc"},
        "key 'scores.prm': expected one value per step (3), one per token, or the final one only",
    ),
    "twice": ({"number": 0}, "id 'p0#0' occurs in {path}:1 already"),
}
STAGES = {
    "rank": (),
    "report": ("--scores",),
    "select": ("--total", 1),
    "label": (),
    "convert": (),
    "score": ("--verifiers", '{"v": "export"}'),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_refuses_it_before_it_begins(tmp_path, capsys, stage, bad):
    """Line 2 is the bad one. Nothing is left after but, for `score`, a folder to go on in."""
    changed, expected = BAD[bad]
    path = written(tmp_path / "s.jsonl", row(), row(**{"number": 1} | changed), row(2))
    args = ["--input", path, *STAGES[stage]] if stage != "report" else ["--scores", path]
    if stage == "score":
        (tmp_path / "export").mkdir()
        (tmp_path / "export" / "model.safetensors").write_bytes(b"")
        Template().save(tmp_path / "export", objective="process")
        args[-1] = json.dumps({"v": str(tmp_path / "export")})
    line = said(capsys, stage, *args, "--output", tmp_path / "out")
    assert line.startswith(f"sampling {stage}: {path}:2: " + expected.format(path=path))
    assert stage == "score" or not (tmp_path / "out").exists()


def test_reading_for_fit_refuses_it_too(tmp_path):
    path = written(tmp_path / "s.jsonl", row(), row(1, values=[0.5, 7]))
    with pytest.raises(InputError, match=r"s.jsonl:2: key 'scores.prm\[1\]': .* got 7.0; logits"):
        list(Solutions(str(path)).solutions())


@pytest.mark.parametrize("read", [lambda path: read_records(path, Solution), collect])
def test_one_odd_record_does_not_switch_a_verifier(tmp_path, read):
    """Five values for two steps among values of steps: named, wherever it stands. One step and one value says nothing."""
    rows = [row(0, i) for i in range(6)] + [row(1, values=[0.5], steps=["a"]), row(2, values=[])]
    list(read_records(written(tmp_path / "good.jsonl", *rows), Solution))
    for place in (0, 3):
        odd = row(9, values=[0.1] * 5)
        path = written(tmp_path / f"{place}.jsonl", *rows[:place], odd, *rows[place:])
        with pytest.raises(InputError) as caught:
            list(read(path))
        assert str(caught.value) == (
            f"{path}:{place + 1}: solution p9#0: key 'scores.prm': 5 values for 2 steps (one per token; 1 of 7 solutions), "
            "but one per step in 6; a verifier's values must be of one kind, score the deviating ones again or remove them"
        )


def test_one_value_alone_among_values_of_steps(tmp_path):
    path = written(tmp_path / "s.jsonl", row(0, 0), row(0, 1, values=[0.5]), row(0, 2))
    with pytest.raises(InputError, match=r":2: solution p0#1: .*1 values for 2 steps \(the final one only; 1 of 3"):
        rank(path, tmp_path / "out")


def test_values_of_tokens_that_are_as_many_as_steps(tmp_path):
    """A solution that was cut off after two steps of a token each: its texts tell that the values are of tokens."""
    rows = [row(0, values=[0.5] * 5), row(1, values=[0.5] * 2)]
    with pytest.raises(
        InputError, match=r"2 values for 2 steps \(one per step; 1 of 2 solutions\), but one per token in 1;"
    ):
        list(read_records(written(tmp_path / "s.jsonl", *rows), Solution))
    rows = [r | {"token_texts": {"prm": ["x"] * len(r["scores"]["prm"])}} for r in rows]
    assert len(list(read_records(written(tmp_path / "s.jsonl", *rows), Solution))) == 2


# ── logits ────────────────────────────────────────────────────────────────────────────────────────


def test_logits_are_turned_into_probabilities(tmp_path, capsys):
    """sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4; large ones do not overflow. Others stay."""
    ln3 = 1.0986122886681098
    rows = [row(0, 0, values=[0, ln3]), row(0, 1, values=[-ln3, -1000]), row(0, 2, values=[])]
    rows = [r | {"scores": r["scores"] | {"orm": [0.125]}} for r in rows]
    path = written(tmp_path / "s.jsonl", *rows)
    main(["convert", "--input", str(path), "--output", str(tmp_path / "p.jsonl"), "--logits", '["prm"]'])
    found = [s.scores for s in read_records(tmp_path / "p.jsonl", Solution)]
    assert found[0] == {"prm": pytest.approx([0.5, 0.75]), "orm": [0.125]}
    assert found[1] == {"prm": pytest.approx([0.25, 0.0]), "orm": [0.125]}
    assert found[2] == {"prm": [], "orm": [0.125]}
    assert f"noted: 2 solutions whose scores by prm were logits ({path}:1)" in capsys.readouterr().out


def test_probabilities_that_are_called_logits_are_said(tmp_path, capsys):
    path = written(tmp_path / "s.jsonl", row())
    convert(path, tmp_path / "p.jsonl", logits=["prm"])
    assert "all scores by prm were from 0 to 1 already: no logits?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "logits", "expected"),
    [
        ({}, ["orm"], ":1: logits: no scores by 'orm'; found ['prm']"),
        ({"values": ["x"]}, ["prm"], ":1: key 'scores.prm[0]': expected a finite number, got 'x'"),
        ({"scores": {"prm": 3}}, ["prm"], ":1: key 'scores.prm': expected a list, got 3"),
        ({"scores": []}, ["prm"], ":1: key 'scores': expected an object, got []"),
    ],
)
def test_what_is_no_logit_is_named(tmp_path, changed, logits, expected):
    path = written(tmp_path / "s.jsonl", row(**changed))
    with pytest.raises(InputError) as caught:
        list(Solutions(str(path), logits=logits).solutions())
    assert str(caught.value) == f"{path}{expected}"


def test_logits_of_a_reader_are_its_own_option(tmp_path):
    path = written(tmp_path / "s.jsonl", row())
    with pytest.raises(InputError, match="logits: input is a reader; set its own logits option"):
        convert(Solutions(str(path)), tmp_path / "p.jsonl", logits=["prm"])


# ── byte order marks ──────────────────────────────────────────────────────────────────────────────

BOM = "\ufeff"


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz"])
def test_a_byte_order_mark_is_passed_over(tmp_path, name):
    """At the beginning, and where two files were joined."""
    lines = [BOM + json.dumps(row()) + "\n", json.dumps(row(1)) + "\n", BOM + json.dumps(row(2)) + "\n"]
    text = "".join(lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert [s.id for s in read_records(tmp_path / name, Solution)] == ["p0#0", "p1#0", "p2#0"]
    assert [s.id for s in read_records(tmp_path / name, Solution)] == ["p0#0", "p1#0", "p2#0"]


def test_readers_and_manifests_with_a_byte_order_mark(tmp_path):
    gsm8k = tmp_path / "g.jsonl"
    gsm8k.write_text(BOM + json.dumps({"question": "?", "answer": "1 + 1 = 2\n#### 2"}) + "\n")
    assert [p.answer for p in GSM8K(str(gsm8k)).problems()] == ["2"]
    write_records(tmp_path / "f" / "part-00000.jsonl", [Problem(id="p", problem="?")])
    (tmp_path / "f" / "manifest.json").write_text(BOM + '{"finished": false}')
    with pytest.raises(InputError, match="this stage has not finished"):
        list(read_records(tmp_path / "f", Problem))


def test_a_blank_file_with_a_byte_order_mark_is_empty(tmp_path):
    (tmp_path / "s.jsonl").write_text(BOM + "\n")
    with pytest.raises(InputError, match="the file is empty"):
        list(read_json_lines(tmp_path / "s.jsonl"))
