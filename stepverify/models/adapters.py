"""Add low-rank adapters to a model, and merge them into its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from stepverify.models.weights import State, state_of
from stepverify.records import InputError

if TYPE_CHECKING:
    from stepverify.models.backbone import LoRA


def with_adapters(model: nn.Module, lora: LoRA) -> nn.Module:
    """Freeze a model and add LoRA adapters to its layers.

    Raises:
        InputError: no such layers, or layers whose adapters cannot be merged by an export.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets,
        task_type=TaskType.CAUSAL_LM,
    )  # fmt: skip
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"backbone.lora: {str(error).splitlines()[0]}") from None
    _check(adapted)
    return adapted


def _check(adapted: nn.Module) -> None:
    """Refuse, before training, adapters that :func:`merged` could not merge."""
    from peft.tuners.lora.layer import Linear, ParamWrapper

    names = _names(adapted)
    owners = Counter(id(p) for _, p in adapted.named_parameters(remove_duplicate=False))
    experts = 0
    for layer in _layers(adapted):
        # Exact types: quantized and other layers have subclasses.
        if type(layer) not in (Linear, ParamWrapper):
            kind = type(layer.get_base_layer()).__name__
            raise InputError(
                f"backbone.lora: adapters of {names[layer]} ({kind}) cannot be merged; leave it out of targets"
            )
        weight = getattr(layer.get_base_layer(), _parameter(layer))
        if owners[id(weight)] > 1:
            raise InputError(
                f"backbone.lora: the weight of {names[layer]} is tied to another layer's; leave it out of targets"
            )
        experts += weight.ndim > 2
    if experts:
        head = adapted.get_output_embeddings()  # type: ignore[operator]
        linear = [n for n, m in adapted.named_modules() if isinstance(m, nn.Linear) and m is not head]
        bare = [n.rpartition(".")[2] for n in linear if ".lora_" not in n and ".base_layer" not in n]
        without = f"; {len(bare)} linear layers have none ({', '.join(sorted(set(bare)))})" if bare else ""
        rank_zero_info(f"backbone.lora: adapters on {experts} fused weights, one for each of their experts{without}")


def merged(adapted: nn.Module, state: Mapping[str, Tensor]) -> State:
    """Merge low-rank updates into the frozen weights, each when it is accessed.

    Args:
        adapted: model with adapters, possibly sharded, for their types and scales.
        state: its full state, the source of all weights; not changed.

    Returns:
        Weights under the names of the plain model.
    """
    state, names = state_of(state), _names(adapted)
    layers = {f"{names[layer.get_base_layer()]}.{_parameter(layer)}": layer for layer in _layers(adapted)}
    plain = {_plain(k): k for k in state if ".lora_" not in k}

    def make(name: str) -> Tensor:
        weight = state[key := plain[name]]
        if (layer := layers.get(key)) is None:
            return weight
        own = f"{names[layer]}."
        factors = {f"layer.{k.removeprefix(own)}": state[k] for k in state if k.startswith(f"{own}lora_")}
        with torch.no_grad():
            update = torch.func.functional_call(_Update(layer), factors)
        return (weight.float() + update.to(weight.device, torch.float32)).to(weight.dtype)

    return State({name: state.shapes[key] for name, key in plain.items()}, make)


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


class _Update(nn.Module):
    """Compute the scaled product of a layer's low-rank factors."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self) -> Tensor:
        return self.layer.get_delta_weight("default")  # type: ignore[operator]


def _layers(adapted: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]


def _names(adapted: nn.Module) -> dict[nn.Module, str]:
    return {module: name for name, module in adapted.named_modules()}


def _parameter(layer: Any) -> str:
    """Return the name of the parameter that a layer adapts."""
    return getattr(layer, "parameter_name", "weight")
