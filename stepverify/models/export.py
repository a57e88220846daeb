"""Export trained weights as Hugging Face folders that load without this package.

Forms: causal language models, token classifiers, adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stepverify.hub import split_revision
from stepverify.models.adapters import merged
from stepverify.models.backbone import without_adapters
from stepverify.models.weights import State, repeated, state_of, write_weights
from stepverify.records import InputError

Form = Literal["causal", "classifier", "value_head", "adapter"]
VALUE_HEAD = "value_head.safetensors"
SHARD_SIZE = "5GB"


@dataclass(frozen=True)
class Head:
    """Hold the linear head of a token classifier.

    Attributes:
        weight: (K, D).
        bias: (K,), or None for zeros.
        labels: K names.
    """

    weight: Tensor
    bias: Tensor | None
    labels: tuple[str, ...]


def plain_state(backbone: nn.Module, state: State) -> State:
    """Extract the backbone's weights from a full state, with adapters merged.

    Names are those of the plain model.
    """
    own = strip(state, "backbone.")
    return own if backbone is without_adapters(backbone) else merged(backbone, own)


def strip(state: State, prefix: str) -> State:
    """Select the entries that begin with ``prefix``, and remove it."""
    return state.select({name.removeprefix(prefix): name for name in state if name.startswith(prefix)})


def output_rows(backbone: nn.Module, state: Mapping[str, Tensor], ids: list[int]) -> tuple[Tensor, Tensor | None]:
    """Copy rows of the vocabulary head and its bias from a :func:`plain_state`.

    The bias is None if there is none.
    """
    causal: Any = without_adapters(backbone)
    names = {module: name for name, module in causal.named_modules()}
    head = names[causal.get_output_embeddings()]
    weight = state.get(f"{head}.weight")
    if weight is None:  # tied, and stored under the other name
        weight = state[f"{names[causal.get_input_embeddings()]}.weight"]
    bias = state.get(f"{head}.bias")
    # Copied, as saving a view would write the whole matrix.
    return weight[ids].clone(), None if bias is None else bias[ids].clone()


def save_causal(backbone: nn.Module, folder: Path, state: State, max_shard_size: str = SHARD_SIZE) -> None:
    """Write a causal language model from a :func:`plain_state`."""
    causal: Any = without_adapters(backbone)
    once = state.keys() - repeated(causal)
    write_weights(causal, folder, state.select({name: name for name in state if name in once}), max_shard_size)


def empty_classifier(backbone: nn.Module, labels: tuple[str, ...]) -> Any:
    """Create the token classifier of the backbone's architecture, without weights.

    Raises:
        InputError: transformers has none, or one whose head is not a linear layer ``score`` with a bias, or whose other
            weights are not the backbone's.
    """
    from transformers import AutoModelForTokenClassification

    causal: Any = without_adapters(backbone)
    config = copy.deepcopy(causal.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in config.id2label.items()}
    try:
        with torch.device("meta"):
            classifier = AutoModelForTokenClassification.from_config(config, dtype=causal.dtype)
    except ValueError:
        classifier = None
    head = getattr(classifier, "score", None)
    if not isinstance(head, nn.Linear) or head.bias is None:
        raise InputError(f"{config.model_type}: transformers has no token classifier with a linear head for this model")
    names = {name for name in classifier.state_dict() if not name.startswith("score.")}
    if missing := names - {name.replace(".base_layer.", ".") for name in causal.state_dict()}:
        raise InputError(f"{config.model_type}: its token classifier has other weights, {min(missing)} among them")
    classifier.config.architectures = [type(classifier).__name__]
    return classifier


def save_classifier(
    backbone: nn.Module, folder: Path, state: State, head: Head, max_shard_size: str = SHARD_SIZE
) -> None:
    """Write an ``AutoModelForTokenClassification`` from a :func:`plain_state` and a head."""
    classifier = empty_classifier(backbone, head.labels)
    wanted = classifier.state_dict()
    bias = torch.zeros(len(head.labels)) if head.bias is None else head.bias
    own = {"score.weight": head.weight.to(classifier.dtype), "score.bias": bias.to(classifier.dtype)}
    shapes = {name: shape for name, shape in state.shapes.items() if name in wanted} | dict(state_of(own).shapes)
    assert not (missing := wanted.keys() - shapes.keys()), f"export lacks {sorted(missing)[:3]}"
    weights = State(shapes, lambda name: own[name] if name in own else state[name])
    write_weights(classifier, folder, weights, max_shard_size)


def save_value_head(folder: Path, head: Head) -> None:
    """Write the linear value head on a causal model's last hidden states.

    Args:
        folder: folder of the causal model.
        head: ``weight`` (1, D) and ``bias`` (1,) are written under these names.
    """
    from safetensors.torch import save_file

    assert head.bias is not None
    tensors = {"weight": head.weight.reshape(1, -1), "bias": head.bias.reshape(1)}
    save_file({k: v.contiguous() for k, v in tensors.items()}, str(folder / VALUE_HEAD), metadata={"format": "pt"})


def load_value_head(folder: str | Path) -> nn.Linear | None:
    """Read the value head of an export; None if it has none."""
    from safetensors.torch import load_file

    if not (path := Path(folder) / VALUE_HEAD).is_file():
        return None
    state = load_file(str(path))
    head = nn.Linear(state["weight"].shape[1], 1, dtype=state["weight"].dtype)
    head.load_state_dict(state)
    return head


def save_adapter(backbone: nn.Module, folder: Path, state: Mapping[str, Tensor], base: str, head: Head | None) -> None:
    """Write the low-rank adapters for peft on the model ``base``.

    Args:
        backbone: with adapters.
        folder: output folder.
        state: the backbone's full state, not merged.
        base: value of ``base_model_name_or_path``.
        head: saved with the adapters; base is then loaded as a token classifier.
    """
    from peft import TaskType
    from safetensors.torch import save_file

    adapted: Any = backbone
    config = copy.deepcopy(adapted.peft_config["default"])
    config.base_model_name_or_path, config.revision = split_revision(base)
    config.inference_mode = True
    weights = {k.replace(".default.", "."): state[k].contiguous() for k in state if ".lora_" in k}
    if head is not None:
        assert head.bias is not None
        config.task_type, config.modules_to_save = TaskType.TOKEN_CLS, ["score"]
        weights |= {"base_model.model.score.weight": head.weight, "base_model.model.score.bias": head.bias}
    config.save_pretrained(str(folder))
    save_file(weights, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
