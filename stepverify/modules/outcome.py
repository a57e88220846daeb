"""Train an outcome verifier (ORM).

It predicts the probability that a solution's final answer is correct.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable

from stepverify.data.encode import Example
from stepverify.data.targets import StepTargets
from stepverify.losses import BetweenSolutions, OutcomeBCE, OutcomeLoss, OutcomeMSE
from stepverify.metrics import PlattScaling
from stepverify.models import Backbone, OutcomeModel
from stepverify.models.export import load_value_head
from stepverify.modules.graded import GradedModule
from stepverify.modules.optimization import Decay
from stepverify.records import InputError, Solution
from stepverify.template import Template


class OutcomeVerifier(GradedModule):
    """Train a token-level value head on a language model.

    Source: Cobbe et al. 2021, section 4.2.

    Args:
        backbone: the generator to start the verifier from.
        template: text around problems and steps; None takes the template that the backbone was exported with.
        max_length: longest sequence in tokens; longer solutions are left out as a whole and counted.
        optimizer: builds an optimizer from parameter groups; weight decay applies to matrices only.
        warmup: share of the training steps over which the learning rate rises from 0.
        decay: schedule of the learning rate after warmup: ``cosine``, ``linear`` or ``constant``.
        lm_weight: weight of the language-model loss on ``data.lm`` (the paper's is 1).
        loss: ``mse`` (the paper's) or ``bce`` between value and target; or another ``OutcomeLoss``: ``OutcomeRanking``.
        per_token: train on every solution token (as in the paper), or on the final token only.
        head: how the value's logit is computed: ``reserved`` applies a gain and a bias to the logit of the template's
            step tag, a token that no solution contains (as in the paper); ``linear`` adds a layer of its own. With LoRA
            the tag's row of the output matrix is frozen.
        target: the solution's ``outcome`` at all of its tokens, or ``rollouts``, the share of correct rollouts from the
            end of the step that a token belongs to (needs step labels).
        label_smoothing: s, by which a target y becomes (1 - s) · y + s / 2.
        calibrate: after each validation of a fit, set a gain and a bias of the value's logit by the values at the final
            tokens, so that values are probabilities there (Platt 1999). Neither training nor the ranking of solutions
            changes. It corrects how far values lie apart, which weighted votes depend on, and how high they are, which
            ``balance`` and ``class_weights`` shift, for solutions like those of the validation.
        predict_every_token: let ``predict`` write the value at every token instead of the final one.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: Template | None = None,
        max_length: int = 1024,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=1e-5),
        warmup: float = 0.05,
        decay: Decay = "cosine",
        lm_weight: float = 0.0,
        loss: Literal["mse", "bce"] | OutcomeLoss = "mse",
        per_token: bool = True,
        head: Literal["reserved", "linear"] = "reserved",
        target: Literal["outcome", "rollouts"] = "outcome",
        label_smoothing: float = 0.0,
        calibrate: bool = True,
        predict_every_token: bool = False,
    ) -> None:
        super().__init__(backbone, template, max_length, optimizer, warmup, decay, lm_weight)
        if not 0.0 <= label_smoothing < 1.0:
            raise InputError(f"label_smoothing: expected 0 <= s < 1, got {label_smoothing}")
        self.loss = loss if isinstance(loss, OutcomeLoss) else {"mse": OutcomeMSE, "bce": OutcomeBCE}[loss]()
        if isinstance(self.loss, BetweenSolutions):
            for wrong, key in (
                (per_token, "per_token: true"),
                (label_smoothing, f"label_smoothing: {label_smoothing}"),
            ):
                if wrong:
                    raise InputError(
                        f"loss: {type(self.loss).__name__} compares the final tokens of solutions and does not support "
                        f"{key}; set {key.partition(':')[0]} to {'false' if key[0] == 'p' else 0}"
                    )
        self.per_token, self.predict_every_token = per_token, predict_every_token
        self.target, self.label_smoothing = target, label_smoothing
        self.calibrate, self.platt = calibrate, PlattScaling()
        self.reserved = self.encoder.step_tag_id if head == "reserved" else None  # checked before data is read

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Encode a record with outcome or rollout targets at solution tokens."""
        if not labelled:
            return self.encoder.outcome(record, None, last_only=not self.predict_every_token)
        return self.encoder.outcome(record, self._targets(record), last_only=not self.per_token)

    def _targets(self, record: Solution) -> list[float | None]:
        """Return one target per step; None where it is unknown."""
        known: list[float | None]
        if self.target == "rollouts":
            known = StepTargets(monte_carlo="soft").of(record)
        else:
            known = [self.outcome(record)] * len(record.steps)
        s = self.label_smoothing
        return [None if y is None else (1 - s) * y + s / 2 for y in known]

    def encoding_options(self) -> dict[str, Any]:
        """List which tokens are read, and for what target."""
        names = ("per_token", "predict_every_token", "target", "label_smoothing")
        return {name: getattr(self, name) for name in names}

    def build(self) -> OutcomeModel:
        """Load the backbone and add a value head that starts at 1/2."""
        source = self.backbone_source
        model = OutcomeModel(source.load(self.sharding()), self.reserved, load_value_head(source.folder))
        model.start_undecided(self.encoder.probe())
        return model

    def facts(self) -> dict[str, Any]:
        """Return the metadata of an export, with ``per_token``.

        If it is False, values before the final token mean nothing.
        """
        return super().facts() | {"per_token": self.per_token}
