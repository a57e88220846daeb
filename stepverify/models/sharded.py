"""Shard parameters while they are loaded, and gather them tensor by tensor.

No process holds all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from stepverify.models.rows import decoder_layers


@dataclass(frozen=True)
class Sharding:
    """Shard parameters over processes along their first dimension, as FSDP2 does.

    Until FSDP2 takes over (:meth:`place`), parameters are on the meta device with their full shape, and their attribute
    ``shard`` holds this process's rows.

    Attributes:
        mesh: device mesh of one dimension.
        device: device of the rows.
        together: context in which all processes fail if one does.
    """

    mesh: DeviceMesh
    device: torch.device
    together: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def rank(self) -> int:
        """Return the rank of this process."""
        return self.mesh.get_local_rank()

    def keep(self, whole: nn.Parameter) -> nn.Parameter:
        """Keep this process's rows of a whole parameter, on a meta parameter."""
        kept: Any = getattr(whole, "kept", None)
        if kept is None:
            step = self._step(whole)
            rows = whole.data[self.rank * step : (self.rank + 1) * step]
            kept = self._empty(whole, rows.to(self.device, copy=True))
            whole.kept = kept  # type: ignore[attr-defined]  # tied parameters stay tied
        return kept

    def _step(self, whole: Tensor) -> int:
        """Return the rows per process; the last may have fewer."""
        return -(-whole.shape[0] // self.mesh.size())

    def _empty(self, whole: nn.Parameter, rows: Tensor) -> nn.Parameter:
        kept: Any = nn.Parameter(torch.empty(whole.shape, dtype=whole.dtype, device="meta"), whole.requires_grad)
        kept.shard, kept.sharding, kept._is_hf_initialized = rows.contiguous(), self, True
        return kept

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep only this process's rows of each tensor that ``from_pretrained`` reads."""

        def keep(module: nn.Module, name: str, parameter: nn.Parameter | None) -> Any:
            # Parameters that the checkpoint lacks are initialized later, as a whole.
            read = parameter is not None and not parameter.is_meta and getattr(parameter, "_is_hf_initialized", False)
            return self.keep(parameter) if read and parameter is not None and parameter.ndim else None

        handle = register_module_parameter_registration_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def keep_rest(self, model: Any) -> None:
        """Shard what the checkpoint lacked, and tie equal weights, after :meth:`reading`."""
        for module, name, parameter in _slots(model):
            if not parameter.is_meta and parameter.ndim:
                module._parameters[name] = self.keep(parameter)
        for module in model.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = buffer if buffer is None else buffer.to(self.device)
        for target, source in list(model.all_tied_weights_keys.items()):
            one, other = model.get_parameter(target), model.get_parameter(source)
            if one is other or not (one.is_meta and other.is_meta):
                continue
            equal = torch.tensor(float(torch.equal(one.shard, other.shard)), device=self.device)
            torch.distributed.all_reduce(equal, torch.distributed.ReduceOp.MIN, group=self.mesh.get_group())
            if equal.item():
                owner, _, name = target.rpartition(".")
                model.get_submodule(owner)._parameters[name] = other
            else:
                model.all_tied_weights_keys.pop(target)  # as transformers does

    def spread(self, build: Callable[[], Any]) -> Any:
        """Build a model on the first process; scatter it tensor by tensor.

        The others build it without weights. Afterwards all processes have the random state of the first.
        """
        with self.together(), nullcontext() if self.rank == 0 else torch.device("meta"):
            model = build()
        group = self.mesh.get_group()
        first = torch.distributed.get_global_rank(group, 0)
        kept: dict[int, nn.Parameter] = {}
        for module, name, parameter in _slots(model):
            if id(parameter) not in kept:
                step = self._step(parameter)
                rows = torch.empty((step, *parameter.shape[1:]), dtype=parameter.dtype, device=self.device)
                parts = self._parts(parameter, step) if self.rank == 0 else None
                torch.distributed.scatter(rows, parts, src=first, group=group)
                count = max(0, min(step, parameter.shape[0] - self.rank * step))
                kept[id(parameter)] = self._empty(parameter, rows[:count])
            module._parameters[name] = kept[id(parameter)]
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    found = buffer.to(self.device) if self.rank == 0 else torch.empty_like(buffer, device=self.device)
                    torch.distributed.broadcast(found, first, group=group)
                    module._buffers[name] = found
        state = torch.get_rng_state().to(self.device)
        torch.distributed.broadcast(state, first, group=group)
        torch.set_rng_state(state.cpu())
        return model

    def _parts(self, parameter: nn.Parameter, step: int) -> list[Tensor]:
        whole = parameter.data.to(self.device)
        parts = [whole[rank * step : (rank + 1) * step] for rank in range(self.mesh.size())]
        return [p.contiguous() if len(p) == step else _padded(p, step) for p in parts]

    def whole(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Gather a parameter of ``shape`` from the rows of all processes."""
        if self.mesh.size() == 1:
            return rows
        step = -(-shape[0] // self.mesh.size())
        found = torch.empty((step * self.mesh.size(), *shape[1:]), dtype=rows.dtype, device=rows.device)
        group = self.mesh.get_group()
        if rows.device.type == "cpu":  # gloo would gather into a copy
            found[self.rank * step : (self.rank + 1) * step] = _padded(rows, step)
            for rank in range(self.mesh.size()):
                source = torch.distributed.get_global_rank(group, rank)
                torch.distributed.broadcast(found[rank * step : (rank + 1) * step], source, group=group)
        else:
            gather = getattr(torch.distributed, "all_gather_single", torch.distributed.all_gather_into_tensor)
            gather(found, _padded(rows, step), group=group)
        return found[: shape[0]]

    def whole_all(self, parameters: list[Any]) -> list[Tensor]:
        """Gather several parameters of one dtype in one collective, to save latency."""
        if len(parameters) == 1 or self.mesh.size() == 1:
            return [self.whole(p.shard, p.shape) for p in parameters]
        rows = torch.cat([_padded(p.shard, self._step(p)).reshape(-1) for p in parameters])
        found = self.whole(rows[None], torch.Size((self.mesh.size(), len(rows))))
        sizes = [self._step(p) * p.shape[1:].numel() for p in parameters]
        return [
            part.reshape(-1, *p.shape[1:])[: p.shape[0]]
            for p, part in zip(parameters, found.split(sizes, dim=1), strict=True)
        ]

    def largest(self, number: int) -> int:
        """Return the maximum of a number over all processes."""
        found = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=self.mesh.get_group())
        return int(found.item())

    def place(self, model: nn.Module, divide: Callable[[], None]) -> None:
        """Shard by ``divide``, then copy the kept rows into the tensors."""
        kept = [(m, n, p.shard) for m, n, p in _slots(model) if p.is_meta]
        for parameter in {p for _, _, p in _slots(model)}:
            vars(parameter).pop("shard", None)
        divide()
        placed: dict[int, nn.Parameter] = {}
        while kept:
            module, name, rows = kept.pop()
            empty: Any = module._parameters[name]
            if (found := placed.get(id(empty))) is None:
                assert empty.to_local().shape == rows.shape, f"{name}: FSDP2 divides {tuple(empty.shape)} otherwise"
                local = DTensor.from_local(
                    rows, empty.device_mesh, empty.placements, run_check=False, shape=empty.shape, stride=empty.stride()
                )
                found = placed[id(empty)] = nn.Parameter(local, empty.requires_grad)
                placed[id(found)] = found
            module._parameters[name] = found


def _padded(rows: Tensor, step: int) -> Tensor:
    if len(rows) == step:
        return rows.contiguous()
    padded = rows.new_zeros((step, *rows.shape[1:]))
    padded[: len(rows)] = rows
    return padded


def _slots(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """List all places that hold a parameter; tied parameters have several."""
    return [(m, n, p) for m in model.modules() for n, p in m._parameters.items() if p is not None]


def is_divided(model: nn.Module) -> bool:
    """Check whether parameters are held as rows, and not yet placed."""
    return any(hasattr(p, "shard") for p in model.parameters())


def home(model: nn.Module) -> torch.device:
    """Find the device that holds a model's values."""
    parameter = next(model.parameters())
    return getattr(parameter, "shard", parameter).device


def whole(parameter: Any) -> Tensor:
    """Gather a parameter that is held as rows; return others unchanged."""
    rows = getattr(parameter, "shard", None)
    return parameter if rows is None else parameter.sharding.whole(rows, parameter.shape)


@contextmanager
def gathered(model: nn.Module, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Gather a sharded model's parameters layer by layer during forward passes.

    Modules outside layers gather their own parameters.

    Args:
        model: a Hugging Face model, without adapters; all processes call it alike.
        dtype: dtype that floating-point parameters are cast to meanwhile.
    """
    if not is_divided(model):
        yield
        return
    layers = list(decoder_layers(model))
    inside = {module for layer in layers for module in layer.modules()}
    others = [m for m in model.modules() if m not in inside and any(p is not None for p in m._parameters.values())]
    undo: dict[nn.Module, list[tuple[nn.Module, str, Any]]] = {}

    def fill(part: nn.Module, *given: Any) -> None:
        modules = list(part.modules()) if part in inside else [part]
        undo[part] = [(m, n, p) for m in modules for n, p in m._parameters.items() if hasattr(p, "shard")]
        found: dict[Any, nn.Parameter] = {}
        formats: dict[torch.dtype, list[Any]] = {}
        for parameter in dict.fromkeys(p for _, _, p in undo[part]):
            formats.setdefault(parameter.dtype, []).append(parameter)
        for kind, parameters in formats.items():
            for parameter, value in zip(parameters, parameters[0].sharding.whole_all(parameters), strict=True):
                found[parameter] = nn.Parameter(value.to(dtype) if kind.is_floating_point else value, False)
        for module, name, parameter in undo[part]:
            module._parameters[name] = found[parameter]

    def empty(part: nn.Module, *given: Any) -> None:
        for module, name, parameter in undo.pop(part, ()):
            module._parameters[name] = parameter

    hooks = [part.register_forward_pre_hook(fill) for part in (*layers, *others)]
    hooks += [part.register_forward_hook(empty, always_call=True) for part in (*layers, *others)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def stand_ins(model: nn.Module) -> Iterator[None]:
    """Replace a sharded model's parameters meanwhile by whole shapes without storage.

    They are on a real device, so that adapters can be created on it.
    """
    slots = [slot for slot in _slots(model) if slot[2].is_meta]
    empty = {p: nn.Parameter(p.shard.new_zeros(()).expand(p.shape), p.requires_grad) for _, _, p in slots}
    for module, name, parameter in slots:
        module._parameters[name] = empty[parameter]
    try:
        yield
    finally:
        for module, name, parameter in slots:
            module._parameters[name] = parameter.requires_grad_(empty[parameter].requires_grad)
