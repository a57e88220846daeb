"""Train an implicit reward model: process rewards from outcome labels alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable

from stepverify import lightning_compat
from stepverify.data.batch import Batch
from stepverify.data.encode import Example, load_tokenizer
from stepverify.losses import BetweenSolutions, OutcomeBCE, OutcomeLoss, OutcomeRanking
from stepverify.metrics import PlattScaling
from stepverify.models import Backbone, ImplicitModel
from stepverify.models.reference import Reference
from stepverify.modules.graded import GradedModule
from stepverify.modules.optimization import Decay
from stepverify.modules.reference import attach_reference
from stepverify.objectives import Reading
from stepverify.records import InputError, Solution
from stepverify.template import Template

_BETA = 0.05
_PROBE = "Ana's 1,234.5 + 6/7? 12 <<3*4=12>> = $12\u00bd\n"


class ImplicitRewardModel(GradedModule):
    """Train the log-ratio of a policy and its frozen reference as an outcome reward.

    Source: Yuan et al. 2024, "Free process rewards without process labels". The reward of a solution y of problem x is
    β · log(π(y|x) / π_ref(y|x)), summed over the solution's tokens, its end included; it is the log-odds of a correct
    final answer. Read at the end of each step, it is the log-odds of the solution so far, and its change over a step
    that step's process reward: no step is labelled. Values of exports are those of the solution so far
    (:class:`stepverify.objectives.Reading`).

    The log-probabilities of the reference are computed once, before training, and kept with the encoded examples
    (``data.cache``). No reference model is in memory then. The default reference costs no second model at all: it is
    the backbone before its first step, or without its adapters.

    Args:
        backbone: the policy to start from, a causal language model; or the export of another implicit reward model,
            whose reference, ``beta`` and template are then taken over too.
        template: text around problems and steps; None takes the template that the backbone was exported with.
        max_length: longest sequence in tokens; longer solutions are left out as a whole and counted.
        optimizer: builds an optimizer from parameter groups; weight decay applies to matrices only. EurusPRM was
            trained with a learning rate of 5e-7 and 64 solutions a step.
        warmup: share of the training steps over which the learning rate rises from 0.
        decay: schedule of the learning rate after warmup: ``cosine``, ``linear`` or ``constant``.
        beta: β. None takes that of the backbone's export, or 0.05 (Cui et al. 2025, whose PRIME trains the same model).
        loss: ``ce``, the cross-entropy between σ(reward) and the outcome; ``dpo``, pairs of a correct and an incorrect
            solution of one problem (Rafailov et al. 2023), as :class:`OutcomeRanking` compares them; or another
            ``OutcomeLoss``, of which one over single positions is applied to the final token.
        reference: local folder or Hub repository of π_ref, with the policy's tokenizer; None takes the backbone.
        calibrate: after each validation of a fit, set a gain and a bias of the reward by the solutions there, so that
            values are probabilities (Platt 1999). Neither training nor the ranking of solutions changes.

    Raises:
        InputError: a reference that an export could not name, or with another tokenizer.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: Template | None = None,
        max_length: int = 1024,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=1e-5),
        warmup: float = 0.05,
        decay: Decay = "cosine",
        beta: float | None = None,
        loss: Literal["ce", "dpo"] | OutcomeLoss = "ce",
        reference: str | None = None,
        calibrate: bool = True,
    ) -> None:
        super().__init__(backbone, template, max_length, optimizer, warmup, decay)
        self._trained = self.backbone_facts if self.backbone_facts.get("objective") == "implicit" else {}
        self.beta = float(self._trained.get("beta", _BETA) if beta is None else beta)
        if not 0.0 < self.beta < float("inf"):
            raise InputError(f"beta: expected a number above 0, got {beta}")
        self.loss = loss if isinstance(loss, OutcomeLoss) else {"ce": OutcomeBCE, "dpo": OutcomeRanking}[loss]()
        self.calibrate, self.platt = calibrate, PlattScaling()
        self.reference: Reference | None = None
        self._own = reference is None and not self._trained
        if reference is not None:
            self._check_tokenizer(reference)
        elif self._own:
            self._check_own()
        else:
            self.reference = Reference.read(self._trained, backbone.path)
            self.reference.find(backbone.path)
        self._place = reference or backbone.path

    def _check_own(self) -> None:
        """Refuse a backbone that an export could not name as its reference."""
        source = self.backbone_source
        for refused, key in ((source.weights == "random", "weights: random"), (source.overrides, "overrides")):
            if refused:
                raise InputError(
                    f"backbone.{key}: the reference is this backbone, which the export could not name; save it as a "
                    "folder and start from that, or set reference"
                )

    def _check_tokenizer(self, reference: str) -> None:
        source = replace(self.backbone_source, path=reference)
        source.check()
        ids, own = (
            t.encode(_PROBE, add_special_tokens=False) for t in (load_tokenizer(source.folder), self.encoder.tokenizer)
        )
        if ids != own:
            raise InputError(f"reference: {reference}: its tokenizer gives other ids than that of {source.path}")

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Encode a record with its outcome at every solution token; the final one alone weighs."""
        targets = [self.outcome(record)] * len(record.steps) if labelled else None
        example = self.encoder.outcome(record, targets)
        if labelled and self._weighs_final:
            example.weights = [0.0] * (len(example.positions) - 1) + [1.0]
        return example

    @property
    def _weighs_final(self) -> bool:
        return not isinstance(self.loss, BetweenSolutions)

    def encoding_options(self) -> dict[str, Any]:
        """List which tokens weigh."""
        return {"weighs_final": self._weighs_final}

    def configure_model(self) -> None:
        """Load the policy, and the reference's log-probabilities of all solutions."""
        if self.reference is None:
            self.reference = Reference.of(self._place)
        # The backbone is its own reference until it is trained, with adapters always.
        by_policy = self._own and (self.model is None or self.backbone_source.lora is not None)
        if not by_policy:
            attach_reference(self, self.reference, self._load_reference)
        super().configure_model()
        if by_policy:
            attach_reference(self, self.reference, lambda: cast(ImplicitModel, self.model))

    def _load_reference(self) -> ImplicitModel:
        """Load the reference as a model of its own, in the formats of the policy."""
        assert self.reference is not None
        source = replace(
            self.backbone_source, path=self.reference.path, weights="pretrained", overrides={}, lora=None, dropout=0.0
        )
        return self.placed(lambda: ImplicitModel(source.load(self.sharding())))

    def build(self) -> ImplicitModel:
        """Load the backbone; it is the policy. Unless it is trained on, it keeps its calibration."""
        model = ImplicitModel(self.backbone_source.load(self.sharding()), self.beta)
        fits = lightning_compat.is_attached(self) and self.trainer.state.fn == "fit"
        if "scaling" in self._trained and not fits:
            model.scale(*self._trained["scaling"])
        return model

    def predict_step(self, batch: Batch) -> list[tuple[Solution, list[float]]]:
        """Score each record; return it with the value of the solution up to the end of each step."""
        model = cast(ImplicitModel, self.model)
        gain, bias = model.scaling.tolist()
        reading = Reading("implicit", scaling=(gain, bias))
        rewards = batch.split(model.score(batch))
        return [
            (record, reading.values(along, self.encoder, record))
            for record, along in zip(batch.records, rewards, strict=True)
        ]

    def facts(self) -> dict[str, Any]:
        """Return the metadata of an export, with β, calibration and the reference."""
        assert self.reference is not None
        scaling = cast(ImplicitModel, self.model).scaling.tolist()
        return super().facts() | {"beta": self.beta, "scaling": scaling, "reference": asdict(self.reference)}
