"""Apply heads to the hidden states at scored positions only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from stepverify.data.batch import Batch
from stepverify.losses import token_nll
from stepverify.models.attention import plain
from stepverify.models.backbone import without_adapters
from stepverify.models.check import reading_of
from stepverify.models.export import (
    SHARD_SIZE,
    Form,
    Head,
    empty_classifier,
    plain_state,
    save_adapter,
    save_causal,
    save_classifier,
    save_value_head,
    strip,
)  # fmt: skip
from stepverify.models.rows import decoder_of, idle, num_passes, reset_rope, unrolled
from stepverify.models.weights import State, state_of
from stepverify.records import InputError

Rows = tuple[Tensor, Tensor | None]


class VerifierModel(nn.Module):
    """Combine a backbone with a head at ``batch.scored``; subclasses add the head.

    Args:
        backbone: a Hugging Face causal language model, possibly with adapters.
    """

    objective = ""
    form: Form = "causal"
    labels: tuple[str, ...] = ()
    gathered_dtype: Any = None  # torch.dtype of FSDP2's gathered parameters, if not that of the shards
    # Maps this rank's number of forward passes to the maximum over ranks, if passes are collective.
    most_passes: Callable[[int], int] | None = None

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.reading = reading_of(without_adapters(backbone))
        # Some models scale or bound their logits; scores must match those of the exported model.
        self.logit_scale, self.softcap = self.reading.scale, self.reading.softcap

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert parameters, but keep the dtype of buffers that are not saved.

        Rotary frequencies rounded to bfloat16 would rotate by other angles than the export's.
        """
        kept = [(m, n, m._buffers[n]) for m in self.modules() for n in m._non_persistent_buffers_set]
        super()._apply(fn, recurse)
        for module, name, before in kept:
            after = module._buffers[name]
            if before is not None and after is not None and after.dtype != before.dtype:
                module._buffers[name] = before.to(after.device)
        return self

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Compute outputs at ``batch.scored``, and losses in nats at ``batch.lm`` if present."""
        # Before the decoder, so that autograd comes to them last: the gradient of picked rows is as large as the whole
        # matrix, and activations of all layers would still be held beside it.
        rows = self.head_rows()
        states = self.states(batch)
        outputs = self.read(states[batch.scored.index], batch, rows)
        if batch.lm is None:
            return outputs, None
        assert batch.lm.targets is not None
        return outputs, self.token_nll(states[batch.lm.index], batch.lm.targets)

    def head_rows(self) -> Rows | None:
        """Pick the rows of output matrix and bias that make up the head; None for another head."""
        return None

    def read(self, hidden: Tensor, batch: Batch, rows: Rows | None) -> Tensor:
        """Apply the head, of which ``rows`` are :meth:`head_rows`, to (M, D) hidden states at the read positions."""
        raise NotImplementedError

    def score(self, batch: Batch) -> Tensor:
        """Compute (M,) probabilities in [0, 1] at the scored positions."""
        return self.values(self(batch)[0])

    def states(self, batch: Batch) -> Tensor:
        """Compute (L, D) hidden states."""
        decoder, limit = decoder_of(without_adapters(self.backbone)), self.reading.row_limit
        packs, extra = self.packs(batch.tree.rows.shape[1]), 0
        if limit is not None and self.most_passes is not None:
            count = 1 if packs else num_passes(batch.tree, limit)
            extra = self.most_passes(count) - count
        if packs:
            if limit is not None:
                reset_rope(decoder)
            ids, depth = batch.input_ids[None], batch.tree.depth[None]
            found = decoder(input_ids=ids, position_ids=depth, use_cache=False, tree=batch.tree)
            states: Tensor = found.last_hidden_state[0]
        else:
            with self._plain():
                states = unrolled(decoder, batch.input_ids, batch.tree, limit)
        with self._plain():
            return sum((idle(decoder, batch.input_ids) for _ in range(extra)), start=states)

    @property
    def packed(self) -> bool:
        """Check whether the model supports prefix packs."""
        return self.reading.packed

    def packs(self, longest: int) -> bool:
        """Check whether sequences of up to ``longest`` tokens may share prefixes."""
        limit = self.reading.row_limit
        return self.packed and (limit is None or longest <= limit)

    def unpack(self, reason: str) -> None:
        """Compute padded rows from now on."""
        self.reading.packed, self.reading.reason = False, reason

    def _plain(self) -> AbstractContextManager[None]:
        return plain(without_adapters(self.backbone).config, self.reading.own)

    def decode(self, **inputs: Any) -> Any:
        """Run the causal language model, with padded rows and a cache."""
        with self._plain():
            return self.backbone(**inputs)

    def generate(self, **inputs: Any) -> Tensor:
        """Generate (B, T) token ids, with the arguments of transformers' ``generate``."""
        with self._plain():
            return self.backbone.generate(**inputs)  # type: ignore[operator]

    def token_nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Compute (M,) negative log-likelihoods of token ids, in nats."""
        return token_nll(hidden, *self.output_matrix(), targets, scale=self.logit_scale, softcap=self.softcap)

    def output_matrix(self) -> tuple[Tensor, Tensor | None]:
        """Return the vocabulary head: (V, D) weight and (V,) bias or None."""
        head = without_adapters(self.backbone).get_output_embeddings()  # type: ignore[operator]
        if head is None:
            raise InputError("the backbone is a token classifier, without a vocabulary head: take its causal form")
        return head.weight, head.bias

    def head_parameters(self) -> Iterable[Tensor | None]:
        """Return the parameters that :meth:`read` applies to hidden states."""
        return self.output_matrix()

    def freeze_unread(self, *, lm: bool) -> dict[str, int]:
        """Freeze parameters that no loss depends on.

        DDP would wait for their gradient. These are an output matrix that the head does not use, and all parts of a
        wrapper around the decoder, such as the vision tower of a multimodal model.

        Args:
            lm: whether a language-model loss is trained jointly.

        Returns:
            Number of parameters frozen by this call, by the module that holds them.
        """
        backbone = without_adapters(self.backbone)
        read = {*decoder_of(backbone).parameters(), *self.head_parameters()}
        read |= {*self.output_matrix()} if lm else set()
        frozen: dict[str, int] = {}
        for name, parameter in backbone.named_parameters():
            if parameter.requires_grad and parameter not in read:
                parameter.requires_grad_(False)
                part = ".".join(name.split(".")[:-1][:2])
                frozen[part] = frozen.get(part, 0) + parameter.numel()
        return frozen

    def values(self, outputs: Tensor) -> Tensor:
        """Convert outputs of :meth:`read` to (M,) probabilities in [0, 1]."""
        raise NotImplementedError

    def export(
        self, folder: Path, state: Mapping[str, Tensor], form: Form | None = None, base: str = "",
        max_shard_size: str = SHARD_SIZE,
    ) -> None:  # fmt: skip
        """Write a Hugging Face model, holding at most one layer meanwhile.

        Args:
            folder: output folder.
            state: this module's full state, possibly gathered on access.
            form: None is the model's own :attr:`form`.
            base: for an adapter, the model that it is loaded on.
            max_shard_size: largest size of a file, as in transformers' ``save_pretrained``.
        """
        form, state = form or self.form, state_of(state)
        plain = plain_state(self.backbone, state)
        both = State({**state.shapes, **plain.shapes}, lambda name: (plain if name in plain else state)[name])
        own = self.classifier_head(both) if self.form != "causal" else None
        if form == "adapter":
            head = own if self.form == "classifier" else None
            save_adapter(self.backbone, folder, strip(state, "backbone."), base, head)
        elif form == "classifier":
            save_classifier(self.backbone, folder, plain, own or self.classifier_head(both), max_shard_size)
        else:
            save_causal(self.backbone, folder, plain, max_shard_size)
        if own is not None and self.form == "value_head":
            save_value_head(folder, own)

    def classifier_head(self, state: Mapping[str, Tensor]) -> Head:
        """Return the head of a token classifier that gives this model's scores.

        Args:
            state: this module's state, with the names of the plain backbone in addition.
        """
        raise NotImplementedError

    def check_classifier(self) -> None:
        """Check before training that a token classifier can give this model's scores.

        Raises:
            InputError: with the reason.
        """
        empty_classifier(self.backbone, self.labels)


class GeneratorModel(VerifierModel):
    """Compute the next-token likelihood of solution tokens."""

    objective = "generator"

    def stop_at(self, end_id: int) -> None:
        """Add a token to those that end a sampled text, in the export too."""
        config: Any = getattr(without_adapters(self.backbone), "generation_config", None)
        if config is None:
            return
        listed = config.eos_token_id
        known = [] if listed is None else [*listed] if isinstance(listed, list) else [listed]
        if end_id not in known:
            config.eos_token_id = [*known, end_id] if known else end_id

    def read(self, hidden: Tensor, batch: Batch, rows: Rows | None) -> Tensor:
        """Compute (M,) negative log-likelihoods of the targets, in nats."""
        assert batch.scored.targets is not None
        return self.token_nll(hidden, batch.scored.targets)

    def values(self, outputs: Tensor) -> Tensor:
        """Convert negative log-likelihoods to the probability of each token."""
        return (-outputs).exp()
