"""Peak memory of a training step, counted on tensors without data: no card, no weights, no download."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from stepverify.data.batch import Batch, collate
from stepverify.data.encode import Example
from stepverify.losses import StepCrossEntropy
from stepverify.models import ProcessModel
from stepverify.models.adapters import with_adapters
from stepverify.models.attention import register
from stepverify.models.backbone import LoRA, without_adapters
from stepverify.models.check import Reading
from stepverify.models.recompute import checkpoint_layers
from stepverify.records import Solution

# https://huggingface.co/Qwen/Qwen2.5-7B/blob/main/config.json
QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False, "max_position_embeddings": 131072,
}  # fmt: skip


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operators have made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.forward = 0
        self._known: set[int] = set()

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if (key := storage._cdata) in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self.count(tensor)
        return out


@contextmanager
def tensors_without_data() -> Iterator[None]:
    """All tensors made meanwhile have shapes alone."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def process_model(config: dict[str, Any], *, lora: bool = False, dtype: torch.dtype = torch.float32) -> ProcessModel:
    """A process reward model with a published configuration, to be called without data."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=dtype)
    model.set_attn_implementation(register("auto"))
    model.reading = Reading(packed=True, own="sdpa", sdpa=True)
    if lora:  # peft moves adapters to the device that they are on, which tensors without data do not support
        with patch.object(nn.Module, "to", lambda self, *args, **kwargs: self):
            model = with_adapters(model, LoRA())
    return ProcessModel(model, (10, 12)).train()


def pack(num_tokens: int, length: int = 600, prompt: int = 100, samples: int = 4) -> Batch:
    """Solutions of ``length`` tokens, ``samples`` for each prompt, with a tag every 40 tokens: a pack of ``num_tokens``."""
    examples, used = [], 0
    while used < num_tokens:
        first = len(examples) % samples == 0
        own = min(length - prompt, num_tokens - used - (prompt if first else 0))
        if own <= 0:
            break
        used += own + (prompt if first else 0)
        problem = len(examples) // samples
        ids = [problem + 1000] * prompt + [len(examples) + 2000] * own
        tags = list(range(prompt + 39, prompt + own, 40)) or [len(ids) - 1]
        record = Solution(id=str(len(examples)), problem_id=str(problem), problem="", steps=[""])
        examples.append(Example(ids, tags, [1.0] * len(tags), record))
    return collate(examples, loss_denominators=(1.0, 1.0))


def step(
    model: ProcessModel, batch: Batch, *, mixed: bool, live: LiveBytes | None = None, stop_before_backward: bool = False
) -> None:
    """A forward and a backward pass."""
    with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
        outputs, _ = model(batch)
        total, _ = StepCrossEntropy()(outputs, batch.scored, model)
    if live is not None:
        live.forward = live.now
    if not stop_before_backward:
        total.backward()


def peak(config: dict[str, Any], num_tokens: int, *, mixed: bool = True, lora: bool = False, checkpointing: bool | str = False, dtype: torch.dtype = torch.float32) -> tuple[int, int, int]:  # fmt: skip
    """Bytes of parameters; and beyond them, what is kept after the forward pass, and the most at once: gradients too."""
    with tensors_without_data():
        model = process_model(config, lora=lora, dtype=dtype)
        if checkpointing:
            checkpoint_layers(without_adapters(model.backbone), pointwise=checkpointing == "pointwise")
        batch = pack(num_tokens)
        with LiveBytes() as live:
            for parameter in model.parameters():
                live.count(parameter)
            held = live.now
            step(model, batch, mixed=mixed, live=live)
            return held, live.forward - held, live.peak - held
