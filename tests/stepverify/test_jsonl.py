"""Files of records: what is read, what is refused with file and line, and that writing is all or nothing."""

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepverify.jsonl import (
    MANIFEST,
    dump_line,
    fingerprint,
    read_json_lines,
    read_records,
    shards,
    write_records,
)
from stepverify.records import InputError, Problem, Solution
from tests.helpers.records import SOLUTIONS, message


@given(
    st.lists(SOLUTIONS.filter(lambda s: not s.scores), min_size=1, max_size=5, unique_by=lambda s: s.id),
    st.sampled_from(["x.jsonl", "x.jsonl.gz"]),
)
@settings(max_examples=15)  # of single records test_records.py has more
def test_every_file_gives_back_what_was_written(records, name):
    """Whatever is in the texts: line separators of Unicode, quotes, zero characters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if name.endswith("gz"):
            path.write_bytes(gzip.compress("".join(map(dump_line, records)).encode()))
        else:
            assert write_records(path, records) == len(records)
        assert list(read_records(path, Solution)) == records


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
