"""Measure how a loaded model handles prefix trees and logits.

Architectures do not declare this: a layer that drops a keyword, a recurrent state or a position counted by row gives
other scores without an error. So every model is measured, on a dozen tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from stepverify.data.batch import Tree, lay_out
from stepverify.data.tree import share
from stepverify.losses import bounded
from stepverify.models.attention import PREFIX, Attention, register
from stepverify.models.rows import decoder_layers, decoder_of, reset_rope, row_limit, unrolled
from stepverify.models.sharded import gathered, home, is_divided
from stepverify.records import InputError

_HALF = (torch.bfloat16, torch.float16)
_WINDOWS = ("sliding_window", "attention_chunk_size", "index_topk")
TOLERANCE = 2e-5  # in float32: deep models differ by 1e-6, unsupported trees by 1e-3 and more
_SHARED = 4  # tokens of the common prefix
_NARROW = 3  # tokens: shorter than the sequences of the check


@dataclass
class Reading:
    """Describe how a model computes batches and logits, as measured.

    Attributes:
        packed: its attention supports prefix packs; otherwise sequences become padded rows.
        own: attention implementation of transformers that gives the model's own scores, ``sdpa`` or ``eager``.
        sdpa: transformers chooses ``sdpa`` by default.
        row_limit: longer rows are computed one at a time, as their length or padding would change other rows; None for
            no limit.
        scale: factor of the logits.
        softcap: bound of the logits, if any.
        reason: why it does not support prefix packs.
    """

    packed: bool
    own: str
    sdpa: bool = False
    row_limit: int | None = None
    scale: float = 1.0
    softcap: float | None = None
    reason: str = ""


def reading_of(model: Any, attention: Attention = "auto") -> Reading:
    """Measure a Hugging Face model once, and set its attention accordingly.

    Two sequences with a common prefix go through the decoder separately, as padded rows, and as a prefix tree, in
    float32: half formats round by more than the errors of some unsupported models. Attention windows are narrowed
    meanwhile, so that they take effect. Random state, mode and weights are restored. Memory: embeddings and one layer
    in float32. A sharded model is measured by all processes together, which gather one layer, or the embeddings, at a
    time.

    Args:
        model: a causal language model or a token classifier with its weights, without adapters or compiled layers.
        attention: implementation for prefix trees; the model's, if one of ours is already set.

    Raises:
        InputError: scores depend on later tokens, or logits are not those of a linear head.
    """
    known: Reading | None = getattr(model, "reading", None)
    if known is None:
        if any(p.is_meta for p in model.parameters()) and not is_divided(model):
            raise ValueError("a model without weights (device meta) cannot be examined")
        was_training = model.training
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]), exact(model), gathered(model, torch.float32):
            known = _Examination(model, attention).result()
        model.train(was_training)
        model.reading = known
    return known


class _Examination:
    def __init__(self, model: Any, attention: Attention) -> None:
        self.model = model
        self.decoder: Any = decoder_of(model)
        self.config: Any = model.config
        self.kind: str = self.config.model_type
        given: str = self.config._attn_implementation or ""
        self.tree_attention = given if given.startswith(PREFIX) else register(attention)
        self.loaded_with = given if given in ("sdpa", "eager") else "eager"
        self.sequences = sequences_for(self.config, self.model.get_input_embeddings().weight.shape[0])
        self.device = home(model)

    def result(self) -> Reading:
        own, alone = self._own()
        limit = row_limit(self.decoder)
        self._set(own)
        shared = self._alone([self.sequences[0][:_SHARED]])
        if (off := difference(shared, [alone[0][:_SHARED]])) > TOLERANCE:
            raise InputError(
                f"{self.kind}: not a causal language model: hidden states change by {off:.1e} of their size with the "
                "tokens that follow"
            )
        if difference(self._paths(unrolled(self.decoder, *self._tree(), None)), alone) > TOLERANCE:
            limit = 0  # padding changes the hidden states, so each row is computed separately
        scale, softcap = self._logits(alone[0])
        reason = self._why_not_packed(own)
        self._set(own if reason else self.tree_attention)
        return Reading(not reason, own, self.has_sdpa, limit, scale, softcap, reason)

    def _own(self) -> tuple[str, list[Tensor]]:
        """Choose the attention with the model's own scores; return hidden states too."""
        self.has_sdpa = self.loaded_with == "sdpa"
        if not self._can_set():
            return self.loaded_with, self._alone()
        self._set("eager")
        exact = self._alone()
        try:
            self._set("sdpa")
        except (ValueError, ImportError):
            return "eager", exact
        self.has_sdpa = True
        quick = self._alone()
        # Fused kernels ignore bounds of the products, which may not matter for few tokens.
        bounds = getattr(self.config.get_text_config(), "attn_logit_softcapping", None) is not None
        if bounds or difference(quick, exact) > TOLERANCE:
            return "eager", exact
        return "sdpa", quick

    def _why_not_packed(self, own: str) -> str:
        if not self._can_set():
            return "its layers do not use transformers' attention interface"
        with narrowed(self.model):
            self._set(own)
            alone = self._alone()
            # Not FlexAttention, which would be compiled for these few tokens; all four give the same results.
            self._set(register("paths") if self.tree_attention == register("flex") else self.tree_attention)
            ids, tree = self._tree()
            try:
                states = self.decoder(
                    input_ids=ids[None], position_ids=tree.depth[None], use_cache=False, tree=tree
                ).last_hidden_state[0]
            except Exception as error:  # model code may raise anything for an unknown keyword
                said = str(error).partition("\n")[0]
                return said if isinstance(error, InputError) else f"{type(error).__name__}: {said}"
        if (off := difference(self._paths(states), alone)) > TOLERANCE:
            return f"hidden states of a tree differ from those of its sequences by {off:.1e} of their size"
        return ""

    def _logits(self, hidden: Tensor) -> tuple[float, float | None]:
        """Find the scale and bound that give the model's own logits."""
        head = self.model.get_output_embeddings() or getattr(self.model, "score", None)
        if head is None:
            raise InputError(f"{self.kind}: has no output matrix that could be read")
        found = self.model(input_ids=self._ids(self.sequences[0]), use_cache=False).logits[0].double()
        raw = head(hidden).double()
        error, scale, softcap = float("inf"), 1.0, None
        if raw.shape == found.shape:
            stated = _numbers(self.config)
            caps = [value for name, value in stated if "logit" in name and "cap" in name and "attn" not in name]
            tried = [_fit(raw, found, cap, [value for _, value in stated]) for cap in (*caps, None)]
            error, scale, softcap = min(tried, key=lambda fit: fit[0])
        if error > TOLERANCE:
            raise InputError(
                f"{self.kind}: its logits are not those of a linear head on the last hidden states, scaled or bounded"
            )
        return scale, softcap

    def _can_set(self) -> bool:
        return bool(self.decoder._can_set_attn_implementation())

    def _set(self, name: str) -> None:
        if self._can_set() and self.config._attn_implementation != name:
            self.model.set_attn_implementation(name)

    def _ids(self, sequence: Sequence[int]) -> Tensor:
        return torch.tensor([sequence], device=self.device)

    def _alone(self, sequences: Sequence[Sequence[int]] = ()) -> list[Tensor]:
        """Compute (T, D) hidden states of each sequence by itself."""
        states = []
        for sequence in sequences or self.sequences:
            reset_rope(self.decoder)
            states.append(self.decoder(input_ids=self._ids(sequence), use_cache=False).last_hidden_state[0])
        return states

    def _tree(self) -> tuple[Tensor, Tree]:
        forest = share(self.sequences)
        return torch.from_numpy(forest.ids).to(self.device), lay_out(forest).to(self.device)

    def _paths(self, states: Tensor) -> list[Tensor]:
        return [states[torch.from_numpy(path).to(self.device)] for path in share(self.sequences).paths]


def sequences_for(config: Any, size: int) -> list[list[int]]:
    """Make sequences of 9 and 7 ordinary token ids that share 4."""
    configs = (config, config.get_text_config())
    special = {
        value for c in configs for name, value in vars(c).items() if name.endswith(("_token_id", "_token_index"))
        and isinstance(value, int)
    }  # fmt: skip
    plain = list(islice((i for i in range(min(size, 1000) - 1, -1, -1) if i not in special), 12))
    plain = [plain[i % len(plain)] for i in range(12)]
    return [plain[:9], plain[:_SHARED] + plain[9:]]


def _numbers(config: Any) -> list[tuple[str, float]]:
    """List names and values of the positive numbers in a configuration."""
    values = vars(config.get_text_config()).items()
    return [(n, float(v)) for n, v in values if isinstance(v, int | float) and not isinstance(v, bool) and v > 0]


def _fit(
    raw: Tensor, found: Tensor, softcap: float | None, stated: Sequence[float]
) -> tuple[float, float, float | None]:
    """Fit scale and bound that turn ``raw`` logits into the model's.

    Returns relative error, scale and bound. The scale is measured, then replaced by 1, a number of the configuration or
    its inverse if one is near enough.
    """
    asked = found
    if softcap is not None:
        asked = softcap * torch.atanh((found / softcap).clamp(-1 + 1e-12, 1 - 1e-12))
    size = raw.square().sum().item()
    scale = (asked * raw).sum().item() / size if size else 1.0
    near = [s for value in (1.0, *stated) for s in (value, 1 / value) if abs(scale / s - 1) < TOLERANCE]
    scale = min(near, key=lambda s: 0.0 if s == 1.0 else abs(scale / s - 1), default=scale)
    error = (bounded(raw, softcap, scale) - found).norm() / found.norm().clamp(min=1e-12)
    return error.item(), scale, softcap


def difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Compute the largest relative distance between hidden states of a token."""
    parts = [
        (f.double() - w.double()).norm(dim=-1) / w.double().norm(dim=-1).clamp(min=1e-12)
        for f, w in zip(found, wanted, strict=True)
    ]
    return torch.cat(parts).nan_to_num(nan=float("inf")).max().item()


@contextmanager
def exact(model: nn.Module) -> Iterator[None]:
    """Compute in float32 meanwhile, casting layers one at a time."""
    layers = decoder_layers(model)
    stacks: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def cast(part: nn.Module, *given: Any) -> None:
        own = (t for t in (*part.parameters(), *part.buffers()) if t.dtype in _HALF and not t.is_meta)
        tensors = {id(t): t for t in own if id(t) not in inside}
        stacks[part] = [(tensor, tensor.data) for tensor in tensors.values()]
        for tensor, value in stacks[part]:
            tensor.data = value.float()

    def restore(part: nn.Module, *given: Any) -> None:
        for tensor, value in stacks.pop(part):
            tensor.data = value

    inside = {id(t) for t in (*layers.parameters(), *layers.buffers())}
    cast(model)
    inside = set()
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    hooks = [layer.register_forward_pre_hook(cast) for layer in layers]
    hooks += [layer.register_forward_hook(restore, always_call=True) for layer in layers]
    try:
        with torch.autocast(home(model).type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions
        restore(model)
        for hook in hooks:
            hook.remove()


@contextmanager
def narrowed(model: Any) -> Iterator[None]:
    """Narrow attention windows meanwhile, so that short sequences reach them."""
    holders = {id(h): h for m in model.modules() for h in (m, getattr(m, "config", None)) if h is not None}
    changed = [
        (holder, name, value) for holder in holders.values() for name in _WINDOWS
        if isinstance(value := getattr(holder, name, None), int) and not isinstance(value, bool) and value > _NARROW
    ]  # fmt: skip
    for holder, name, _ in changed:
        setattr(holder, name, _NARROW)
    try:
        yield
    finally:
        for holder, name, value in changed:
            setattr(holder, name, value)
