"""Room on disk: how large a checkpoint will be, and what a finished run keeps."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from stepverify.callbacks import background, disk, files  # noqa: E402
from stepverify.callbacks.background import BackgroundSave, snapshot  # noqa: E402
from stepverify.callbacks.final import reduce_to  # noqa: E402
from stepverify.jsonl import MANIFEST  # noqa: E402
from tests.helpers.best import best_of, fit, names, saved, scripted  # noqa: E402
from tests.helpers.runs import weights  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Three epochs, the second of them the best, with all checkpoints that were kept; and what was said."""
    from contextlib import redirect_stderr
    from io import StringIO

    root, said = tmp_path_factory.mktemp("run") / "run", StringIO()
    with redirect_stderr(said):
        fit(root, 3, scripted(0.1, 0.5, 0.2), best_of(final="all", keep=1))
    return root, said.getvalue()


@pytest.fixture
def done(run: tuple[Path, str], tmp_path: Path) -> Path:
    shutil.copytree(run[0], tmp_path / "run", symlinks=True)
    return tmp_path / "run"


SAVED = ["step=8.ckpt", "step=12.ckpt"]
BOTH = {"last.ckpt": "step=12.ckpt", "best.ckpt": "step=8.ckpt", "step=12.ckpt": "step=12.ckpt"}


def test_the_size_said_is_the_size_on_disk(run: tuple[Path, str]):
    root, said = run
    assert names(root) == BOTH | {"step=8.ckpt": "step=8.ckpt"}
    size = (root / "checkpoints" / "step=12.ckpt").stat().st_size
    number = r"([\d.]+) GB"
    found = re.search(
        rf"a checkpoint takes {number} \(weights {number}, optimizer state {number}\); at most 3 at once \(1 kept, the best "
        rf"one, one that is being written\) and the export take {number} of [\d.]+ GB on the disk; {number} of host memory",
        said,
    )
    checkpoint, trained, optimizer, needed, copy = (float(text) * 1e9 for text in found.groups())
    assert checkpoint == copy == pytest.approx(size, rel=0.02)
    assert trained + optimizer == pytest.approx(size, rel=0.02)
    exported = (root / "export" / "model.safetensors").stat().st_size
    assert needed == pytest.approx(3 * size + exported, rel=0.02)
    assert re.search(
        r"checkpoints: 3 saved, training waited [\d.]+ s for them, [\d.]+% of \d+ s; writing them took", said
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.AdamW, lambda groups: torch.optim.AdamW(groups, fused=True),
        lambda groups: torch.optim.Adam(groups, amsgrad=True), lambda groups: torch.optim.SGD(groups, lr=0.1),
        lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9), torch.optim.Adafactor,
    ],
)  # fmt: skip
def test_the_optimizer_state_is_known_before_its_first_step(optimizer: Any):
    """2 × 40 weights and 40 × 3 in half precision: what the first step makes of them."""
    weights = [nn.Parameter(torch.ones(40, 2)), nn.Parameter(torch.ones(40, 3, dtype=torch.bfloat16))]
    real = optimizer([{"params": weights[:1]}, {"params": weights[1:], "weight_decay": 0.0}])
    trainer, module = (
        SimpleNamespace(optimizers=[real]),
        SimpleNamespace(optimization=SimpleNamespace(factory=optimizer)),
    )
    expected = disk._optimizer_bytes(trainer, module)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    real.step()
    states = [v for state in real.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    assert expected == sum(v.numel() * v.element_size() + disk._PER_TENSOR for v in states)


def test_too_small_a_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Before the first step; nothing is left but an empty log."""
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=2_000_000))
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path / "run", 1, best_of("val/loss", "min", keep=2))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "checkpoints and export take up to 0.0029" in said
    assert (
        "0.002 GB are free: lower Checkpoints.keep (2), or choose a trainer.default_root_dir on another disk\n" in said
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("final", ["last", "weights", "none"])
def test_what_a_finished_run_keeps(final: str, done: Path, capsys: pytest.CaptureFixture):
    before = {name: saved(done, name) for name in SAVED}
    reduce_to(done, final, SAVED)
    said = capsys.readouterr().err
    assert re.search(rf"checkpoints: finished, so .* \(Checkpoints.final: {final}\); 0.00 GB freed", said)
    left = {
        "last": BOTH | {"step=8.ckpt": "step=8.ckpt"},
        "weights": {k: v for k, v in BOTH.items() if k != "best.ckpt"},
        "none": {},
    }[final]
    assert names(done) == left
    for name in left.keys() & before.keys():
        assert files.defect(done / "checkpoints" / name) is None
        now = saved(done, name)
        assert all(torch.equal(now[k], before[name][k]) for k in before[name])
        assert files.is_weights_only(done / "checkpoints" / name) == (final == "weights" or name == "step=8.ckpt")
    reduce_to(done, final, SAVED)
    assert capsys.readouterr().err == ""


def test_an_extended_run_takes_the_weights_of_the_best(done: Path):
    """Epoch 2 is still the best after 4."""
    reduce_to(done, "last", SAVED)
    best = saved(done, "best.ckpt")
    fit(done, 4, scripted(0.1, 0.5, 0.2, 0.3), best_of(final="last", keep=1))
    exported = weights(done)
    assert all(torch.equal(exported[k], best[k]) for k in exported)
    assert names(done).keys() == {"last.ckpt", "best.ckpt", "step=16.ckpt", "step=8.ckpt"}


def test_killed_before_it_was_reduced(done: Path, capsys: pytest.CaptureFixture):
    """The manifest says that the run has finished, and what it keeps: the next command removes the rest.

    Training cannot go on from weights alone, which is said before a model is loaded.
    """
    run = (scripted(0.1, 0.5, 0.2), best_of(final="all", keep=1))
    manifest = json.loads((done / MANIFEST).read_text())
    manifest["summary"]["final"] = "weights"
    (done / MANIFEST).write_text(json.dumps(manifest))
    fit(done, 3, *run)
    said = capsys.readouterr()
    assert said.out == f"{done}: already finished, {done}/export is left as it is\n"
    assert (
        "finished, so removed step=8.ckpt and kept the weights of step=12.ckpt without its optimizer state" in said.err
    )
    with pytest.raises(SystemExit) as stopped:
        fit(done, 5, *run)
    assert stopped.value.code == 2
    assert "step=12.ckpt: holds weights without optimizer state (Checkpoints.final), so" in capsys.readouterr().err


def test_a_snapshot_does_not_change():
    """Tied weights stay one; containers, their classes and attributes are copied."""
    layer = nn.Linear(2, 2)
    state = layer.state_dict() | {"tied": layer.weight.detach(), "row": layer.weight[0].detach()}
    taken = snapshot({"state": state, "list": [1, (2, torch.ones(1))], "none": None})
    kept = layer.weight.detach().clone()
    nn.init.zeros_(layer.weight)
    assert torch.equal(taken["state"]["weight"], kept)
    assert torch.equal(taken["state"]["row"], kept[0])
    assert taken["state"]["tied"].data_ptr() == taken["state"]["weight"].data_ptr()
    assert type(taken["state"]) is type(state)
    assert taken["list"] == [1, (2, torch.ones(1))]


def test_saves_are_put_off_at_their_share(monkeypatch: pytest.MonkeyPatch):
    """One took 1 s of the first 10; another would make 2 s, which are 5 % of 40 s."""
    now = [100.0]
    monkeypatch.setattr(background.time, "monotonic", lambda: now[0])
    save = BackgroundSave()
    assert not save.is_costly(0.05)
    now[0] += 10
    save.add_wait(1.0)
    assert save.share == pytest.approx(0.1)
    for second, costly in ((110.0, True), (139.0, True), (140.1, False)):
        now[0] = second
        assert save.is_costly(0.05) == costly
        assert not save.is_costly(1.0)
