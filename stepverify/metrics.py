"""Validation metrics: torchmetrics gathers values over batches and devices, :mod:`stepverify.statistics` computes.

So a number that training logs is the number that ``sampling report`` gives of the same values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from stepverify import statistics

# They compare correct with incorrect ones, and are NaN where the validation has one kind alone.
NEED_BOTH = frozenset({"step_auroc", "error_f1", "solution_auroc", "solution_auroc_per_problem", "ece_calibrated"})


class _Gathered(Metric):
    """Keeps predictions and targets of everything that it is fed."""

    full_state_update = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("preds", "target"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Feed probabilities of being correct, and 1 for correct or 0 for incorrect: shapes (M,)."""
        self.preds.append(preds.float())
        self.target.append(target)

    def compute(self) -> Tensor:
        """A number; NaN where it is not defined."""
        preds, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        found = self.measure(preds.cpu().double().numpy(), target.cpu().numpy() > 0)
        return preds.new_tensor(torch.nan if found is None else found)

    def measure(self, values: np.ndarray, correct: np.ndarray) -> float | None:
        """Compute the statistic of all values, shapes (M,)."""
        raise NotImplementedError


class AUROC(_Gathered):
    """Area under the ROC curve; NaN where there is one class alone."""

    higher_is_better = True

    def measure(self, values: np.ndarray, correct: np.ndarray) -> float | None:
        """An area in [0, 1]."""
        return statistics.auroc(values, correct)


class ErrorF1(_Gathered):
    """F1 of finding the incorrect steps: a step with P(correct) < 1/2 is called incorrect. NaN where none is."""

    higher_is_better = True

    def measure(self, values: np.ndarray, correct: np.ndarray) -> float | None:
        """A share in [0, 1]."""
        return None if correct.all() else statistics.f1(values < 0.5, ~correct)


class CalibrationError(_Gathered):
    """Expected calibration error over 15 bins (Guo et al. 2017, section 2)."""

    higher_is_better = False

    def measure(self, values: np.ndarray, correct: np.ndarray) -> float | None:
        """An error in [0, 1]."""
        return statistics.calibration_error(statistics.reliability(values, correct))


class FirstErrorAccuracy(Metric):
    """Share of solutions whose first step with P(correct) < 1/2 is the first incorrect one, or that have neither.

    A solution counts once, whatever its number of steps, and only its labelled steps are looked at.
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
        """Feed the steps of whole solutions, in order.

        Args:
            preds: (M,) probabilities of being correct.
            target: (M,) 1 for correct, 0 for incorrect.
            owner: (M,) which solution each step belongs to; the steps of one stand together.
        """
        solutions, rows = owner.unique_consecutive(return_inverse=True)
        places = torch.arange(len(owner), device=owner.device)

        def first(incorrect: Tensor) -> Tensor:
            none = places.new_full((len(solutions),), len(owner))
            return none.scatter_reduce(0, rows[incorrect], places[incorrect], "amin")

        self.hits += (first(preds < 0.5) == first(target == 0)).sum()
        self.total += len(solutions)

    def compute(self) -> Tensor:
        """A share in [0, 1]."""
        return self.hits / self.total


class GroupedAUROC(Metric):
    """Area under the ROC curve of each group, a tie counting half; the mean over those that have both kinds.

    Of the solutions of a problem it says how well one is chosen. The area over all solutions is high too where values
    only tell hard problems from easy ones. NaN where no group has both kinds.
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
        """Feed values (M,), 1 for correct or 0 for incorrect (M,), and the names of the M groups that they belong to."""
        # Names do not travel between processes, and numbers given in the order of arrival would differ on each.
        digests = [int.from_bytes(hashlib.sha256(n.encode()).digest()[:8], signed=True) for n in names]
        self.preds.append(preds.float())
        self.target.append(target)
        self.groups.append(torch.tensor(digests, device=preds.device))

    def compute(self) -> Tensor:
        """An area in [0, 1]."""
        device = self.preds[0].device
        # On the CPU: a GPU would be waited for twice a group.
        preds, target, groups = (dim_zero_cat(state).cpu() for state in (self.preds, self.target, self.groups))
        area = statistics.auroc_per_problem(preds.double().numpy(), target.numpy() > 0, groups.numpy())
        return preds.new_tensor(torch.nan if area is None else area).to(device)


class PlattScaling(Metric):
    """Gain and bias by which logits say best, in likelihood, how often those of their size are correct (Platt 1999)."""

    full_state_update = False
    logits: list[Tensor]
    target: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("logits", "target"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Feed logits (M,), and 1 for correct or 0 for incorrect (M,)."""
        self.logits.append(logits.float())
        self.target.append(target)

    def compute(self) -> Tensor:
        """(3,): gain, bias, and the calibration error that they leave.

        NaN where all are correct or all incorrect, or where higher logits are not more often correct.
        """
        device = self.logits[0].device
        # On the CPU: a search of many small steps, in float64, which not every accelerator has.
        logits, target = (dim_zero_cat(state).cpu() for state in (self.logits, self.target))
        gain, bias = platt_scaling(logits, target)
        if not gain > 0:
            return logits.new_full((3,), torch.nan).to(device)
        values = (gain * logits + bias).sigmoid().double().numpy()
        error = statistics.calibration_error(statistics.reliability(values, target.numpy() > 0))
        return torch.stack([gain, bias, gain.new_tensor(error)]).to(device)


def platt_scaling(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic regression of the outcome on the logit, against targets short of 0 and 1 (Platt 1999, section 2.2).

    As those are, gain and bias are finite where the logits divide correct from incorrect without error.

    Args:
        logits: (M,).
        target: (M,) 1 for correct, 0 for incorrect.

    Returns:
        Gain and bias, scalars; NaN where there is one outcome alone or one logit.
    """
    correct, incorrect = target.sum(), (1 - target).sum()
    std, mean = torch.std_mean(logits.double(), correction=0)
    if not (correct and incorrect and std):
        nothing = logits.new_tensor(torch.nan)
        return nothing, nothing
    with torch.inference_mode(False), torch.enable_grad():  # Lightning validates without gradients
        inputs = (logits.double() - mean) / std
        soft = torch.where(target > 0, (correct + 1) / (correct + 2), 1 / (incorrect + 2)).double()
        weights = torch.tensor([1.0, 0.0], dtype=torch.double, device=logits.device, requires_grad=True)
        search = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

        def loss() -> Tensor:
            search.zero_grad()
            value = F.binary_cross_entropy_with_logits(weights[0] * inputs + weights[1], soft)
            value.backward()
            return value

        search.step(loss)
    slope, level = weights.detach()
    return (slope / std).to(logits.dtype), (level - slope * mean / std).to(logits.dtype)
