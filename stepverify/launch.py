"""Check the number of processes that torchrun or SLURM starts.

It must be the trainer's number of devices; checked before a model is loaded.
"""

from __future__ import annotations

import os

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

from stepverify.lightning_compat import cluster_environment
from stepverify.records import InputError


def check_launcher() -> None:
    """Refuse processes of SLURM that Lightning cannot place.

    Raises:
        InputError: several tasks without a number of tasks per node.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return
    tasks = int(os.environ["SLURM_NTASKS"])
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        _refuse(f"SLURM starts {tasks} processes by --ntasks; start them with --ntasks-per-node instead")


def check_processes(trainer: lightning.Trainer) -> None:
    """Refuse a number of started processes other than the trainer's devices.

    Raises:
        InputError: naming both.
    """
    environment = cluster_environment(trainer)
    if isinstance(environment, LightningEnvironment):
        return  # Lightning starts the processes itself
    devices, nodes = trainer.num_devices, trainer.num_nodes
    started, per_node, on = environment.world_size(), None, None
    if isinstance(environment, SLURMEnvironment):
        per_node, on = (os.environ.get(f"SLURM_{name}") for name in ("NTASKS_PER_NODE", "NNODES"))
    agree = all(value is None or value == str(own) for value, own in ((per_node, devices), (on, nodes)))
    if started == devices * nodes and agree:
        return
    if isinstance(environment, SLURMEnvironment):
        layout = "".join(f", {value} {what}" for value, what in ((per_node, "per node"), (on, "nodes")) if value)
        found = f"SLURM starts {started} (SLURM_NTASKS{layout})"
        cure = (
            f"give srun --ntasks-per-node={devices} --nodes={nodes}, or set both keys to what SLURM starts; in a shell "
            "on a node, SLURM_JOB_NAME=interactive has SLURM ignored"
        )
    else:
        found = f"the launcher has started {started} (WORLD_SIZE)"
        cure = f"give torchrun --nproc_per_node={devices} --nnodes={nodes}, or set both keys to what it starts"
    _refuse(
        f"trainer.devices: {devices} and trainer.num_nodes: {nodes} are {devices * nodes} processes, {found}; {cure}"
    )


def _refuse(message: str) -> None:
    """Fail on every process; the first prints the reason."""
    if getattr(rank_zero_only, "rank", 0) != 0:
        raise SystemExit(2)
    raise InputError(message)
