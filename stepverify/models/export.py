"""Trained weights → Hugging Face models that load without code of ours."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepverify.models.backbone import without_adapters


def save_causal(causal: Any, state: dict[str, Tensor], folder: Path) -> None:
    """Write the causal language model.

    Args:
        causal: the Hugging Face model.
        state: its full (gathered) state, adapters merged.
        folder: where to.
    """
    # A state that was gathered from shards holds a tied matrix twice. A copy, because saving empties what it is given.
    twice = causal._tied_weights_keys if causal.config.tie_word_embeddings else ()
    causal.save_pretrained(folder, state_dict={k: v for k, v in state.items() if k not in twice})


def save_classifier(
    causal: Any, state: dict[str, Tensor], weight: Tensor, bias: Tensor, labels: list[str], folder: Path
) -> None:
    """Write an ``AutoModelForTokenClassification`` whose logits are a linear head's at every token.

    Args:
        causal: the Hugging Face model.
        state: its full (gathered) state, adapters merged.
        weight: (C, D) of the head.
        bias: (C,).
        labels: names of the C classes.
        folder: where to.

    Raises:
        ValueError: transformers has no token classifier of this architecture.
    """
    from transformers import AutoModelForTokenClassification

    config = copy.deepcopy(causal.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    with torch.device("meta"):
        classifier = AutoModelForTokenClassification.from_config(config, dtype=causal.dtype)
    wanted = classifier.state_dict()
    body = {k: v for k, v in state.items() if k in wanted}
    head = {"score.weight": weight.to(causal.dtype), "score.bias": bias.to(causal.dtype)}
    missing = set(wanted) - set(body) - set(head)
    assert not missing, f"export lacks {sorted(missing)[:3]}"
    classifier.config.architectures = [type(classifier).__name__]
    classifier.save_pretrained(folder, state_dict=body | head)


def merged(adapted: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold low-rank updates, if there are any, into the frozen weights; names are the plain model's."""
    if adapted is without_adapters(adapted):
        return state
    plain = {}
    for key, value in state.items():
        if ".lora_" in key:
            continue
        weight = value
        if ".base_layer.weight" in key:
            stem = key.removesuffix(".base_layer.weight")
            layer = adapted.get_submodule(stem)
            down, up = state[f"{stem}.lora_A.default.weight"], state[f"{stem}.lora_B.default.weight"]
            update = layer.scaling["default"] * (up.float() @ down.float())  # type: ignore[index]
            weight = (value.float() + update).to(value.dtype)
        plain[key.removeprefix("base_model.model.").replace(".base_layer.", ".")] = weight
    return plain
