"""Load the backbone: weights, LoRA, dropout, gradient checkpointing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from stepverify.hub import local_model
from stepverify.models.adapters import with_adapters
from stepverify.models.attention import Attention
from stepverify.models.check import reading_of
from stepverify.models.files import return_freed_memory, tensor_by_tensor
from stepverify.models.recompute import checkpoint_layers
from stepverify.models.rows import decoder_layers
from stepverify.models.sharded import Sharding, stand_ins
from stepverify.records import InputError

_BRANCHES = {
    "self_attn": ("self_attn", "attn", "attention", "self_attention", "mamba", "linear_attn", "mixer"),
    "mlp": ("mlp", "feed_forward", "moe", "block_sparse_moe", "ffn"),
}


@dataclass(frozen=True, kw_only=True)
class LoRA:
    r"""Add low-rank adapters to the linear layers of a frozen backbone.

    Source: Hu et al. 2021.

    Attributes:
        rank: rank of the adapters.
        alpha: scale; the adapters are multiplied by alpha / rank.
        dropout: dropout before the adapters.
        targets: names of the layers; ``all-linear``, which includes the fused experts of a mixture and their router; or
            a regular expression of full names. Layers below the lowest adapter have no backward pass: on the attention
            of the upper twelve of 24 layers, ``.*layers\.(1[2-9]|2[0-3])\.self_attn\..*``, adapters train twice as fast
            as on all linear layers, with two fifths of the activations.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """Load the language model under a head.

    Attributes:
        path: local folder or Hub repository (``name/repository``, ``name/repository@revision``).
        weights: ``pretrained``, or ``random`` to train from scratch with the architecture of the folder's config.json.
        dtype: dtype of the parameters; ``auto`` takes the checkpoint's.
        attention: implementation of attention over prefix packs: ``paths`` runs flash kernels along each sequence, on a
            CPU with shared prefixes computed once; ``flex`` skips empty blocks (GPU); ``sdpa`` and ``eager`` hold the
            whole mask; ``auto`` is ``paths``. A model that does not support prefix packs keeps its own and computes
            padded rows.
        attention_dropout: dropout of attention weights; overrides the config's.
        dropout: residual dropout after each attention and each MLP (Cobbe et al. 2021 train with 0.2).
        compile: compile each layer with torch.compile; needs a C++ compiler on CPU.
        gradient_checkpointing: recompute activations in the backward pass. ``true`` recomputes whole layers: a tenth of
            the activations, a third more time. ``pointwise`` keeps the results of matrix products and attention and
            recomputes the rest: half of the activations, a tenth more time; not with ``compile``, which does that
            by itself, nor with ``flex``. ``auto`` takes the cheapest with which a measured step fits into memory, see
            :class:`stepverify.callbacks.memory.ChooseCheckpointing`.
        lora: train low-rank adapters only.
        trust_remote_code: run model code that comes with the weights.
        overrides: further entries of the model's config.json to change.
    """

    path: str
    weights: Literal["pretrained", "random"] = "pretrained"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    attention: Attention = "auto"
    attention_dropout: float | None = None
    dropout: float = 0.0
    compile: bool = False
    gradient_checkpointing: Literal["auto", "pointwise"] | bool = "auto"
    lora: LoRA | None = None
    trust_remote_code: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def folder(self) -> str:
        """Return the local folder of the files; those of a Hub repository are downloaded.

        Raises:
            InputError: no such repository that can be read from here.
        """
        return local_model(self.path)

    def load(self, sharding: Sharding | None = None) -> nn.Module:
        """Load the language model in training mode, with adapters if configured.

        It is a causal language model, or, from a folder with a token classifier, that classifier with its head.

        Args:
            sharding: each process holds its rows of every parameter, and at most one whole tensor at a time (those of a
                layer, if a checkpoint's tensors are fused); None loads everything.

        Raises:
            InputError: the folder holds no model or a quantised one, adapters are configured for a token classifier, or
                the model's attention is not supported.
        """
        model = self._read(sharding)
        return_freed_memory()
        if self.lora and any(name.endswith("ForTokenClassification") for name in model.config.architectures or ()):
            raise InputError(
                f"{self.path}: a token classifier does not support adapters: start from a causal language model"
            )
        self.examine(model)
        return_freed_memory()
        if self.dropout:
            self._add_dropout(model)
        if self.lora:
            with stand_ins(model):  # adapters are created on the weights' device, which must not be meta
                model = with_adapters(model, self.lora)
        # After the adapters: with checkpoints peft asks for gradients of the embeddings, also where they are frozen.
        if self.gradient_checkpointing in (True, "pointwise"):
            checkpoint_layers(without_adapters(model), pointwise=self.gradient_checkpointing == "pointwise")
        if self.compile:
            for layer in decoder_layers(without_adapters(model)):
                layer.compile(dynamic=True)
        # from_pretrained returns evaluation mode, in which dropout does nothing.
        return model.train()

    def _read(self, sharding: Sharding | None) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification

        changes = dict(self.overrides)
        if self.attention_dropout is not None:
            changes["attention_dropout"] = self.attention_dropout
        common: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        dtype: Any = self.dtype if self.dtype == "auto" else getattr(torch, self.dtype)

        def build() -> Any:
            try:
                config = AutoConfig.from_pretrained(self.folder, **common, **changes)
                self._refuse_quantised(config)
                # Loaded as a causal model, a classifier would silently lose its head.
                is_classifier = any(name.endswith("ForTokenClassification") for name in config.architectures or ())
                auto: Any = AutoModelForTokenClassification if is_classifier else AutoModelForCausalLM
                if self.weights == "random":
                    return auto.from_config(config, dtype=None if dtype == "auto" else dtype, **common)
                with tensor_by_tensor():
                    made = auto.from_pretrained(self.folder, dtype=dtype, output_loading_info=True, **common, **changes)
                return self._complete(*made)
            except (OSError, ValueError, SafetensorError) as error:
                raise InputError(
                    f"{self.path}: no causal language model could be loaded: {str(error).splitlines()[0]}"
                ) from None

        if sharding is None:
            return build()
        if self.weights == "random":
            log("backbone.weights: random: the first process creates all of them, and scatters them tensor by tensor")
            return sharding.spread(build)
        with sharding.together(), sharding.reading():
            model = build()
        sharding.keep_rest(model)
        return model

    def _complete(self, model: Any, report: dict[str, Any]) -> Any:
        """Log which weights are dropped, and a new output matrix; refuse other missing weights."""
        head = next((n for n, module in model.named_modules() if module is model.get_output_embeddings()), "")
        missing, unread = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
        if others := [name for name in missing if not head or not name.startswith(f"{head}.")]:
            raise InputError(
                f"{self.path}: lacks {len(others)} weights of a {type(model).__name__}, {others[0]} among them"
            )
        if unread:
            kind = type(model).__name__
            log(f"{self.path}: {len(unread)} weights are dropped, {unread[0]} among them: a {kind} has none of these")
        if missing:
            log(f"{self.path}: has no output matrix ({missing[0]}): a new one with random values is used")
        return model

    def _refuse_quantised(self, config: Any) -> None:
        for part in (config, config.get_text_config()):
            if found := getattr(part, "quantization_config", None):
                method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
                raise InputError(
                    f"{self.path}: config.json: quantization_config: quant_method: {method}: quantised models are "
                    "not supported; load it in transformers with dequantize=True, save it, and use that"
                )

    def check(self) -> None:
        """Check the settings and the local folder before data is read.

        Raises:
            InputError: no config.json in the folder, no share of what is dropped, or keys that exclude each other.
        """
        for key in ("dropout", "attention_dropout"):
            if not 0.0 <= (getattr(self, key) or 0.0) < 1.0:
                raise InputError(f"backbone.{key}: expected 0 <= share < 1, got {getattr(self, key)}")
        if self.gradient_checkpointing == "pointwise" and not self.takes_pointwise:
            other = "compile: true" if self.compile else "attention: flex"
            raise InputError(
                f"backbone.gradient_checkpointing: pointwise does not go with {other}; choose true, false or auto"
            )
        if Path(self.path).is_dir() and not (Path(self.path) / "config.json").is_file():
            raise InputError(f"{self.path}: the model folder has no config.json")

    @property
    def takes_pointwise(self) -> bool:
        """Tell whether operators are called one by one, so that some can be left out of a recomputation."""
        return not self.compile and self.attention != "flex"

    def _add_dropout(self, model: nn.Module) -> None:
        for layer in decoder_layers(without_adapters(model)):
            children = dict(layer.named_children())
            for kind, names in _BRANCHES.items():
                if not (found := [children[name] for name in names if name in children]):
                    raise InputError(f"backbone.dropout: {type(layer).__name__} has no '{kind}' to put dropout after")
                found[0].register_forward_hook(partial(_drop, share=self.dropout))

    def examine(self, model: nn.Module) -> None:
        """Measure whether the model supports prefix packs; refuse unsupported settings."""
        config: Any = model.config
        try:
            reading = reading_of(model, self.attention)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None
        if reading.packed and self.attention == "flex" and (dropout := getattr(config, "attention_dropout", 0.0)):
            raise InputError(f"backbone.attention: flex has no dropout, attention_dropout is {dropout}; choose paths")
        if not reading.packed:
            log_unpacked(str(config.model_type), reading.reason)


def log_unpacked(kind: str, reason: str) -> None:
    """Log that shared prefixes are computed for each solution, and why."""
    log(f"{kind}: shared prefixes are computed for each solution, in rows with padding (slower): {reason}")


def log(message: str) -> None:
    """Log from one process."""
    from lightning.pytorch.utilities import rank_zero_info

    rank_zero_info(message)


def _drop(module: nn.Module, args: Any, output: Any, *, share: float) -> Any:
    first = output[0] if isinstance(output, tuple) else output
    dropped = nn.functional.dropout(first, share, module.training)
    return (dropped, *output[1:]) if isinstance(output, tuple) else dropped


def without_adapters(model: nn.Module) -> nn.Module:
    """Return the Hugging Face model without adapters wrapped around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
