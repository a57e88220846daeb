"""Choose precision, tokens of a step and adapters for the memory of this machine.

The figures are those of ``lit_configs/overlays/gpu.yaml`` and ``cpu.yaml``: bytes of parameters, gradients and AdamW,
and of activations by the sizes of a layer. They are estimates; ``stepverify fit`` measures its first steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from stepverify.device import multiplies_in_bfloat16
from stepverify.memory import available_on_host, size
from stepverify.records import InputError

_PACKS = (8192, 4096, 2048, 1024, 512, 256)
_STEPS = 20  # of an epoch at least, where data is little
_MARGIN = 0.1  # of the memory, left free
_RANK = 16
_HEAD = 1024  # positions whose logits are computed together


@dataclass(frozen=True)
class Sizes:
    """Hold the sizes of a model that memory depends on."""

    parameters: int
    hidden: int
    mlp: int
    keys: int
    layers: int
    vocabulary: int
    context: int | None

    def need(self, tokens: int, *, lora: bool, mixed: bool, recomputed: bool) -> int:
        """Estimate the bytes of a training step.

        Args:
            tokens: in a batch.
            lora: adapters are trained in place of all parameters.
            mixed: products in bfloat16.
            recomputed: whole layers, in place of keeping all activations.
        """
        f, h, k = self.mlp, self.hidden, self.keys
        adapters = _RANK * self.layers * (6 * h + 3 * f + 2 * k)
        trained = adapters if lora else self.parameters
        held = (
            4 * self.parameters + 12 * trained + (4 * adapters if lora else 0) + (2 * self.parameters if mixed else 0)
        )
        layer = 8 * f + 30 * h + 4 * k if mixed else 16 * f + 32 * h + 8 * k
        kept = (self.layers * 4 * h + layer) if recomputed else self.layers * layer
        return held + tokens * kept + 8 * self.vocabulary * min(tokens, _HEAD)


@dataclass(frozen=True)
class Plan:
    """Hold what was chosen for the machine.

    Attributes:
        pack_tokens: tokens of a training batch.
        lora: adapters are trained.
        precision: of the trainer.
        why: reason of the adapters or their absence, and of the precision.
        said: what was found, a line each.
    """

    pack_tokens: int
    lora: bool
    precision: str
    why: str
    said: list[str]


def sizes_of(folder: str) -> Sizes:
    """Read the sizes of a model from its configuration, without its weights.

    Raises:
        InputError: no configuration of a causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config: Any = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: no causal language model: {str(error).splitlines()[0]}") from None
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None) or 1
    each = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Sizes(
        parameters=sum(p.numel() for p in model.parameters()), hidden=text.hidden_size,
        mlp=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * each, layers=text.num_hidden_layers,
        vocabulary=text.vocab_size, context=getattr(text, "max_position_embeddings", None),
    )  # fmt: skip


def look() -> tuple[str, int, bool]:
    """Return the name of this machine's device, its free bytes, and whether it multiplies in bfloat16."""
    import torch

    if torch.cuda.is_available():
        free = torch.cuda.mem_get_info(0)[0]
        return torch.cuda.get_device_name(0), free, torch.cuda.get_device_capability(0) >= (8, 0)
    return "CPU", available_on_host(), multiplies_in_bfloat16()


def plan(model: str, sizes: Sizes, longest: int, tokens: int, machine: tuple[str, int, bool]) -> Plan:
    """Choose the largest batch that fits; adapters if training all parameters does not.

    Args:
        model: its name, for messages.
        sizes: of the model.
        longest: tokens of the longest solution that is trained on.
        tokens: of the training data, as far as it was read.
        machine: of :func:`look`.

    Raises:
        InputError: not even adapters fit, with what is needed and what there is.
    """
    name, free, mixed = machine
    room = round((1 - _MARGIN) * free)
    useful = max(longest, tokens // _STEPS)
    packs = [pack for pack in _PACKS if longest <= pack and (pack <= useful or pack == _smallest(longest))]
    packs = packs or [longest]
    precision = "bf16-mixed" if mixed else "32-true"
    said = [f"machine: {name}, {size(free)} free; {sizes.parameters / 1e6:,.1f} M parameters, {precision}"]
    for lora, pack in product((False, True), packs):
        needs = {done: sizes.need(pack, lora=lora, mixed=mixed, recomputed=done) for done in (False, True)}
        if needs[True] > room:  # `gradient_checkpointing: auto` recomputes where that is needed
            continue
        recomputed = needs[False] > room
        why = f"about {size(needs[recomputed])} of {size(free)}" + ", layers recomputed" * recomputed
        full = sizes.need(packs[-1], lora=False, mixed=mixed, recomputed=True)
        how = f"adapters: all parameters would need {size(full)}" if lora else "all parameters are trained"
        said.append(f"batch: {pack:,} tokens need {why}; {how}")
        return Plan(pack, lora, precision, why, said)
    raise InputError(
        f"{model}: training adapters on a batch of {packs[-1]:,} tokens needs about "
        f"{size(sizes.need(packs[-1], lora=True, mixed=mixed, recomputed=True))}, and {name} has {size(free)} free; "
        "take a smaller model, or divide it over several GPUs (lit_configs/overlays/fsdp2.yaml)"
    )


def _smallest(longest: int) -> int:
    return min((pack for pack in _PACKS if pack >= longest), default=longest)
