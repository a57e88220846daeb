"""Compute ranking losses: steps of one solution, or solutions of one problem, against each other."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from stepverify.data.batch import ScoredPositions
from stepverify.data.encode import Example
from stepverify.losses.base import Loss, OutcomeLoss, StepLoss, ValueModel
from stepverify.records import InputError

Form = Literal["pairwise", "listwise"]


class StepRanking(StepLoss):
    """Rank a solution's correct steps in order, above its incorrect ones.

    Source: the comparative loss of PQM (Li and Li 2024, "Process Reward Model with Q-Value Rankings", equation 10).
    With Q the log-odds of a step, c_1, c_2, … the correct steps in their order, W the incorrect ones and Q_{c_0} = 0
    for the problem itself (the anchor), the loss of a solution is the mean over its correct steps t of ::

        -log( exp Q_{c_t} / (Σ_{q ≤ t} exp Q_{c_q} + Σ_{w ∈ W} exp(Q_w + margin)) )

    A later correct step is thus ranked above the earlier ones, each of them above the anchor, and the anchor above each
    incorrect step, by the margin. The anchor is a correct step of its own where the solution has incorrect ones.
    Every solution counts once, however many steps it has.

    Differences from the authors' code (WindyLee0822/Process_Q_Model): Q is the difference of two label logits instead
    of a scalar head's output, so values are σ(Q); the sums are log-sum-exps without the added 1e-5; and a correct step
    counts once in its own denominator, as in the paper, where versions of their ``train_main.py`` and
    ``train_ablation.py`` count it twice from the second step on. As in their code, the mean is over the compared steps,
    the anchor included. All labelled steps are compared, also correct ones after the first error;
    ``targets.after_first_error`` changes that. The order of the incorrect steps (equation 9) is not trained.

    Args:
        margin: ζ, by which correct steps should exceed incorrect ones, in nats; the paper's is 4.
        anchor: compare with Q = 0, a value of 1/2, too. Without it adding a constant to all log-odds of a solution
            changes nothing, so values of different solutions cannot be compared; solutions without any comparison teach
            nothing and do not count.
    """

    takes_weights = False

    def __init__(self, margin: float = 4.0, anchor: bool = True) -> None:
        if not 0.0 <= margin < float("inf"):
            raise InputError(f"loss.margin: expected a number of 0 or more, got {margin}")
        self.margin, self.anchor = margin, anchor

    def denominator(self, example: Example) -> float:
        """Return 1 for a solution with a correct step to compare, else 0."""
        steps, correct = (int(self.anchor) + n for n in (len(example.targets or ()), _correct_steps(example)))
        return float(correct >= 1 and steps >= 2)

    def __call__(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Sum over solutions, in nats.

        A target counts as correct from 1/2 on.
        """
        assert at.targets is not None
        steps = torch.bincount(at.owner, minlength=len(at.problem))
        column = torch.arange(len(at.owner), device=at.owner.device) - (steps.cumsum(0) - steps)[at.owner] + 1
        size = (len(steps), int(steps.max()) + 1)  # column 0 is the anchor
        q = outputs.new_zeros(size, dtype=torch.float32)
        q = q.index_put((at.owner, column), log_odds(outputs, model)[at.entries])
        labelled = torch.zeros(size, dtype=torch.bool, device=q.device)
        labelled[at.owner, column] = True
        correct = torch.zeros_like(labelled)
        correct[at.owner, column] = at.targets[at.entries] >= 0.5
        labelled[:, 0] = correct[:, 0] = self.anchor & (steps > 0)
        place = torch.arange(size[1], device=q.device)
        below = labelled & ~correct
        # Row t of (B, T, T): the steps that stand below step t, and itself.
        compared = (correct[:, None, :] & (place <= place[:, None])) | below[:, None, :]
        term = correct & (compared.sum(-1) > 1)
        others = (q + self.margin * below)[:, None, :].masked_fill(~compared, float("-inf"))
        # Rows that are no term may be empty: their gradient would not be finite.
        total = torch.where(term[:, :, None], others, 0.0).logsumexp(-1)
        number = term.sum(-1)
        losses = ((total - q) * term).sum(-1) / number.clamp(min=1)
        return losses.sum(), (number > 0).sum().float()


class BetweenSolutions(Loss):
    """Define a loss that compares correct with incorrect solutions of one problem.

    Each problem of a batch that has both kinds counts once. Problems whose solutions are all correct or all incorrect
    give no pair and do not count; the log says how many there are. ``data.pack_tokens`` puts the solutions of a problem
    into one batch; where a problem is divided nevertheless, because it is larger than a pack or there are more devices
    than problems, its parts count as problems of their own, and the log says so.

    Args:
        form: ``pairwise``, the mean over all pairs of -log σ(s_correct - s_incorrect) (Bradley and Terry 1952; all
            pairs of a prompt together as in Ouyang et al. 2022, section 3.5); or ``listwise``, the cross-entropy
            between a uniform choice among the correct ones and the softmax over all solutions of the problem (the
            top-one probabilities of ListNet, Cao et al. 2007).
    """

    takes_weights = False

    def __init__(self, form: Form = "pairwise") -> None:
        if form not in ("pairwise", "listwise"):
            raise InputError(f"loss.form: expected pairwise or listwise, got {form!r}")
        self.form = form

    @abstractmethod
    def is_correct(self, example: Example) -> bool:
        """Check whether an encoded solution with targets is correct."""

    @abstractmethod
    def scores(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Compute (B,) scores and the targets that decide which are correct.

        Solutions without scored positions may have any finite value.
        """

    def __call__(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Sum over problems with both kinds of solutions, in nats; 0 of 0 if there are none."""
        if not len(at.owner):  # LM examples alone
            return outputs.float().sum(), outputs.new_zeros((), dtype=torch.float32)
        scores, targets = self.scores(outputs, at, model)
        present = torch.bincount(at.owner, minlength=len(at.problem)) > 0
        correct, incorrect = present & (targets >= 0.5), present & (targets < 0.5)
        num_correct, num_incorrect = (
            torch.bincount(at.problem, kind.float(), minlength=len(at.problem)) for kind in (correct, incorrect)
        )
        mixed = (num_correct > 0) & (num_incorrect > 0)
        together = at.problem[:, None] == at.problem
        if self.form == "pairwise":
            pairs = together & correct[:, None] & incorrect
            share = mixed / (num_correct * num_incorrect).clamp(min=1)
            losses = F.softplus(scores - scores[:, None]) * pairs * share[at.problem][:, None]
        else:
            of_problem = torch.where(together & present, scores, float("-inf"))
            own = torch.where(correct[:, None], of_problem, 0.0).logsumexp(-1)  # rows may be empty where not correct
            losses = (own - scores) * correct * (mixed / num_correct.clamp(min=1))[at.problem]
        return losses.sum(), mixed.sum().float()


class OutcomeRanking(BetweenSolutions, OutcomeLoss):
    """Rank correct solutions above incorrect ones by the final token's logit.

    Source and arguments: :class:`BetweenSolutions`. Outcome verifiers need ``per_token: false`` for it. Differences
    from TRL's ``RewardTrainer``, which takes one pair a row: all pairs of a problem are compared, and each problem
    counts once; there is neither a margin nor a term that centers the scores, whose level stays undetermined until
    ``calibrate`` sets it.
    """

    def is_correct(self, example: Example) -> bool:
        """Check the final target; it counts as correct from 1/2 on."""
        return (example.targets or [0.0])[-1] >= 0.5

    def scores(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Return logits and targets at the final token."""
        assert at.targets is not None
        final = at.entries[_final(at)]
        return outputs.float()[final], at.targets[final]


class SolutionRanking(BetweenSolutions, StepLoss):
    """Rank correct solutions above incorrect ones by their step scores.

    Source and ``form``: :class:`BetweenSolutions`. Step scores are log-odds, so their order is that of the values. Only
    the level within a problem is trained: values are no probabilities unless the training starts from a reward model
    whose values are.

    Args:
        form: ``pairwise`` or ``listwise``.
        aggregation: score of a solution, as ``sampling rank`` has it: that of its worst step (``min``) or of its final
            one (``last``). Solutions are correct if the same of their targets is 1/2 or more.
    """

    def __init__(self, form: Form = "pairwise", aggregation: Literal["min", "last"] = "min") -> None:
        super().__init__(form)
        if aggregation not in ("min", "last"):
            raise InputError(f"loss.aggregation: expected min or last, got {aggregation!r}")
        self.aggregation = aggregation

    def is_correct(self, example: Example) -> bool:
        """Check the targets of the labelled steps."""
        targets = example.targets or [0.0]
        return (min(targets) if self.aggregation == "min" else targets[-1]) >= 0.5

    def scores(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Aggregate log-odds and targets over the labelled steps."""
        assert at.targets is not None
        odds, targets = log_odds(outputs, model)[at.entries], at.targets[at.entries]
        if self.aggregation == "last":
            final = _final(at)
            return odds[final], targets[final]
        zeros = odds.new_zeros(len(at.problem))
        lowest, worst = (
            zeros.scatter_reduce(0, at.owner, values, "amin", include_self=False) for values in (odds, targets)
        )
        return lowest, worst


def log_odds(outputs: Tensor, model: ValueModel) -> Tensor:
    """Compute (M,) log-odds of a step's value from the logits of its labels.

    P(neutral) counts as in the values of ``model``.
    """
    outputs = outputs.float()
    if outputs.shape[1] == 2:
        return outputs[:, 1] - outputs[:, 0]
    if getattr(model, "neutral", "positive") == "negative":
        return outputs[:, 1] - outputs[:, ::2].logsumexp(1)
    return outputs[:, 1:].logsumexp(1) - outputs[:, 0]


def _correct_steps(example: Example) -> int:
    return sum(target >= 0.5 for target in example.targets or ())


def _final(at: ScoredPositions) -> Tensor:
    """Return the (B,) final entry of each solution; any entry for one without."""
    return (torch.bincount(at.owner, minlength=len(at.problem)).cumsum(0) - 1).clamp(min=0)
