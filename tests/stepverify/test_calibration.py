"""An outcome verifier's values are probabilities where solutions are as in the validation."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from stepverify.cli import main  # noqa: E402
from stepverify.data.batch import collate  # noqa: E402
from stepverify.jsonl import read_records, write_records  # noqa: E402
from stepverify.metrics import PlattScaling, platt_scaling  # noqa: E402
from stepverify.models import load_verifier  # noqa: E402
from stepverify.records import Solution  # noqa: E402
from tests.helpers.fits import fit, write_labelled  # noqa: E402
from tests.helpers.runs import BACKBONE, config, scalars  # noqa: E402


@settings(deadline=None)
@given(
    # Logits a hundredth apart: nearer ones fall together in float32 when they are shifted.
    st.lists(st.tuples(st.integers(-5000, 5000).map(lambda i: i / 100), st.booleans()), min_size=2, max_size=40),
    st.floats(0.1, 10.0), st.floats(-5.0, 5.0),
)  # fmt: skip
def test_no_other_gain_and_bias_are_likelier(points, wider, shift):
    """At the minimum the slopes of the loss are 0: mean(p - t) and mean((p - t) · logit), t as in Platt's paper.

    With R correct and W incorrect ones t is (R + 1) / (R + 2) and 1 / (W + 2). Logits on another scale give the same values.
    """
    logits, target = torch.tensor([x for x, _ in points]), torch.tensor([int(y) for _, y in points])
    gain, bias = platt_scaling(logits, target)
    if target.unique().numel() < 2 or logits.unique().numel() < 2:
        assert torch.stack([gain, bias]).isnan().all()
        return
    correct, incorrect = int(target.sum()), int((1 - target).sum())
    soft = torch.where(target > 0, (correct + 1) / (correct + 2), 1 / (incorrect + 2))
    short = (gain * logits + bias).sigmoid() - soft
    std, mean = torch.std_mean(logits, correction=0)
    torch.testing.assert_close(short.mean(), torch.tensor(0.0), rtol=0, atol=1e-3)
    torch.testing.assert_close((short * (logits - mean) / std).mean(), torch.tensor(0.0), rtol=0, atol=1e-3)
    other_gain, other_bias = platt_scaling(wider * logits + shift, target)
    other = (other_gain * (wider * logits + shift) + other_bias).sigmoid()
    torch.testing.assert_close(other, (gain * logits + bias).sigmoid(), rtol=0, atol=5e-3)


def test_the_scale_that_outcomes_were_drawn_from_is_found():
    """20,000 outcomes of probability sigmoid(3 · logit - 1): gain and bias to a tenth, and hardly an error is left."""
    torch.manual_seed(0)
    logits = torch.randn(20_000)
    metric = PlattScaling()
    for part in logits.split(7_000):
        metric.update(part, torch.bernoulli((3 * part - 1).sigmoid()).long())
    torch.testing.assert_close(metric.compute(), torch.tensor([3.0, -1.0, 0.0]), rtol=0, atol=0.1)


def test_values_that_are_highest_where_wrong_are_left_alone():
    metric = PlattScaling()
    metric.update(torch.tensor([1.0, 2.0, -1.0, -2.0]), torch.tensor([0, 0, 1, 1]))
    assert metric.compute().isnan().all()


def logits_at_the_end(folder: Path, records: list[Solution]):
    model, encoder, _ = load_verifier(str(folder))
    with torch.inference_mode():
        batch = collate([encoder.outcome(record, None, last_only=True) for record in records])
        return torch.tensor([values[-1] for values in batch.split(model.score(batch))]).logit()


def test_calibration_scales_and_shifts_what_was_trained(tmp_path: Path):
    """The same fit with and without: logits apart from gain and bias, which Platt's fit of the uncalibrated gives."""
    data = write_labelled(tmp_path / "data")
    records = list(read_records(str(data), Solution))
    chosen = {"head": "linear", "loss": "bce"}
    plain, scaled = (
        logits_at_the_end(
            fit(tmp_path / str(on), "OutcomeVerifier", data, BACKBONE, chosen | {"calibrate": on}, validation=data),
            records,
        )
        for on in (False, True)
    )
    correct = torch.tensor([int(r.correct) for r in records])
    gain, bias = platt_scaling(plain, correct)
    assert gain > 0
    torch.testing.assert_close(scaled, gain * plain + bias, rtol=1e-3, atol=1e-3)
    loss = F.binary_cross_entropy_with_logits
    assert loss(scaled, correct.float()) < loss(plain, correct.float()) - 1e-3


def test_checkpoint_and_export_hold_the_scaling(tmp_path: Path):
    """``predict`` from the checkpoint writes what the export says, and ``validate`` measures the calibrated values."""
    data, root = write_labelled(tmp_path / "data"), tmp_path / "run"
    written = {
        "class_path": "stepverify.callbacks.ScoreWriter",
        "init_args": {"folder": str(tmp_path / "scores"), "name": "orm"},
    }
    file = config("OutcomeVerifier", root, data, model__init_args__loss="bce")
    main(["fit", "--config", file])
    seen = scalars(root)
    assert len(seen["val/ece_calibrated"]) == 2
    main(["validate", "--config", file, "--ckpt_path", "last"])
    assert seen["val/ece"][-1][1] != scalars(root)["val/ece"][-1][1]
    assert scalars(root)["val/ece"][-1][1] == pytest.approx(seen["val/ece_calibrated"][-1][1], abs=1e-5)
    reader = {"class_path": "stepverify.readers.Solutions", "init_args": {"path": str(data)}}
    file = config(
        "OutcomeVerifier",
        root,
        data,
        model__init_args__loss="bce",
        data__predict=reader,
        trainer__callbacks=[written],
    )
    main(["predict", "--config", file, "--ckpt_path", "last"])
    predicted = {s.id: s.scores["orm"][-1] for s in read_records(str(tmp_path / "scores"), Solution)}
    records = list(read_records(str(data), Solution))
    found = torch.tensor([predicted[r.id] for r in records])
    torch.testing.assert_close(found, logits_at_the_end(root / "export", records).sigmoid(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("why", ["one outcome", "no validation"])
def test_a_fit_that_cannot_calibrate_says_so(why, tmp_path: Path, recwarn):
    data = write_labelled(tmp_path / "data")
    records = [r for r in read_records(str(data), Solution) if r.correct]
    write_records(tmp_path / "correct" / "part-00000.jsonl", records)
    changes = {"trainer__max_steps": 1, "trainer__logger": False}
    changes |= {"data__validation": None} if why == "no validation" else {}
    main(["fit", "--config", config("OutcomeVerifier", tmp_path / "run", tmp_path / "correct", **changes)])
    assert sum("exported as trained, not calibrated" in str(w.message) for w in recwarn) == 1
