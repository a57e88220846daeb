"""Text from outside: what no reader accepts, and how each says so."""

import gzip
import json
import math
import os
from pathlib import Path

import pytest

from sampling.__main__ import main
from sampling.runtime.store import read_summary
from sampling.runtime.trained import trained_on
from stepverify.decoding import MAX_DEPTH, decode, decode_record, read_json
from stepverify.faults import check_arguments, printable
from stepverify.jsonl import (
    check_output,
    fingerprint,
    read_json_lines,
    read_records,
    write_lines,
    write_records,
)
from stepverify.manifest import read_manifest
from stepverify.readers import MATH, Problems, Stepwise
from stepverify.records import InputError, Judgement, Problem, Ranking, Rollout
from stepverify.template import load_export
from stepverify.variables import load_yaml

DEEP = "[" * 500 + "]" * 500
HOSTILE = {
    "half pair": ('"\\ud800"', r"key 'meta.m': half a surrogate pair, which is no character, in '\\ud800'"),
    "half pair within": ('{"a": ["x", "b\\udc00"]}', r"key 'meta.m.a\[1\]': half a surrogate pair, .* 'b\\udc00'"),
    "half pair as key": ('{"\\ud800": 1}', r"key '\\ud800': half a surrogate pair"),
    "too large": ("1e999", "key 'meta.m': expected a finite number, got Infinity"),
    "digits": ("-" + "1" * 400 + ".5", "key 'meta.m': expected a finite number, got -Infinity"),
    "NaN": ("[0, NaN]", r"key 'meta.m\[1\]': expected a finite number, got NaN"),
    "101 levels": ("[" * 99 + "]" * 99, r"key 'meta.m[\[0\]]*': lists and objects in more than 100 levels"),
    "500 levels": (DEEP, r"key 'meta.m[\[0\]]*': lists and objects in more than 100 levels"),
    "50,000 levels": ("[" * 50_000 + "]" * 50_000, r"not JSON \(lists and objects in more than 100 levels\): "),
    "4,301 digits": ("9" * 4301, r"not JSON \(Exceeds the limit \(4300 digits\) for integer string conversion.*: "),
    "a byte 0": ('"\0"', r"not JSON \(Invalid control character at.*"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_value_that_no_file_could_hold_again(tmp_path, name):
    """In a record, and in a row of another format; the second line of each file."""
    token, said = HOSTILE[name]
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"id":"a","problem":"?"}}\n{{"id":"b","problem":"?","meta":{{"m":{token}}}}}\n')
    for read in (lambda: list(read_records(path, Problem)), lambda: list(read_json_lines(path))):
        with pytest.raises(InputError, match=rf"^{path}:2: {said}"):
            read()


def test_what_is_allowed_stays():
    """Whole surrogate pairs, 97 levels within meta and an object, NaN in a text, integers of 400 digits."""
    text = json.dumps({"id": "😀", "problem": "NaN", "meta": {"m": 10**400, "d": json.loads("[" * 97 + "]" * 97)}})
    assert "\\ud83d\\ude00" in text
    assert decode(text) == json.loads(text)
    assert decode_record(Problem, text.encode()).id == "😀"
    assert MAX_DEPTH == 100


def test_binary_bytes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":"a","problem":"\xff"}\n')
    with pytest.raises(InputError, match=rf"^{path}: not readable as UTF-8 JSON Lines: .*0xff"):
        list(read_records(path, Problem))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not JSON (Expecting property name"), (b"\xff", "not a text in UTF-8: "),
        (b'{"a": 1e999}', "key 'a': expected a finite number, got Infinity"),
        (DEEP.encode(), "lists and objects in more than 100 levels"),
    ],
)  # fmt: skip
def test_documents_are_read_alike(tmp_path, content, said):
    """Manifests, an export's facts, an array of rows and a configuration: one line with the file."""
    for name, read in (
        ("manifest.json", read_manifest), ("manifest.json", read_json), ("stepverify.json", lambda path: load_export(path.parent)),
        ("rows.json", lambda path: list(Stepwise(str(path)).solutions())), ("config.yaml", load_yaml),
        ("manifest.json", lambda path: fingerprint(path.parent)),
    ):  # fmt: skip
        path = tmp_path / name
        path.write_bytes(content)
        if name == "config.yaml" and b"1e999" in content:
            continue  # YAML has such numbers
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}")
        if name == "manifest.json":
            assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"stage": 1}, r"Expected `str`, got `int` - at `\$.stage`"),
        ({"inputs": {"input": 1}}, r"Expected `object`, got `int` - at `\$.inputs\[...\]`"),
        ({"finished": "yes"}, "finished"), ({"summary": []}, "summary"), ({"config": None}, "config"),
    ],
)  # fmt: skip
def test_a_manifest_of_other_types(tmp_path, changed, said):
    path = tmp_path / "manifest.json"
    known = {"stage": "rank", "config": {}, "inputs": {}, "finished": True, "summary": {}}
    path.write_text(json.dumps(known))
    assert read_manifest(path) == known
    path.write_text(json.dumps(known | changed))
    with pytest.raises(InputError, match=rf"^{path}: not a manifest of this project: .*{said}"):
        read_manifest(path)


def test_counts_and_summaries_of_other_types(tmp_path):
    path = tmp_path / "manifest.json"
    known = {"stage": "rank", "config": {}, "inputs": {}, "finished": True, "summary": {"trained_on": {"a": {"of": 1}}}}
    write_records(tmp_path / "part-00000.jsonl", [Problem(id="a", problem="?")])
    for bad in ([], {"count": "1"}, {"sha256": 1}, 3):
        path.write_text(json.dumps(known | {"records": bad}))
        with pytest.raises(InputError, match=rf"^{path}: key 'records': expected count and sha256, got "):
            list(read_records(tmp_path, Problem))
    assert trained_on(tmp_path) == {}
    with pytest.raises(InputError, match=rf"^{path}: key 'summary': Expected `array`, got `object` - at `\$"):
        read_summary(tmp_path, dict[str, list[str]])


@pytest.mark.parametrize(
    ("kind", "record", "said"),
    [
        (Ranking, {"problem_id": "p", "num_samples": 1, "sizes": [2, 1], "curves": {}}, "sizes: expected ascending"),
        (Ranking, {"problem_id": "p", "num_samples": 1, "sizes": [2**64], "curves": {}}, "sizes: expected ascending"),
        (Ranking, {"problem_id": "p", "num_samples": 1, "sizes": [1], "curves": {"a": [2.0]}}, "key 'curves.a': expected numbers from 0 to 1, got 2.0"),
        (Ranking, {"problem_id": "p", "num_samples": 1, "sizes": [1], "curves": {"a": []}}, "key 'curves.a': expected 1 values, one per size, got 0"),
        (Rollout, {"finish": []}, "key 'finish': expected 1 values, one per completion, got 0"),
        (Rollout, {"finish": ["eos"]}, r"key 'finish\[0\]': expected 'stop' or 'length', got 'eos'"),
        (Rollout, {"timed_out": [1]}, r"key 'timed_out': expected indices of completions, got \[1\]"),
        (Judgement, {"verdicts": [1, 2]}, "key 'verdicts': expected 1 values, one per text, got 2"),
    ],
)  # fmt: skip
def test_lists_of_a_record_belong_together(tmp_path, kind, record, said):
    known = {
        Ranking: {},
        Rollout: {"id": "a", "problem_id": "p", "steps": [], "seed": 1, "completions": ["x"], "finish": ["stop"], "answers": [None], "correct": [False], "tokens": 1},
        Judgement: {"id": "a", "labelled": 0, "seed": 1, "texts": ["x"], "finish": ["stop"], "verdicts": [0], "tokens": 1},
    }[kind]  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(known | record) + "\n")
    with pytest.raises(InputError, match=rf"^{path}:1: {said}"):
        list(read_records(path, kind))


def test_yaml_that_multiplies_or_never_ends(tmp_path):
    path = tmp_path / "vars.yaml"
    laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(8)
    )
    for text, said in (
        (laughs, "more than 100,000 values"), ("a: &a [*a]", "lists and objects in more than 100 levels"),
        ("a: [0x" + "f" * 5000, "no valid YAML: "), ("a: " + "9" * 4301, "no valid YAML: Exceeds the limit"),
        ('a: "\\ud800"', "invalid Unicode character escape"), ("a: 0x" + "f" * 5000, "key 'a': an integer of more than 4,300 digits"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(InputError, match=rf"^{path}.*: .*{said}"):
            load_yaml(path)
    path.write_text("a: .inf")
    assert load_yaml(path) == {"a": math.inf}


def test_arguments_that_are_no_text(capsys):
    with pytest.raises(InputError, match=r"^argument 2: not UTF-8: 'b\\udcff'"):
        check_arguments(["a", "b\udcff"])
    with pytest.raises(SystemExit) as end:
        main(["rank", "--output", "\udcff"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "sampling rank: argument 3: not UTF-8: '\\udcff'\n"
    check_arguments(["ünïcode 😀\t"])
    assert printable("a\x1b[31m\u2028\ud800é") == "a\\x1b[31m\\u2028\\ud800é"


def test_the_reader_that_found_nothing_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    write_records(path, [Problem(id="a", problem="?")])
    from sampling.runtime.inputs import read_problems

    with pytest.raises(InputError, match=rf"^Problems of {path}: no problem was read; check its file and its start"):
        read_problems(Problems(str(path), start=1))
    path.write_text('{"problem": "?", "solution": "\\\\boxed{1}", "unique_id": "x"}\n' * 2)
    with pytest.raises(InputError, match=rf"^MATH of {path}: problem id 'math/x' occurs twice"):
        read_problems(MATH(str(path)))


# ── outputs ───────────────────────────────────────────────────────────────────────────────────────


def test_outputs_that_are_something_else(tmp_path):
    out = tmp_path / "out"
    for make, said in (
        (out.mkdir, "a folder, where a file is to be written"), (lambda: out.symlink_to("nowhere"), "a link; give the path"),
        (lambda: os.mkfifo(out), "neither a file nor a folder"), (lambda: out.write_text("thesis"), "a file that is no JSON Lines"),
        (lambda: out.write_text("[1]"), "a file that is no JSON Lines"),
    ):  # fmt: skip
        make()
        with pytest.raises(InputError, match=rf"^{out}: .*{said}"):
            check_output(out)
        out.rmdir() if out.is_dir() else out.unlink()
    for content in (b"", b"\n", b'\xef\xbb\xbf{"id": 1}\n', gzip.compress(b"{}")):
        out.write_bytes(content)
        check_output(out)


def test_a_name_that_says_compressed_is(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    for _ in range(2):
        write_lines(path, ['{"a": "é"}\n'])
        assert gzip.decompress(path.read_bytes()).decode() == '{"a": "é"}\n'
    assert [data for _, data in read_json_lines(path)] == [{"a": "é"}]
    assert [p.name for p in Path(tmp_path).iterdir()] == [path.name]
