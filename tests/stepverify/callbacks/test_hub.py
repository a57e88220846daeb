"""Upload to the hub, and what is refused before training; the hub itself is a stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from stepverify.modules import ProcessRewardModel
from tests.helpers.fits import fit, write_labelled
from tests.helpers.runs import BACKBONE


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("data") / "labelled", 24)


class Hub:
    """Stands for huggingface_hub.HfApi: keeps what it was asked for."""

    asked: list[tuple[str, Any]] = []  # noqa: RUF012
    broken = False

    def create_repo(self, repository: str, **options: Any) -> None:
        self.asked.append((repository, options))

    def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> None:
        if self.broken:
            raise OSError("no route to host\nand so on")
        self.asked.append((repo_id, sorted(p.relative_to(folder_path).as_posix() for p in folder_path.rglob("*.json"))))


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    return Hub


def test_the_export_goes_to_the_hub(hub, labelled, tmp_path: Path):
    folder = fit(tmp_path / "run", "ProcessRewardModel", labelled, BACKBONE, push_to_hub="me/prm", private=False)
    (created, uploaded) = hub.asked
    assert created == ("me/prm", {"private": False, "exist_ok": True})
    assert uploaded[0] == "me/prm"
    assert {"stepverify.json", "config.json", "classifier/config.json"} <= set(uploaded[1])
    assert 'snapshot_download("me/prm")' in (folder / "README.md").read_text()


def test_an_upload_that_fails_loses_nothing(hub, labelled, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(hub, "broken", True)
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path / "run", "ProcessRewardModel", labelled, BACKBONE, push_to_hub="me/prm", classifier=False)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "is written, but not uploaded: no route to host; upload it with: hf upload me/prm" in error
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()
    assert not (tmp_path / "run" / "export" / "classifier").exists()


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ({"push_to_hub": "me/prm"}, "HuggingFaceExport.push_to_hub: me/prm: no token; log in with `hf auth login` or set HF_TOKEN"),
        ({"push_to_hub": "a/b/c"}, "HuggingFaceExport.push_to_hub: Repo id must be"),
        ({"adapter": True}, "HuggingFaceExport.adapter: there are no adapters; set model.init_args.backbone.lora"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_training(
    export, message, hub, labelled, tmp_path: Path, monkeypatch, capsys
):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(ProcessRewardModel, "training_step", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path / "run", "ProcessRewardModel", labelled, BACKBONE, **export)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert hub.asked == []


def test_nothing_is_uploaded_offline(hub, labelled, tmp_path: Path, monkeypatch, capsys):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    with pytest.raises(SystemExit):
        fit(
            tmp_path / "r",
            "ProcessRewardModel",
            labelled,
            BACKBONE,
            push_to_hub="me/prm",
        )
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
