"""Validation metrics of steps and first errors: by hand, over batches and packs, and over processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torchmetrics.functional import classification  # noqa: E402

from stepverify.cli import main  # noqa: E402
from stepverify.data.batch import collate  # noqa: E402
from stepverify.jsonl import write_records  # noqa: E402
from stepverify.metrics import AUROC, CalibrationError, ErrorF1, FirstErrorAccuracy, GroupedAUROC  # noqa: E402
from stepverify.models import Backbone  # noqa: E402
from stepverify.modules import ProcessRewardModel  # noqa: E402
from stepverify.records import InputError, Solution, StepLabel  # noqa: E402
from stepverify.statistics import auroc_per_problem  # noqa: E402
from stepverify.template import Template  # noqa: E402
from tests.helpers.runs import config, scalars  # noqa: E402

SOLUTIONS = st.lists(
    st.lists(st.tuples(st.integers(0, 4).map(lambda v: v / 4), st.booleans()), min_size=1, max_size=4),
    min_size=1, max_size=7,
)  # fmt: skip


def feed(metric, solutions):
    steps = [step for solution in solutions for step in solution]
    owner = [i for i, solution in enumerate(solutions) for _ in solution]
    metric.update(torch.tensor([v for v, _ in steps]), torch.tensor([int(r) for _, r in steps]), torch.tensor(owner))


def test_first_errors_by_hand():
    """Found at the second step; one step too early; none and none; called incorrect at 0.4, but none is: 2 of 4."""
    metric = FirstErrorAccuracy()
    feed(metric, [[(0.9, True), (0.1, False), (0.0, False)], [(0.3, True), (0.2, False)], [(0.5, True)], [(0.4, True)]])
    assert metric.compute() == 0.5


@given(SOLUTIONS, st.integers(0, 7))
def test_each_solution_counts_once_however_they_are_batched(solutions, cut):
    """A share over solutions, by a plain loop; states of two parts add up, as those of two processes do."""
    hits = 0
    for solution in solutions:
        called = next((i for i, (value, _) in enumerate(solution) if value < 0.5), None)
        hits += called == next((i for i, (_, correct) in enumerate(solution) if not correct), None)
    whole, parts = FirstErrorAccuracy(), [FirstErrorAccuracy(), FirstErrorAccuracy()]
    feed(whole, solutions)
    assert whole.compute().item() == pytest.approx(hits / len(solutions))
    for metric, part in zip(parts, (solutions[:cut], solutions[cut:]), strict=True):
        if part:
            feed(metric, part)
    assert sum(m.hits for m in parts) / sum(m.total for m in parts) == whole.compute()


def test_areas_within_groups_by_hand():
    """Easy: correct 0.9, 0.7, incorrect 0.7: (1 + 1/2) / 2. Hard: correct 0.1, incorrect 0.2, 0.0: 1/2. Lost: one kind only."""
    metric = GroupedAUROC()
    metric.update(torch.tensor([0.9, 0.2, 0.7, 0.5]), torch.tensor([1, 0, 0, 0]), ["easy", "hard", "easy", "lost"])
    metric.update(torch.tensor([0.1, 0.7, 0.0]), torch.tensor([1, 1, 0]), ["hard", "easy", "hard"])
    assert metric.compute().item() == pytest.approx((0.75 + 0.5) / 2)
    metric.reset()
    metric.update(torch.tensor([0.9, 0.5]), torch.tensor([1, 0]), ["a", "b"])
    assert metric.compute().isnan(), "no problem has both kinds"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from("abc")), min_size=1, max_size=30),
    st.integers(0, 30),
)
def test_areas_within_groups_are_those_of_the_report(rows, cut):
    """However they are batched: what a fit logs and what a report says of the same values are the same."""
    metric = GroupedAUROC()
    for part in (rows[:cut], rows[cut:]):
        if part:
            values, correct, names = zip(*part, strict=True)
            metric.update(torch.tensor(values), torch.tensor(correct).long(), names)
    values, correct, names = (np.array(column) for column in zip(*rows, strict=True))
    expected = auroc_per_problem(values, correct, np.unique(names, return_inverse=True)[1])
    assert metric.compute().item() == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


@given(st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=30), st.integers(0, 30))
def test_gathered_metrics_are_those_of_torchmetrics(rows, cut):
    """Values between the edges of the bins; however they are batched. Where one class alone has no metric, NaN."""
    ours = {AUROC(): classification.binary_auroc, CalibrationError(): classification.binary_calibration_error}
    errors = ErrorF1()
    values, target = (
        torch.tensor(column) for column in zip(*[((v + 0.5) / 100, int(r)) for v, r in rows], strict=True)
    )
    for part in (slice(cut), slice(cut, None)):
        if len(values[part]):
            for metric in (*ours, errors):
                metric.update(values[part], target[part])
    one_class = target.min() == target.max()
    for metric, theirs in ours.items():
        if one_class and isinstance(metric, AUROC):
            assert metric.compute().isnan()
        else:
            options = {"n_bins": 15} if isinstance(metric, CalibrationError) else {}
            assert metric.compute().item() == pytest.approx(theirs(values, target, **options).item(), abs=1e-6)
    if target.min() == 0:
        expected = classification.binary_f1_score(1 - values, 1 - target)
        assert errors.compute().item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.fixture(scope="module")
def module():
    module = ProcessRewardModel(
        Backbone(path="lit_configs/quickstart/base", weights="random"), Template(prompt="{problem}\n")
    )
    module.model = module.build()
    return module


def labelled(number, ratings):
    steps = [f"a = {number}", "b = 1", "c = 2"][: len(ratings)]
    return Solution(
        id=f"p#{number}", problem_id="p", problem="a ?", steps=steps,
        step_labels=[r if r is None else StepLabel(rating=r) for r in ratings],
    )  # fmt: skip


def test_a_pack_of_solutions_that_share_steps(module):
    """Three solutions, the first one twice: what they share is computed once, and each counts for itself.

    P(correct) of the steps as they stand in the packed outputs is set by hand: the shared first step 0.9, then 0.2 where it
    is incorrect, 0.2 where it is correct, and nothing below 1/2 in a solution whose middle step has no label: 3 of 4 hits.
    """
    records = [labelled(1, [1, -1]), labelled(1, [1, -1]), labelled(1, [1, 1]), labelled(2, [1, None, 1])]
    records[2].steps[1] = "b = 7"
    batch = collate([module.encode(r, labelled=True) for r in records])
    entries, wanted = batch.scored.entries, torch.tensor([0.9, 0.2, 0.9, 0.2, 0.9, 0.2, 0.8, 0.8])
    assert len(batch.scored.index) < len(entries) == len(wanted)
    values = torch.zeros(len(batch.scored.index)).scatter(0, entries, wanted)
    metrics = module.build_metrics()
    module.update_metrics(metrics, torch.stack([torch.zeros_like(values), values.logit()], -1), batch)
    assert metrics.compute()["first_error_accuracy"] == 0.75


def test_metrics_do_not_share_their_counts(module):
    """A first batch with as many correct steps judged correct as incorrect ones judged incorrect has equal counts for accuracy and for
    the F1 of errors. In the second only correct steps follow, one of two missed: accuracy 3/4, F1 2 · 1 / (2 · 1 + 1) = 2/3."""
    metrics = module.build_metrics()
    for values, correct in (([0.9, 0.1], [1, 0]), ([0.9, 0.2], [1, 1])):
        metrics.update(torch.tensor(values), torch.tensor(correct), owner=torch.tensor([0, 1]))
    found = metrics.compute()
    assert found["step_accuracy"] == 0.75
    assert found["error_f1"] == pytest.approx(2 / 3)


def test_one_class_alone_has_no_area():
    """Torchmetrics says 0.0 of it. Two processes or batches with a class each have one: 1 of 1 pairs in order."""
    areas, f1 = AUROC(), ErrorF1()
    for metric in (areas, f1):
        metric.update(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))
        assert metric.compute().isnan()
        metric.update(torch.tensor([0.1]), torch.tensor([0]))
    assert areas.compute() == 1.0
    assert f1.compute() == pytest.approx(2 / 3)  # of two that are called incorrect, one is


@pytest.mark.parametrize(
    ("kind", "monitor", "correct", "reason"),
    [
        ("ProcessRewardModel", "step_auroc", [True] * 6, "12 correct and 0 incorrect steps"),
        ("ProcessRewardModel", "error_f1", [True] * 6, "12 correct and 0 incorrect steps"),
        ("OutcomeVerifier", "solution_auroc", [False] * 6, "0 correct and 6 incorrect solutions"),
        (
            "OutcomeVerifier", "solution_auroc_per_problem", [True, True, False, False, True, True],
            "4 correct and 2 incorrect solutions, but of no problem both",
        ),
        ("OutcomeVerifier", "solution_auroc", [True, True, False, False, True, True], None),
        ("OutcomeVerifier", "solution_auroc_per_problem", [True, False] * 3, None),
    ],
)  # fmt: skip
def test_an_undefined_metric_is_no_monitor(kind, monitor, correct, reason, tmp_path, monkeypatch, capsys):
    """Refused before the model is loaded, with the classes counted: six solutions of three problems, two of each."""

    def load(self, *args):
        raise InputError("loaded")

    monkeypatch.setattr(Backbone, "load", load)
    records = [
        Solution(
            id=f"p{i // 2}#{i}", problem_id=f"p{i // 2}", problem="a ?", steps=["a = 1", f"b = {i}"], correct=correct,
            step_labels=[StepLabel(rating=1 if correct else -1)] * 2,
        )
        for i, correct in enumerate(correct)
    ]  # fmt: skip
    write_records(tmp_path / "data" / "part-00000.jsonl", records)
    best = {
        "class_path": "stepverify.callbacks.Checkpoints", "init_args": {"monitor": f"val/{monitor}", "mode": "max"}
    }  # fmt: skip
    file = config(
        kind, tmp_path / "run", tmp_path / "data", trainer__callbacks=[best], trainer__max_epochs=1, trainer__logger=False,
        data__batch_size=2,
    )  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", file])
    assert stopped.value.code == 2
    refused = f"Checkpoints.monitor: val/{monitor} is undefined: data.validation has {reason}; monitor"
    assert (refused if reason else "stepverify fit: loaded\n") in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_undefined_metrics_are_said_to_be(tmp_path, tiny_model_dir, capsys):
    """In the progress lines and on the card; of correct steps alone, the accuracy is a number."""
    records = [labelled(i, [1, 1]) for i in range(4)]
    write_records(tmp_path / "data" / "part-00000.jsonl", records)
    changes = {"trainer__max_epochs": 1, "model__init_args__backbone": {"path": str(tiny_model_dir)}}
    changes |= {"trainer__enable_progress_bar": True}
    main(["fit", "--config", config("ProcessRewardModel", tmp_path / "run", tmp_path / "data", **changes)])
    (line,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith("validate: ")]
    assert "val/step_auroc undefined" in line
    assert "val/error_f1 undefined" in line
    assert "nan" not in line
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "| step_auroc | undefined |" in card
    assert "| step_accuracy | undefined |" not in card
    _, area = scalars(tmp_path / "run")["val/step_auroc"][-1]
    assert np.isnan(area)
