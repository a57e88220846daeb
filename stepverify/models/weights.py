"""Gather, convert and write weights as safetensors, tensor by tensor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class State(Mapping[str, Tensor]):
    """Hold a model's state, whose tensors are made on access.

    Args:
        shapes: each tensor on the meta device.
        make: makes the tensor of a name.
    """

    def __init__(self, shapes: Mapping[str, Tensor], make: Callable[[str], Tensor]) -> None:
        self.shapes, self._make = shapes, make

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.shapes:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def select(self, names: Mapping[str, str]) -> State:
        """Select and rename tensors, given new names → old names."""
        return State({new: self.shapes[old] for new, old in names.items()}, lambda name: self[names[name]])


def state_of(state: Mapping[str, Tensor]) -> State:
    """Wrap a plain dictionary as a :class:`State`."""
    if isinstance(state, State):
        return state
    return State({k: torch.empty_like(v, device="meta") for k, v in state.items()}, lambda name: state[name])


class Gathered(State):
    """Gather a model's state on the first process, tensor by tensor.

    The other processes of a sharded model take part in :meth:`serve`. A tensor is whole on all processes while it is
    gathered, then only on the first one, on the CPU.
    """

    def __init__(self, model: nn.Module) -> None:
        self.held = model.state_dict()
        self.sharded = any(isinstance(t, DTensor) for t in self.held.values())
        super().__init__(
            {k: torch.empty(t.shape, dtype=t.dtype, device="meta") for k, t in self.held.items()}, self._get
        )

    def _get(self, name: str) -> Tensor:
        if self.sharded:
            torch.distributed.broadcast_object_list([name])
        return self._gather(name).cpu()

    def _gather(self, name: str) -> Tensor:
        tensor = self.held[name].detach()
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def serve(self) -> None:
        """Gather the tensors that the first process requests, until it closes."""
        while self.sharded:
            asked: list[str | None] = [None]
            torch.distributed.broadcast_object_list(asked)
            if asked[0] is None:
                return
            self._gather(asked[0])

    def close(self) -> None:
        """End :meth:`serve` on the other processes."""
        if self.sharded:
            torch.distributed.broadcast_object_list([None])


def write_weights(model: Any, folder: Path, state: State, max_shard_size: str = "5GB") -> None:
    """Write a Hugging Face model without holding all weights at once.

    Fused weights are split again if transformers does so: weights that belong together, at most those of a layer, are
    then held together.

    Args:
        model: its configuration is written, and its weight conversions are reverted.
        folder: output folder.
        state: weights under the model's names; tied ones once.
        max_shard_size: largest size of a file; larger models are written as several files.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    model.save_pretrained(folder, state_dict={})  # everything except weights
    for leftover in folder.glob("model*.safetensors*"):
        leftover.unlink()
    ignored = set(model._keys_to_ignore_on_save or ())
    state = state.select({name: name for name in state if name not in ignored})
    groups, shapes = _groups(model, state)
    split = split_torch_state_dict_into_shards(
        shapes, filename_pattern="model{suffix}.safetensors", max_shard_size=max_shard_size
    )
    files = {f: _File(folder / f, {n: shapes[n] for n in names}) for f, names in split.filename_to_tensors.items()}
    for names in groups:
        found = _reverted(model, {name: state[name] for name in names})
        while found:
            name, tensor = found.popitem()
            files[split.tensor_to_filename[name]].write(name, tensor)
    if split.is_sharded:
        parameters = sum(shape.numel() for shape in shapes.values())
        index = {"metadata": {"total_parameters": parameters, **split.metadata}, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _reverted(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and split tensors as in the architecture's checkpoints."""
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(model, tensors)


def _groups(model: Any, state: State) -> tuple[list[list[str]], dict[str, Tensor]]:
    """Find the finest grouping of weights that converts equally.

    Returns the groups, and the shapes after conversion.
    """

    def shapes(names: list[str]) -> dict[str, Tensor]:
        found = _reverted(model, {name: state.shapes[name] for name in names})
        return {k: torch.empty(v.shape, dtype=v.dtype, device="meta") for k, v in found.items()}

    names = list(state)
    wanted = shapes(names)
    by_layer = [list(group) for _, group in groupby(sorted(names, key=_layer), key=_layer)]
    for groups in ([[name] for name in names], by_layer):
        try:
            found = {k: v for group in groups for k, v in shapes(group).items()}
        except Exception:  # a conversion without all its inputs may raise anything
            continue
        if found.keys() == wanted.keys() and all(found[k].shape == v.shape for k, v in wanted.items()):
            return groups, wanted
    from stepverify.models.backbone import log

    log(f"export: {type(model).__name__}: weights are converted together, and held in memory at once")
    return [names], wanted


def _layer(name: str) -> str:
    """Return a name up to its layer number, or its module's name."""
    numbered = re.match(r".*?\.\d+\.", name)
    return numbered[0] if numbered else name.rpartition(".")[0]


class _File:
    """Write a safetensors file tensor by tensor, in any order.

    The result is byte for byte what the library writes.
    """

    def __init__(self, path: Path, shapes: Mapping[str, Tensor]) -> None:
        self.path = path
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self.places: dict[str, int] = {}
        end = 0
        for name, shape in sorted(shapes.items(), key=lambda item: (-item[1].element_size(), item[0])):
            start, end = end, end + shape.numel() * shape.element_size()
            header[name] = {"dtype": _TYPES[shape.dtype], "shape": [*shape.shape], "data_offsets": [start, end]}
            self.places[name] = start
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self.start = 8 + len(text)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(self.start + end)

    def write(self, name: str, tensor: Tensor) -> None:
        with self.path.open("r+b") as file:
            file.seek(self.start + self.places[name])
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def repeated(model: nn.Module) -> set[str]:
    """Find the names of tied parameters that a checkpoint leaves out.

    These are all but the one that transformers loads.
    """
    tied = set(getattr(model, "all_tied_weights_keys", ()) or ())
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for group in names.values() for name in sorted(group, key=lambda name: name in tied)[1:]}
