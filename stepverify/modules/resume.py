"""Resume checkpoints on another number of devices or with another strategy."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.utilities import rank_zero_warn

from stepverify.records import InputError

_KEY = "stepverify"


def prepare(checkpoint: dict[str, Any], module: lightning.LightningModule) -> None:
    """Name the parameters in optimizer states, and record the number of processes.

    FSDP2 loads optimizer states by parameter name and would take numbers for positions in the model; plain optimizers
    depend on the order only.
    """
    trainer = module.trainer
    checkpoint[_KEY] = {"num_ranks": trainer.world_size, "accumulate": trainer.accumulate_grad_batches}
    names = {parameter: name for name, parameter in module.named_parameters()}
    for state, optimizer in zip(checkpoint.get("optimizer_states", ()), trainer.optimizers, strict=False):
        groups = state.get("param_groups", ())  # one process alone may hold them
        numbers = [number for group in groups for number in group["params"]]
        if numbers and isinstance(numbers[0], int):
            order = [names[p] for group in optimizer.param_groups for p in group["params"]]
            known = dict(zip(numbers, order, strict=True))
            state["state"] = {known[number]: value for number, value in state["state"].items()}
            for group in groups:
                group["params"] = [known[number] for number in group["params"]]


def check(checkpoint: dict[str, Any], module: lightning.LightningModule) -> None:
    """Refuse a checkpoint that this run cannot resume.

    Within an epoch, another number of processes would skip examples or train on them twice: batches are grouped by the
    number of processes (those computed at the same time are alike in cost), and these groups are shuffled. So even if
    an optimizer step has as many batches as before, the two runs have no common order.

    Raises:
        InputError: saved within an epoch by another number of processes, or trained parameters differ.
    """
    trainer = module.trainer
    own = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    before = checkpoint.get(_KEY)
    for state in checkpoint.get("optimizer_states", ()) if before else ():
        saved = {str(name) for group in state["param_groups"] for name in group["params"]}
        if other := sorted(saved ^ own):
            which = "trains" if other[0] in own else "does not train"
            raise InputError(f"the checkpoint is of another model: this one {which} {other[0]}, unlike that one")
    if trainer.state.fn != "fit" or before is None:
        return
    ranks, accumulate = trainer.world_size, trainer.accumulate_grad_batches
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    if ranks != before["num_ranks"] and not progress["is_last_batch"]:
        raise InputError(
            f"the checkpoint was saved within an epoch on {before['num_ranks']} devices, and what is left of it cannot "
            f"be divided among {ranks}: resume with {before['num_ranks']}, or from a checkpoint at the end of an epoch"
        )
    size, size_before = ranks * accumulate, before["num_ranks"] * before["accumulate"]
    if size != size_before:
        rank_zero_warn(
            f"an optimizer step has {size} batches from here on, {size_before} before: steps of an epoch and learning "
            "rate change with it; trainer.accumulate_grad_batches makes up for fewer devices"
        )
