"""Share training steps, optimization and logging among the objectives."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from stepverify import lightning_compat
from stepverify.data.batch import Batch
from stepverify.data.encode import Example, SolutionEncoder, load_tokenizer
from stepverify.losses import Loss, weighted
from stepverify.models import Backbone, VerifierModel
from stepverify.models.sharded import Sharding
from stepverify.modules import resume
from stepverify.modules.optimization import Decay, Optimization
from stepverify.records import InputError, Solution
from stepverify.template import Template, load_export

Stage = Literal["train", "val", "test"]
M = TypeVar("M", bound=VerifierModel)


class StepModule(lightning.LightningModule):
    """Provide the base of generator, outcome verifier and reward models.

    A subclass defines how a record is encoded (:meth:`encode`), which model is trained (:meth:`build`) and the
    :attr:`loss`. No hyperparameters are saved in checkpoints: the configuration is saved next to them, and loading a
    checkpoint never overrides it.

    Args:
        backbone: the language model to start training from.
        template: text around problems and steps; None takes the template that the backbone was exported with.
        max_length: longest sequence in tokens; longer solutions are left out as a whole and counted.
        optimizer: builds an optimizer from parameter groups. Weight decay applies to matrices only, those of adapters
            included: not to embeddings, norms and biases.
        warmup: share of the training steps over which the learning rate rises from 0.
        decay: schedule of the learning rate after warmup: fall to 0 along a ``cosine`` or a line (``linear``), or stay
            ``constant``.
        lm_weight: weight of the language-model loss on ``data.lm``, added to the loss of a verifier (1 in Cobbe et al.
            2021, section 4.2).
    """

    loss: Loss

    def __init__(
        self,
        backbone: Backbone,
        template: Template | None = None,
        max_length: int = 1024,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=1e-5),
        warmup: float = 0.05,
        decay: Decay = "cosine",
        lm_weight: float = 0.0,
    ) -> None:
        super().__init__()
        backbone.check()
        own, self.backbone_facts = load_export(backbone.folder) or (Template(), {})
        self.backbone_source = backbone
        tokenizer = load_tokenizer(backbone.folder, trust_remote_code=backbone.trust_remote_code)
        self.encoder = SolutionEncoder(tokenizer, template or own, max_length)
        self.template = self.encoder.template
        self.optimization, self.lm_weight = Optimization(optimizer, warmup, decay), lm_weight
        self.model: VerifierModel | None = None
        self.strict_loading = False  # frozen weights may be missing; _check_keys refuses other missing ones
        self._unread: dict[str, int] = {}
        self._data_states: list[dict[str, Any]] = []
        self.register_state_dict_post_hook(lambda module, state, prefix, _: module._leave_out_frozen(state, prefix))
        self.register_load_state_dict_post_hook(lambda module, keys: module._check_keys(keys))
        self.mean_losses = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})
        self.metrics = nn.ModuleDict({stage: self.build_metrics() for stage in ("val", "test")})

    @property
    def pad_to(self) -> int:
        """Return the multiple that batches are padded to, in tokens."""
        return 256 if self.backbone_source.compile else 1

    def packs(self, longest: int) -> bool:
        """Check whether sequences of up to ``longest`` tokens can share prefixes."""
        return self.model is None or self.model.packs(longest)

    # ── what a subclass says ──────────────────────────────────────────────────────────────────────

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Encode one record; raise :class:`LeftOut` if it cannot be used."""
        raise NotImplementedError

    def encoding_options(self) -> dict[str, Any]:
        """List what :meth:`encode` depends on besides the record and the encoder, as plain values.

        Encoded examples are kept under them, so one that is missing here gives a run the examples of another. A
        subclass in another package lists its own, or nothing is kept for it.
        """
        raise NotImplementedError

    def build(self) -> VerifierModel:
        """Load the model."""
        raise NotImplementedError

    def build_metrics(self) -> MetricCollection:
        """Build the metrics of validation and test, which :meth:`update_metrics` updates."""
        return MetricCollection({})

    def update_metrics(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Update the metrics with one batch."""

    def verdicts(self, example: Example) -> list[bool]:
        """Return whether each labelled step, or the solution, is correct."""
        return []

    def truth(self, targets: Tensor) -> Tensor:
        """Convert (M,) targets to the probabilities that values should predict."""
        return targets

    def val_names(self) -> set[str]:
        """Return the names under which a validation logs loss and metrics."""
        return {f"val/{name}" for name in ("loss", *cast(MetricCollection, self.metrics["val"]))}

    # ── Lightning ─────────────────────────────────────────────────────────────────────────────────

    def setup(self, stage: str) -> None:
        """Refuse settings that would fail in the first backward pass."""
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        if stage == "fit" and on_cpu and self.backbone_source.attention == "flex":
            raise InputError("backbone.attention: flex has no backward pass on a CPU; choose paths")
        if stage == "fit":
            self.optimization.check(self.trainer)

    def configure_model(self) -> None:
        """Load the weights once, after the data; shard them on a mesh."""
        if self.model is not None:
            return
        self.model = self.placed(self.build)

    def placed(self, build: Callable[[], M]) -> M:
        """Build a model on all ranks, freeze what no loss depends on, and shard it on a mesh."""
        sharding = self.sharding()
        # Without sharding each process loads its own copy; with it, all take part in each loading step.
        with nullcontext() if sharding else self._together():
            model = build()
        self._unread = model.freeze_unread(lm=self.lm_weight > 0)
        self._agree(model)
        if sharding is not None:
            from stepverify.models.parallel import shard

            shard(model, sharding, mixed=self.trainer.precision == "bf16-mixed")
        return model

    def sharding(self) -> Sharding | None:
        """Describe how parameters are sharded; None if each process holds all."""
        if self.device_mesh is None:
            return None
        return Sharding(self.device_mesh["data_parallel"], self.trainer.strategy.root_device, self._together)

    def _together(self) -> AbstractContextManager[None]:
        from stepverify.callbacks.together import together

        return together(self.trainer) if lightning_compat.is_attached(self) else nullcontext()

    def _agree(self, model: VerifierModel) -> None:
        """Use prefix packs on all processes or on none."""
        packed = model.packed
        if not lightning_compat.is_attached(self):
            return
        if not self.trainer.strategy.reduce_boolean_decision(packed, all=True) and packed:
            model.unpack("another process measured other hidden states of a tree than of its sequences")

    def _leave_out_frozen(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Remove frozen weights from the state; they are loaded again from ``backbone.path``."""
        for name in self._frozen():
            state_dict.pop(prefix + name, None)

    def _check_keys(self, keys: Any) -> None:
        """Refuse a checkpoint that lacks trained weights or has unknown ones."""
        keys.missing_keys[:] = sorted(set(keys.missing_keys) - self._frozen())
        for kind, names in (("lacks", keys.missing_keys), ("has unknown", keys.unexpected_keys)):
            if names:
                raise InputError(f"the checkpoint {kind} {len(names)} weights of this model, {names[0]} among them")

    def _frozen(self) -> set[str]:
        if self.backbone_source.weights == "random":
            return set()
        return {n for n, p in self.named_parameters(remove_duplicate=False) if not p.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what resuming on other devices or with another strategy needs."""
        resume.prepare(checkpoint, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the checkpoint, and keep the position in the training data."""
        resume.check(checkpoint, self)
        self._data_states = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])

    def on_fit_start(self) -> None:
        """Log which parameters are frozen because no loss depends on them."""
        if self._unread:
            parts = ", ".join(self._unread)
            rank_zero_info(f"{sum(self._unread.values()):,} parameters that no loss depends on are frozen: {parts}")

    def on_train_start(self) -> None:
        """Resume the training data where the checkpoint was saved.

        Lightning does not if the schedule's length is computed from epochs: it then opens the data too early.
        """
        lightning_compat.begin_next_epoch(self.trainer)
        if self._data_states:
            lightning_compat.restore_data(self.trainer, self._data_states)
            self._data_states = []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by (seed, rank, batch), for resumed runs to match."""
        if (seed := os.environ.get("PL_GLOBAL_SEED")) is not None:
            parts = [int(seed), self.global_rank, self.trainer.fit_loop.total_batch_idx]
            torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]))

    def _step(self, batch: Batch, stage: Stage) -> Tensor:
        """Compute the training loss; in validation and test, (M,) values."""
        size = len(batch.records)
        if stage == "train":
            loss, logged = self.training_loss(batch)
            self.log("train/loss", logged.pop("train/loss"), prog_bar=True, batch_size=size)
            self.log_dict(logged, batch_size=size)
            return loss
        assert self.model is not None
        assert batch.scored.targets is not None
        outputs, _ = self.model(batch)
        total, count = self.loss(outputs, batch.scored, self.model)
        mean_loss, metrics = cast(MeanMetric, self.mean_losses[stage]), cast(MetricCollection, self.metrics[stage])
        mean_loss.update(total / count.clamp(min=1e-9), count)
        self.log(f"{stage}/loss", mean_loss, prog_bar=True, batch_size=size)
        if len(metrics):
            self.update_metrics(metrics, outputs.detach(), batch)
            self.log_dict({f"{stage}/{name}": metric for name, metric in metrics.items()}, batch_size=size)
        return self.model.values(outputs)

    def training_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss to minimize and the means to log."""
        assert self.model is not None
        assert batch.scored.targets is not None
        assert batch.loss_denominators is not None
        outputs, nll = self.model(batch)
        total, count = self.loss(outputs, batch.scored, self.model)
        loss, logged = total / batch.loss_denominators[0], {"train/loss": (total / count.clamp(min=1e-9)).detach()}
        if nll is not None:
            assert batch.lm is not None
            lm, number = weighted(nll, batch.lm.weights)
            if len(nll):
                logged["train/lm_loss"] = (lm / number).detach()
            loss = loss + self.lm_weight * lm / batch.loss_denominators[1]
        return loss, logged

    def training_step(self, batch: Batch) -> Tensor:
        """Compute the loss of one training batch, divided by its loss denominator."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch) -> Tensor:
        """Log loss and metrics of one batch; return (M,) values."""
        return self._step(batch, "val")

    def test_step(self, batch: Batch) -> None:
        """Log loss and metrics of one batch."""
        self._step(batch, "test")

    def predict_step(self, batch: Batch) -> list[tuple[Solution, list[float]]]:
        """Score each record; return it with its values along the solution."""
        assert self.model is not None
        return list(zip(batch.records, batch.split(self.model.score(batch)), strict=True))

    def configure_optimizers(self) -> Any:
        """Build the optimizer with two parameter groups, and its schedule."""
        return self.optimization.build(self, self.trainer)

    def facts(self) -> dict[str, Any]:
        """Return the metadata of an export besides the template."""
        assert self.model is not None
        own = {"objective": self.model.objective, "max_length": self.encoder.max_length}
        return own | {"dtype": self.number_format(), "probe": self.encoder.probe()}

    def number_format(self) -> str:
        """Return the dtype in which the training's matrix products were computed."""
        kind = {"bf16": "bfloat16", "16": "float16"}.get(str(self.trainer.precision).split("-")[0])
        return kind or str(next(self.model.parameters()).dtype).removeprefix("torch.")  # type: ignore[union-attr]
