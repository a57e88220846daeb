"""Compute validation metrics over batches and devices.

torchmetrics gathers the values, :mod:`stepverify.statistics` computes: so training logs the same number that ``sampling
report`` gives for the same values.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from stepverify import calibration, statistics

# Metrics that compare correct with incorrect ones; they are NaN if the validation data has one class only.
NEED_BOTH = frozenset({"step_auroc", "error_f1", "solution_auroc", "solution_auroc_per_problem", "ece_calibrated"})


class _Gathered(Metric):
    """Gather all predictions and targets."""

    full_state_update = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("preds", "target"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add (M,) probabilities and (M,) targets: 1 correct, 0 incorrect."""
        self.preds.append(preds.float())
        self.target.append(target)

    def compute(self) -> Tensor:
        """Compute the metric; NaN if it is not defined."""
        preds, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        found = self.measure(preds.cpu().double().numpy(), target.cpu().numpy() > 0)
        return preds.new_tensor(torch.nan if found is None else found)

    def measure(self, values: np.ndarray, correct: np.ndarray) -> float | None:
        """Compute the statistic of all values, shapes (M,)."""
        raise NotImplementedError


class AUROC(_Gathered):
    """Compute the area under the ROC curve; NaN with one class only."""

    higher_is_better = True

    def measure(self, values: np.ndarray, correct: np.ndarray) -> float | None:
        """Return the AUROC in [0, 1]."""
        return statistics.auroc(values, correct)


class ErrorF1(_Gathered):
    """Compute the F1 score of detecting incorrect steps.

    A step with P(correct) < 1/2 is predicted incorrect. NaN if no step is incorrect.
    """

    higher_is_better = True

    def measure(self, values: np.ndarray, correct: np.ndarray) -> float | None:
        """Return the F1 score in [0, 1]."""
        return None if correct.all() else statistics.f1(values < 0.5, ~correct)


class CalibrationError(_Gathered):
    """Compute the expected calibration error (ECE) over 15 bins.

    Source: Guo et al. 2017, section 2.
    """

    higher_is_better = False

    def measure(self, values: np.ndarray, correct: np.ndarray) -> float | None:
        """Return the ECE in [0, 1]."""
        return statistics.calibration_error(statistics.reliability(values, correct))


class FirstErrorAccuracy(Metric):
    """Compute the share of solutions whose first error is located exactly.

    The predicted first error is the first step with P(correct) < 1/2. A solution without incorrect steps is located if
    no step is predicted incorrect. Each solution counts once, whatever its number of steps, and only labelled steps
    count.
    """

    full_state_update = False
    higher_is_better = True
    hits: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, owner: Tensor) -> None:
        """Add the steps of whole solutions, in order.

        Args:
            preds: (M,) probabilities of being correct.
            target: (M,) 1 for correct, 0 for incorrect.
            owner: (M,) solution that each step belongs to; the steps of a solution are contiguous.
        """
        solutions, rows = owner.unique_consecutive(return_inverse=True)
        places = torch.arange(len(owner), device=owner.device)

        def first(incorrect: Tensor) -> Tensor:
            none = places.new_full((len(solutions),), len(owner))
            return none.scatter_reduce(0, rows[incorrect], places[incorrect], "amin")

        self.hits += (first(preds < 0.5) == first(target == 0)).sum()
        self.total += len(solutions)

    def compute(self) -> Tensor:
        """Return the share in [0, 1]."""
        return self.hits / self.total


class GroupedAUROC(Metric):
    """Compute the AUROC per group, averaged over groups with both classes.

    With the solutions of a problem as a group, it measures how well a solution is selected; the AUROC over all
    solutions is also high if values merely separate hard problems from easy ones. Ties count 1/2. NaN if no group has
    both classes.
    """

    full_state_update = False
    higher_is_better = True
    preds: list[Tensor]
    target: list[Tensor]
    groups: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("preds", "target", "groups"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor, names: Sequence[str]) -> None:
        """Add (M,) values, (M,) targets (1 correct, 0 incorrect) and group names."""
        # torchmetrics gathers tensors, not names, and processes would number the names differently.
        digests = [int.from_bytes(hashlib.sha256(n.encode()).digest()[:8], signed=True) for n in names]
        self.preds.append(preds.float())
        self.target.append(target)
        self.groups.append(torch.tensor(digests, device=preds.device))

    def compute(self) -> Tensor:
        """Return the mean AUROC in [0, 1]."""
        device = self.preds[0].device
        # On the CPU: each group would synchronize a GPU twice.
        preds, target, groups = (dim_zero_cat(state).cpu() for state in (self.preds, self.target, self.groups))
        area = statistics.auroc_per_problem(preds.double().numpy(), target.numpy() > 0, groups.numpy())
        return preds.new_tensor(torch.nan if area is None else area).to(device)


class PlattScaling(Metric):
    """Fit gain and bias that calibrate logits (Platt 1999).

    They maximize the likelihood.
    """

    full_state_update = False
    logits: list[Tensor]
    target: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("logits", "target"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add (M,) logits and (M,) targets: 1 correct, 0 incorrect."""
        self.logits.append(logits.float())
        self.target.append(target)

    def compute(self) -> Tensor:
        """Return gain, bias and the ECE after scaling; shape (3,).

        NaN if all are correct or all incorrect, or if higher logits are not more often correct.
        """
        device = self.logits[0].device
        logits, target = (dim_zero_cat(state).cpu() for state in (self.logits, self.target))
        gain, bias = platt_scaling(logits, target)
        if not gain > 0:
            return logits.new_full((3,), torch.nan).to(device)
        values = (gain * logits + bias).sigmoid().double().numpy()
        error = statistics.calibration_error(statistics.reliability(values, target.numpy() > 0))
        return torch.stack([gain, bias, gain.new_tensor(error)]).to(device)


def platt_scaling(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Fit gain and bias of logits by :func:`stepverify.calibration.platt`.

    Args:
        logits: (M,).
        target: (M,) 1 for correct, 0 for incorrect.

    Returns:
        Gain and bias, scalars; NaN with one class only or if all logits are equal.
    """
    gain, bias = calibration.platt(logits.cpu().double().numpy(), target.cpu().numpy() > 0)
    return logits.new_tensor(gain), logits.new_tensor(bias)


def shown(name: str, value: float) -> str:
    """Format a metric's value; "undefined" if it lacks a class."""
    return "undefined" if math.isnan(value) and name.removeprefix("val/") in NEED_BOTH else f"{value:.4g}"
