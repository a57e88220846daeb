"""What a store refuses, and what is left in its folder where a stage fails or is killed."""

import json
import os

import pytest

from sampling.runtime.store import read_summary
from stepverify.jsonl import MANIFEST, dump_line, write_records
from stepverify.manifest import write_manifest
from stepverify.records import InputError
from tests.helpers.folders import RECORDS, begun, ended, entered, opened, refusal


@pytest.mark.parametrize(
    ("known", "difference"),
    [
        ({"stage": "label"}, "stage = 'generate', now it is 'label'"),
        ({"config": {"seed": 1, "sampling": {"temperature": 0.7}}}, "config.seed = 0, now it is 1"),
        (
            {"config": {"seed": 0, "sampling": {"temperature": 1.0}}},
            "config.sampling.temperature = 0.7, now it is 1.0",
        ),
        ({"config": {"seed": 0}}, "config.sampling.temperature = 0.7, now it is None"),
        ({"config": {"seed": 0, "sampling": {"temperature": 0.7}, "top_k": 5}}, "config.top_k = None, now it is 5"),
    ],
)
def test_another_configuration_is_refused_by_its_key(tmp_path, known, difference):
    same = {"stage": "generate", "config": {"seed": 0, "sampling": {"temperature": 0.7}}}
    begun(tmp_path / "out", **same)
    assert entered(tmp_path / "out", **same).done == {"p/0"}
    assert refusal(tmp_path / "out", **same | known) == (
        f"{tmp_path / 'out'}: was made with {difference}; choose another output folder, or remove this one"
    )


def test_an_input_may_move_but_not_change(tmp_path):
    write_records(tmp_path / "a" / "p.jsonl", RECORDS[:2])
    begun(tmp_path / "out", inputs={"problems": tmp_path / "a"})
    (tmp_path / "a").rename(tmp_path / "b")
    assert entered(tmp_path / "out", inputs={"problems": tmp_path / "b" / "p.jsonl"}).done == {"p/0"}
    write_records(tmp_path / "b" / "p.jsonl", RECORDS[:3])
    said = refusal(tmp_path / "out", inputs={"problems": tmp_path / "b"})
    assert "was made with inputs.problems.sha256 = '" in said
    said = refusal(tmp_path / "out", inputs={})
    assert "was made with inputs.problems.sha256 = '" in said
    assert "no such file" in refusal(tmp_path / "new", inputs={"problems": tmp_path / "gone"})
    assert not (tmp_path / "new").exists()


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "not empty, and not the output of a stage (no manifest.json)" in refusal(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    for broken in ("{", "[]", '{"stage": "generate"}'):
        (tmp_path / MANIFEST).write_text(broken)
        said = "JSON (" if broken == "{" else "a manifest of this project"
        assert f"{tmp_path / MANIFEST}: not {said}" in refusal(tmp_path)
        with pytest.raises(InputError, match="not JSON" if broken == "{" else "not a manifest of this project"):
            read_summary(tmp_path)


def test_a_stage_killed_before_its_manifest_was_there_begins_again(tmp_path):
    (tmp_path / f".{MANIFEST}.host-1.draft").write_text('{"sta')
    assert entered(tmp_path).done == set()
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def fail(folder, *, kind=InputError, records=0, **known):
    def run():
        with opened(folder, **known) as store:
            store.write(RECORDS[:records])
            raise kind("a typo")

    with pytest.raises(kind):
        run()


@pytest.mark.parametrize("kind", [InputError, RuntimeError, KeyboardInterrupt])
def test_a_stage_that_fails_before_its_first_record_leaves_nothing(tmp_path, kind):
    """Neither the folder nor parents that were made for it; a folder that was there stays, empty."""
    fail(tmp_path / "deep" / "er" / "out", kind=kind)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "made").mkdir()
    fail(tmp_path / "made", kind=kind)
    fail(tmp_path / "made" / "out", kind=kind)
    assert list((tmp_path / "made").iterdir()) == []


def test_a_stage_that_fails_after_its_first_record_keeps_it(tmp_path):
    fail(tmp_path / "out", records=1, config={"seed": 0})
    assert "config.seed = 0, now it is 1" in refusal(tmp_path / "out", config={"seed": 1})
    fail(tmp_path / "out", config={"seed": 0})
    assert entered(tmp_path / "out", config={"seed": 0}).done == {"p/0"}


@pytest.mark.parametrize("torn", [None, b"", dump_line(RECORDS[1]).encode()[:-1]], ids=["manifest", "shard", "line"])
def test_a_folder_without_a_record_belongs_to_no_configuration(tmp_path, torn):
    """Killed after the manifest, after an empty shard, after a line without its end: another one takes it over."""
    out = tmp_path / "out"
    for config in ({"seed": 0}, {"seed": 1}):
        entered(out, config=config)
        if torn is not None:
            (out / "part-00000.jsonl").write_bytes(torn)
    with opened(out, stage="label", config={"seed": 2}) as store:
        assert store.done == set()
        store.write(RECORDS[:1])
    assert json.loads((out / MANIFEST).read_text())["stage"] == "label"
    assert "stage = 'label', now it is 'generate'" in refusal(out, config={"seed": 2})


def test_a_finished_folder_without_records_is_protected(tmp_path):
    ended(tmp_path / "out", {"n": 0}, config={"seed": 0})
    assert "config.seed = 0, now it is 1" in refusal(tmp_path / "out", config={"seed": 1})


def test_records_in_the_folder_of_a_labeller_protect_the_stage(tmp_path):
    """Not the labeller's manifest, and not a finished one without records."""
    out = tmp_path / "out"
    entered(out, config={"seed": 0})
    ended(out / "rollouts", {}, stage="rollouts")
    assert entered(out, config={"seed": 1}).done == set()
    assert [path.name for path in out.iterdir()] == [MANIFEST]
    begun(out / "rollouts", stage="rollouts")
    assert "config.seed = 1, now it is 0" in refusal(out, config={"seed": 0})
    fail(out, config={"seed": 1})
    assert entered(out / "rollouts", stage="rollouts").done == {"p/0"}


def test_a_run_of_fit_is_not_taken_over(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step=1.ckpt").write_text("weights")
    write_manifest(tmp_path, {"stage": "fit", "config": {}, "inputs": {}})
    assert "stage = 'fit', now it is 'generate'" in refusal(tmp_path)
    assert (tmp_path / "checkpoints" / "step=1.ckpt").read_text() == "weights"


@pytest.mark.parametrize("kind", ["file", "pipe", "link"])
def test_what_is_no_folder_is_refused(tmp_path, kind):
    out = tmp_path / "out"
    (tmp_path / "there").mkdir()
    {"file": out.touch, "pipe": lambda: os.mkfifo(out), "link": lambda: out.symlink_to("there")}[kind]()
    assert refusal(out).startswith(f"{out}: " + {
        "file": "a file, where a folder is to be written", "pipe": "neither a file nor a folder", "link": "a link; give the path that it names"
    }[kind])  # fmt: skip
