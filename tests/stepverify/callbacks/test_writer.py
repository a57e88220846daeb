"""The folder of ``stepverify predict``: one process writes it, and what a kill leaves is no obstacle."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("lightning")

from stepverify.callbacks import ScoreWriter
from stepverify.lock import LOCK, FolderLock
from stepverify.records import InputError

TRAINER = SimpleNamespace(is_global_zero=True, global_rank=0)


def begun(folder):
    writer = ScoreWriter(str(folder), "prm")
    writer.setup(TRAINER, None, "predict")
    return writer


def test_a_second_one_is_refused_before_a_model_is_loaded(tmp_path):
    out = tmp_path / "new" / "scores"
    first = begun(out)
    with pytest.raises(InputError, match=rf"^{out}: process \d+ on .* has been writing it since"):
        begun(out)
    assert (out / LOCK).exists()
    first.on_predict_start(TRAINER, None)
    first.on_exception(TRAINER, None, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_the_lock_ends_with_the_run(tmp_path):
    writer = begun(tmp_path / "scores")
    writer.on_predict_start(TRAINER, None)
    (tmp_path / "scores" / "part-00000.jsonl").touch()
    writer.teardown(TRAINER, None, "predict")
    assert sorted(p.name for p in (tmp_path / "scores").iterdir()) == ["manifest.json", "part-00000.jsonl"]
    begun(tmp_path / "scores").teardown(TRAINER, None, "predict")
    assert list((tmp_path / "scores").iterdir()) == []


def test_what_a_kill_leaves_is_cleared(tmp_path):
    """A lock, drafts and the manifest of an unfinished predict; nobody else's files, nor a finished folder."""
    out = tmp_path / "scores"
    out.mkdir()
    manifest = {"stage": "predict", "config": {}, "inputs": {}, "finished": False, "summary": {}}
    for name in (
        LOCK,
        f"{LOCK}.7",
        ".part-00000.jsonl.host-7.draft",
        ".manifest.json.host-7.draft",
        "part-00000.jsonl",
    ):
        (out / name).touch()
    with pytest.raises(InputError, match="not empty"):  # whose shard it is nobody says
        begun(out)
    (out / LOCK).touch()
    (out / "manifest.json").write_text(json.dumps(manifest))
    writer = begun(out)
    assert [p.name for p in out.iterdir()] == [LOCK]
    writer.teardown(TRAINER, None, "predict")
    (out / "thesis.tex").touch()
    with pytest.raises(InputError, match="not empty"):
        begun(out)
    with FolderLock(out):
        assert {p.name for p in out.iterdir()} == {LOCK, "thesis.tex"}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder(tmp_path, kind):
    out = tmp_path / "scores"
    out.touch() if kind == "file" else out.symlink_to(tmp_path)
    with pytest.raises(InputError, match=rf"^{out}: a {kind}"):
        begun(out)
