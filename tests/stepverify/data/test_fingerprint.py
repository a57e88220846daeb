"""A table of encoded examples is found where nothing that they depend on has changed, and nowhere else."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from stepverify.data import fingerprint
from stepverify.data.encode import SolutionEncoder
from stepverify.data.fingerprint import DataKey, Unknown, describe, key_of, options_of
from stepverify.data.targets import StepTargets
from stepverify.readers import GSM8K, Problems, Solutions, StrictPRMBench, Synthetic
from stepverify.template import Template
from tests.helpers.cached import TEMPLATE, Elsewhere, Run, tables, write_graded


@pytest.fixture
def data(tmp_path):
    """A folder of solutions."""
    return write_graded(tmp_path / "data")


def _append(data: Path) -> None:
    with (data / "part-00000.jsonl").open("a") as file:
        file.write('{"id":"p/10#0","problem_id":"p/10","problem":"a","steps":["1"],"correct":true}\n')


def _replace_in_place(data: Path) -> None:
    """Same size, same times, same inode."""
    path = data / "part-00000.jsonl"
    before = path.stat()
    with path.open("r+b") as file:
        text = file.read().replace(b"0+1=1", b"0+1=2")
        file.seek(0)
        file.write(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)


CHANGES = {
    "nothing": (lambda data: None, {}, {}),
    "a line more": (_append, {}, {}),
    "a character of the file": (_replace_in_place, {}, {}),
    "an argument of the reader": (lambda data: None, {"correct_only": True}, {}),
    "data that the reader excludes": (lambda data: (data.parent / "excluded.jsonl").write_text('{"id":"1","problem":"a = 5"}\n'), {}, {}),
    "max_length": (lambda data: None, {}, {"max_length": 99}),
    "the template": (lambda data: None, {}, {"template": Template(prompt="Q{problem}A", step_separator="\n#")}),
    "an option of the module": (lambda data: None, {}, {"last_only": True}),
    "an option of no effect": (lambda data: None, {}, {"seen": 1}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_each_part_of_the_key(change, data, tmp_path, characters):
    """Whatever has changed is encoded anew; each way there is a table of its own, and the result is that of no cache."""
    excluded = tmp_path / "excluded.jsonl"
    excluded.write_text('{"id":"1","problem":"a = 6"}\n')
    edit, arguments, options = CHANGES[change]

    def reader(**known):
        return Solutions(str(data), exclude=[Problems(str(excluded))], **known)

    Run(characters, tmp_path / "c")(reader())
    edit(data)
    second = Run(characters, tmp_path / "c", **options)
    found, plain = second(reader(**arguments)), Run(characters, None, **options)(reader(**arguments))
    assert list(found) == list(plain)
    assert found.left_out == plain.left_out
    assert len(tables(tmp_path / "c")) == (1 if change == "nothing" else 2)
    assert (len(second.encoded) == 16) == (change == "nothing")


def test_another_tokenizer_another_library_other_code(data, characters, characters_bos, monkeypatch):
    def key(tokenizer=characters, max_length=9):
        return key_of(DataKey(Solutions(str(data)), "fit"), SolutionEncoder(tokenizer, TEMPLATE, max_length), {})

    before = key()
    assert key() == before
    assert key(characters_bos) != before
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint, "installed", lambda *names: {"tokenizers": "0"})
        assert key() != before
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint, "_code", lambda: "edited")
        assert key() != before
    added = characters._tokenizer.from_str(characters._tokenizer.to_str())
    added.add_tokens(["1+"])
    with monkeypatch.context() as patched:
        patched.setattr(characters, "_tokenizer", added)
        assert key() != before
    assert key() == before
    with pytest.raises(Unknown, match="is no tokenizer of transformers"):
        key_of(DataKey(Synthetic("train", 3), "fit"), SolutionEncoder(_Other(characters), TEMPLATE), {})


class _Other:
    """A tokenizer that cannot be seen through."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __call__(self, text):
        return self._inner(text)


def test_files_of_readers_are_read_and_other_readers_solutions(data, tmp_path):
    """A reader whose files are under another name than ``path``, or not here at all, is not taken for its arguments."""
    assert describe(Solutions(str(data))) != describe(Solutions(str(data), limit=3))
    assert describe(Synthetic("train", 3)) == describe(Synthetic("train", 3))
    used = Solutions(str(data), exclude=[Synthetic("train", 2)])
    before = describe(used)
    assert len(list(used.solutions())) == 40
    assert describe(used) == before, "what a reader remembers of its reading is no part of it"
    for unseen in (
        GSM8K("openai/gsm8k"), Elsewhere("a"), Solutions(str(data), exclude=[Elsewhere("a")]),
        StrictPRMBench(str(data), str(data)),
    ):  # fmt: skip
        with pytest.raises(Unknown):
            describe(unseen)
    assert DataKey(Elsewhere("a", "b"), "fit").value == DataKey(Elsewhere("a", "b"), "fit").value
    others = [Elsewhere("b", "a"), Elsewhere("ab"), Elsewhere("a"), Elsewhere("a", "b", left_out=1)]
    assert len({DataKey(reader, "fit").value for reader in [Elsewhere("a", "b"), *others]}) == 5


def test_a_reader_of_another_package(tmp_path, characters, caplog):
    reader = Elsewhere("a", "b")
    Run(characters, tmp_path / "c")(reader)
    again = Run(characters, tmp_path / "c")
    with caplog.at_level("INFO"):
        assert len(again(reader)) == 2
    assert f"read from {tmp_path / 'c'}" in caplog.text
    assert (len(again.encoded), reader.read) == (2, 3), "hashed, encoded, hashed; two compared"


def test_a_reader_that_never_gives_the_same(tmp_path, characters, warned):
    class Restless(Elsewhere):
        def solutions(self):
            self.names = (*self.names, f"a{len(self.names)}")
            yield from super().solutions()

    run = Run(characters, tmp_path / "c")
    store = run(Restless("a"))
    assert [e.record.id for e in store] == ["a#0", "a1#0", "a2#0", "a3#0"]
    assert "the data has changed while it was read; examples of fit are encoded into a temporary folder" in warned()
    assert tables(tmp_path / "c") == []


def test_modules_say_what_they_depend_on(base):
    """A subclass of another package is asked itself, or nothing is kept for it."""
    from stepverify.models import Backbone
    from stepverify.modules import GeneratorModule, OutcomeVerifier, ProcessRewardModel

    class Silent(ProcessRewardModel):
        pass

    class Own(ProcessRewardModel):
        def encoding_options(self):
            return {"mine": 1}

    backbone = Backbone(path=str(base), weights="random")
    read = [describe(options_of(module, True)) for module in (
        GeneratorModule(backbone), ProcessRewardModel(backbone),
        ProcessRewardModel(backbone, targets=StepTargets(neutral="negative")), Own(backbone),
        *(OutcomeVerifier(backbone, **known) for known in (
            {}, {"per_token": False}, {"target": "rollouts"}, {"label_smoothing": 0.1}, {"predict_every_token": True},
        )),
    )]  # fmt: skip
    assert len({str(options) for options in read}) == len(read)
    same = [{"calibrate": False}, {"loss": "bce"}, {"warmup": 0.5}, {"head": "linear"}]
    assert all(describe(options_of(OutcomeVerifier(backbone, **known), True)) == read[4] for known in same)
    assert describe(options_of(OutcomeVerifier(backbone), False)) != read[4]
    with pytest.raises(Unknown, match="Silent has no encoding_options of its own"):
        options_of(Silent(backbone), True)


def test_what_is_encoded_otherwise_is_not_taken(data, tmp_path, characters, warned):
    """An option that was forgotten in the key: found by encoding some solutions again."""
    Run(characters, tmp_path / "c")(Solutions(str(data)))
    other = Run(characters, tmp_path / "c")
    other.encode = lambda record: dataclasses.replace(other.encoder.outcome(record, None, last_only=True))
    store = other(Solutions(str(data)))
    assert {len(e.positions) for e in store} == {1}
    assert "solution p/0#0 is encoded otherwise now; it is encoded anew" in warned()
