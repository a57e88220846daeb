import gzip
import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepverify.decoding import decode, decode_record
from stepverify.jsonl import (
    MANIFEST,
    dump_line,
    fingerprint,
    parse_record,
    read_json_lines,
    read_records,
    shards,
    write_records,
)
from stepverify.records import InputError, Problem, Ranking, Solution, StepLabel

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
META = st.dictionaries(TEXT, JSON, max_size=3)
COUNTED = st.integers(1, 99).flatmap(
    lambda n: st.integers(0, n).map(lambda k: StepLabel(num_correct=k, num_rollouts=n)),
)
LABEL = st.none() | st.sampled_from([-1, 0, 1]).map(lambda r: StepLabel(rating=r)) | COUNTED


def optional(strategy):
    return st.none() | strategy


def values(num_steps):
    """Probabilities: none, one, one per step or more."""
    return st.sampled_from([0, 1, num_steps, num_steps + 2]).flatmap(
        lambda n: st.lists(st.floats(0, 1), min_size=n, max_size=n)
    )


PROBLEMS = st.builds(Problem, id=TEXT, problem=TEXT, answer=optional(TEXT), steps=st.lists(TEXT, max_size=3), meta=META)
SOLUTIONS = st.lists(TEXT, max_size=4).flatmap(
    lambda steps: st.builds(
        Solution,
        id=TEXT, problem_id=TEXT, problem=TEXT, steps=st.just(steps), answer=optional(TEXT),
        token_ids=optional(st.lists(st.integers(0), max_size=3)), finish=st.sampled_from([None, "stop", "length"]),
        seed=optional(st.integers()), generator=optional(TEXT), predicted=optional(TEXT),
        correct=optional(st.booleans()),
        step_labels=optional(st.lists(LABEL, min_size=len(steps), max_size=len(steps))),
        scores=st.dictionaries(TEXT, values(len(steps)), max_size=2), meta=META,
    )
)  # fmt: skip
RANKINGS = st.sets(st.integers(1, 2**31 - 1), min_size=1, max_size=3).flatmap(
    lambda sizes: st.builds(
        Ranking,
        problem_id=TEXT, num_samples=st.integers(0), sizes=st.just(sorted(sizes)),
        curves=st.dictionaries(TEXT, st.lists(st.floats(0, 1), min_size=len(sizes), max_size=len(sizes)), max_size=2),
        answer=optional(TEXT), choices=st.dictionaries(TEXT, optional(TEXT), max_size=2),
    )
)  # fmt: skip


def message(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    return str(caught.value)


def solution(**changes):
    return {"id": "p#0", "problem_id": "p", "problem": "?", "steps": ["x", "y"]} | changes


@given(PROBLEMS | SOLUTIONS | RANKINGS)
def test_every_record_comes_back_from_its_line(record):
    line = dump_line(record)
    assert line.count("\n") == 1
    assert parse_record(type(record), json.loads(line)) == record


@given(
    st.lists(SOLUTIONS.filter(lambda s: not s.scores), min_size=1, max_size=5, unique_by=lambda s: s.id),
    st.sampled_from(["x.jsonl", "x.jsonl.gz"]),
)
@settings(max_examples=40)
def test_every_file_gives_back_what_was_written(records, name):
    """Whatever is in the texts: line separators of Unicode, quotes, zero characters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if name.endswith("gz"):
            path.write_bytes(gzip.compress("".join(map(dump_line, records)).encode()))
        else:
            assert write_records(path, records) == len(records)
        assert list(read_records(path, Solution)) == records


@given(SOLUTIONS, st.data())
@settings(max_examples=300, deadline=None)
def test_a_line_is_decoded_as_its_keys_are_checked_one_by_one(record, data):
    """Whatever stands at a key, the fast way takes no line that the other one refuses, and gives the same record."""
    changed = json.loads(dump_line(record))
    number = st.floats() | st.integers(-(2**70), 2**70) | st.sampled_from([10**400, -0.0, 1e308, 5e-324])
    anything = JSON | number | st.lists(number | TEXT, max_size=2) | st.dictionaries(TEXT, st.lists(number, max_size=2))
    changed[data.draw(st.sampled_from([*changed, "scores", "step_labels", "seed", "other"]))] = data.draw(anything)
    line = json.dumps(changed, ensure_ascii=data.draw(st.booleans()))
    try:
        expected, refused = parse_record(Solution, decode(line)), ""
    except ValueError as error:
        expected, refused = None, str(error)
    try:
        found, said = decode_record(Solution, line.encode()), ""
    except ValueError as error:
        found, said = None, str(error)
    assert said == refused
    assert repr(found) == repr(expected)


def test_of_a_key_that_occurs_twice_the_last_one_counts():
    line = '{"id":"p","problem":"?","answer":"1","answer":"2","meta":{"x":1,"x":2}}'
    assert decode_record(Problem, line.encode()) == Problem(id="p", problem="?", answer="2", meta={"x": 2})


def test_fields_at_their_default_are_left_out():
    """Required fields stay even when they are empty, and an empty list is not None."""
    assert dump_line(Problem(id="p", problem="?")) == '{"id":"p","problem":"?"}\n'
    assert dump_line(Problem(id="p", problem="é", steps=["1"])) == '{"id":"p","problem":"é","steps":["1"]}\n'
    empty = Solution(id="p#0", problem_id="p", problem="?", steps=[])
    assert dump_line(empty) == '{"id":"p#0","problem_id":"p","problem":"?","steps":[]}\n'
    sampled = Solution(id="p#0", problem_id="p", problem="?", steps=[], token_ids=[], correct=False, seed=0)
    assert json.loads(dump_line(sampled)).keys() == {
        "id", "problem_id", "problem", "steps", "token_ids", "correct", "seed",
    }  # fmt: skip
    labelled = Solution(**solution(step_labels=[None, StepLabel(rating=0)]))
    assert json.loads(dump_line(labelled))["step_labels"] == [None, {"rating": 0}]
    assert dump_line(Ranking(problem_id="p", num_samples=0, sizes=[1], curves={})) == (
        '{"problem_id":"p","num_samples":0,"sizes":[1],"curves":{}}\n'
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_never_written(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_line(Solution(**solution(meta={"x": [0.5, value]})))


def test_a_solution_of_a_problem_takes_what_the_problem_knows(make_problem):
    of = Solution.of(make_problem(7, answer="5", meta={"level": 2}), 3, ["x"], finish="stop")
    assert of == Solution(
        id="p/7#3", problem_id="p/7", problem="a = 7", answer="5", steps=["x"], finish="stop", meta={"level": 2}
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stepz": []}, "unknown key 'stepz'; a Solution has ['answer', 'correct', "),
        ({"id": 3}, "key 'id': expected a string, got 3"),
        ({"steps": "x"}, "key 'steps': expected a list, got \"x\""),
        ({"steps": ["x", None]}, "key 'steps[1]': expected a string, got null"),
        ({"token_ids": [1, 2.0]}, "key 'token_ids[1]': expected an integer, got 2.0"),
        ({"token_ids": [True]}, "key 'token_ids[0]': expected an integer, got true"),
        ({"seed": False}, "key 'seed': expected an integer, got false"),
        ({"correct": 1}, "key 'correct': expected true or false, got 1"),
        ({"scores": []}, "key 'scores': expected an object, got []"),
        ({"scores": None}, "key 'scores': expected an object, got null"),
        ({"scores": {"orm": [0.5, "1"]}}, "key 'scores.orm[1]': expected a number, got \"1\""),
        ({"scores": {"orm": [True]}}, "key 'scores.orm[0]': expected a number, got true"),
        ({"scores": {"orm": [math.nan]}}, "key 'scores.orm[0]': expected a finite number, got NaN"),
        ({"scores": {"orm": [0, -math.inf]}}, "key 'scores.orm[1]': expected a finite number, got -Infinity"),
        ({"scores": {"orm": [10**400]}}, "key 'scores.orm[0]': expected a finite number, got 1000"),
        ({"meta": 0}, "key 'meta': expected an object, got 0"),
        ({"step_labels": [None, 1]}, "key 'step_labels[1]': expected an object, got 1"),
        ({"step_labels": [None, {"rating": "1"}]}, "key 'step_labels[1].rating': expected an integer, got \"1\""),
        ({"step_labels": [{"rating": True}, None]}, "key 'step_labels[0].rating': expected an integer, got true"),
        ({"step_labels": [None, {"grade": 1}]}, "unknown key 'step_labels[1].grade'; a StepLabel has ['num_correct', "),
        ({"step_labels": [None, {"rating": 2}]}, "rating: expected -1, 0 or 1, got 2"),
        (
            {"step_labels": [None, {}]},
            "a step label is a rating, or num_correct and num_rollouts, or a value, not StepLabel(",
        ),
        (
            {"step_labels": [None, {"rating": 1, "value": 0.5}]},
            "a step label is a rating, or num_correct and num_rollouts, or",
        ),
        ({"step_labels": [None, {"value": 1.5}]}, "value: expected 0 to 1, got 1.5"),
        ({"step_labels": [None]}, "step_labels: expected one for each of 2 steps, got 1"),
        ({"finish": "eos"}, "finish: expected 'stop' or 'length', got 'eos'"),
        (
            {"scores": {"prm": [0.5, 1.5]}},
            "key 'scores.prm[1]': expected a probability from 0 to 1, got 1.5; logits are",
        ),
        (
            {"scores": {"prm": [-2, 0.5]}},
            "key 'scores.prm[0]': expected a probability from 0 to 1, got -2.0; logits are",
        ),
        (
            {"scores": {"prm": [0.5, 0.5]}, "steps": ["x", "y", "z"]},
            "key 'scores.prm': expected one value per step (3), one per token, or the final one only, got 2",
        ),
        (
            {"scores": {"orm": [0.5, 0.5, 1]}, "token_texts": {"orm": ["x", "y"]}},
            "key 'token_texts.orm': expected 3 texts, one per value, got 2",
        ),
    ],
)
def test_what_is_incorrect_is_named_with_key_and_value(changes, expected):
    assert message(parse_record, Solution, solution(**changes)).startswith(expected)


def test_a_missing_key_is_named_with_what_was_found():
    assert message(parse_record, Problem, {"id": "p", "answer": "1"}) == (
        "missing key 'problem'; found ['answer', 'id']"
    )
    assert message(parse_record, Problem, [1]) == "key '': expected an object, got [1]"


def test_a_long_value_is_cut_in_the_message():
    """The string of 200 is shown as a quote and 79 of its characters."""
    assert message(parse_record, Problem, {"id": 3, "problem": "?"}).endswith("got 3")
    assert message(parse_record, Solution, solution(scores="x" * 200)).endswith('got "' + "x" * 79 + "…")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, "a rating, or num_correct and num_rollouts"),
        ({"rating": 1, "num_correct": 1, "num_rollouts": 2}, "a rating, or num_correct and num_rollouts"),
        ({"rating": 1, "num_correct": 1}, "a rating, or num_correct and num_rollouts"),
        ({"num_rollouts": 4}, "a rating, or num_correct and num_rollouts"),
        ({"rating": -2}, "rating: expected -1, 0 or 1, got -2"),
        ({"num_correct": 5, "num_rollouts": 4}, "num_correct: expected 0 to num_rollouts, got 5 of 4"),
        ({"num_correct": -1, "num_rollouts": 4}, "num_correct: expected 0 to num_rollouts, got -1 of 4"),
        ({"num_correct": 0, "num_rollouts": 0}, "num_correct: expected 0 to num_rollouts, got 0 of 0"),
    ],
)
def test_a_step_label_is_one_thing_or_the_other(known, expected):
    with pytest.raises(InputError, match=expected):
        StepLabel(**known)


# ── files ─────────────────────────────────────────────────────────────────────────────────────────


def test_errors_begin_with_file_and_line(tmp_path):
    """Empty lines are passed over but counted: the bad line is the fourth."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"id":"a","problem":"?"}\n\n  \n{"id":"b"}\n')
    assert message(list, read_records(path, Problem)) == f"{path}:4: missing key 'problem'; found ['id']"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a", }', "Illegal trailing comma before end of object at column 11|double quotes at column 13"),
        ('{"id": "a"} {}', "Extra data at column 13"),
        ("[" * 100_000, "lists and objects in more than 100 levels"),
        ("1" * 5000, "4300 digits"),
    ],
)
def test_a_line_that_is_not_json_is_shown(tmp_path, line, said):
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"id":"a","problem":"?"}}\n{line}\n')
    with pytest.raises(InputError, match=rf":2: not JSON \(.*({said})") as caught:
        list(read_json_lines(path))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert str(caught.value).endswith(f": {line[:80]}")


def test_nothing_to_read_is_an_error(tmp_path):
    blank, folder = tmp_path / "blank.jsonl", tmp_path / "folder"
    blank.write_text("\n \n")
    folder.mkdir()
    (folder / "readme.txt").write_text("{}\n")
    gone = tmp_path / "gone.jsonl"
    assert message(list, read_json_lines(blank)) == f"{blank}: the file is empty"
    assert message(list, read_records(gone, Problem)) == f"{gone}: no such file or folder"
    assert message(list, read_json_lines(gone)) == f"{gone}: No such file or directory"
    assert message(shards, folder) == f"{folder}: holds no .jsonl or .jsonl.gz file"
    (tmp_path / "x.jsonl").mkdir()
    assert message(list, read_records(tmp_path / "x.jsonl", Problem)).endswith("holds no .jsonl or .jsonl.gz file")
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b'{"id": "\xe9"}\n')
    assert message(list, read_json_lines(latin)).startswith(f"{latin}: not readable as UTF-8 JSON Lines: ")


def test_a_folder_is_read_in_the_order_of_its_shards(tmp_path):
    (tmp_path / "part-00001.jsonl").write_text('{"id":"b","problem":"?"}\n')
    (tmp_path / "part-00000.jsonl.gz").write_bytes(gzip.compress(b'{"id":"a","problem":"?"}\n'))
    (tmp_path / ".part-00002.jsonl.draft").write_text('{"id":"c","problem":"?"}\n')
    assert [p.id for p in read_records(tmp_path, Problem)] == ["a", "b"]


@given(st.data())
def test_a_broken_gzip_file_never_passes_for_a_whole_one(data):
    """Cut off anywhere, or with any byte changed: an error, or (in the file's date, say) all records."""
    records = [Problem(id=f"p/{i}", problem="how many?") for i in range(5)]
    whole = gzip.compress("".join(map(dump_line, records)).encode(), mtime=0)
    if data.draw(st.booleans()):
        broken = whole[: data.draw(st.integers(1, len(whole) - 1))]
        passable = False
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        broken = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
        passable = at < 10  # the header
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.jsonl.gz"
        path.write_bytes(broken)
        try:
            read, refused = list(read_records(path, Problem)), ""
        except InputError as error:
            read, refused = [], str(error)
        assert (passable and read == records) or refused.startswith(str(path))


def test_the_folder_of_a_stage_that_did_not_finish_is_refused(tmp_path):
    (tmp_path / "part-00000.jsonl").write_text('{"id":"a","problem":"?"}\n')
    manifest = tmp_path / MANIFEST
    manifest.write_text('{"finished": false}')
    assert message(list, read_records(tmp_path, Problem)).startswith(f"{tmp_path}: this stage has not finished")
    for accepted in ('{"finished": true}', "{}", "[]"):
        manifest.write_text(accepted)
        assert [p.id for p in read_records(tmp_path, Problem)] == ["a"]
    manifest.write_text("{")
    assert message(shards, tmp_path).startswith(f"{manifest}: not JSON (")


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, make_problem):
    path = tmp_path / "new" / "p.jsonl"

    def broken():
        yield make_problem(1)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_records(path, broken())
    assert list(tmp_path.iterdir()) == []
    assert write_records(path, [make_problem(0)]) == 1
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="no more"):
        write_records(path, broken())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_fingerprint_is_of_the_content(tmp_path, make_problem):
    one, two = tmp_path / "one.jsonl", tmp_path / "folder" / "two.jsonl"
    write_records(one, [make_problem(0), make_problem(1)])
    write_records(two, [make_problem(0), make_problem(1)])
    same = fingerprint(one)
    assert same == fingerprint(two) == fingerprint(two.parent)
    assert len(same) == 64
    write_records(two, [make_problem(0), make_problem(2)])
    assert fingerprint(two) != same
    write_records(two, [make_problem(1), make_problem(0)])
    assert fingerprint(two) != same
    assert "no such file" in message(fingerprint, tmp_path / "gone")
