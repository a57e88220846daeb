"""Models, batches and measures of the GPU tests."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml

from stepverify.data.batch import Batch, collate
from stepverify.jsonl import write_records
from stepverify.models import Backbone
from stepverify.modules import GeneratorModule, ImplicitRewardModel, OutcomeVerifier, ProcessRewardModel
from stepverify.readers import Synthetic
from stepverify.records import Solution, StepLabel
from stepverify.template import Template
from stepverify.trainer import run

ROOT = Path(__file__).parents[2]
BASE = ROOT / "lit_configs" / "quickstart" / "base"
LAYERS = 3


def tiny_llama(folder: Path, *, heads: int = 4, groups: int = 2, vocabulary: int | None = None, **changes: Any) -> str:
    """Write a random Llama, grouped queries, with the quickstart's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(BASE))
    settings = {
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": LAYERS, "max_position_embeddings": 2048,
        "initializer_range": 0.1, "tie_word_embeddings": True,
    }  # fmt: skip
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer), num_attention_heads=heads, num_key_value_heads=groups, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **(settings | changes),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def solutions(problems: int = 8, samples: int = 4, *, neutral: bool = False) -> list[Solution]:
    """Graded and step-labelled solutions of the embedded problems, which share prompts and first steps."""
    made = []
    for problem in Synthetic("train", problems, num_steps=5).problems():
        for i in range(samples):
            steps = [*problem.steps[: 2 + i % 4], f"#### {problem.answer if i % 2 else 99}"]
            ratings = [0 if neutral and (i + j) % 3 == 2 else 1 for j in range(len(steps) - 1)] + [1 if i % 2 else -1]
            labels = [StepLabel(rating=r) for r in ratings]
            made.append(Solution.of(problem, i, steps, finish="stop", correct=bool(i % 2), step_labels=labels))
    return made


def write_solutions(folder: Path, *some: Any, **more: Any) -> str:
    write_records(folder / "part-00000.jsonl", solutions(*some, **more))
    return str(folder)


# name → module, its arguments, whether the template has a neutral label
OBJECTIVES: dict[str, tuple[type, dict[str, Any], bool]] = {
    "generator": (GeneratorModule, {}, False),
    "orm, reserved, mse": (OutcomeVerifier, {"head": "reserved", "loss": "mse"}, False),
    "orm, linear, bce": (OutcomeVerifier, {"head": "linear", "loss": "bce"}, False),
    "orm, last token": (OutcomeVerifier, {"head": "reserved", "loss": "bce", "per_token": False}, False),
    "orm, lm": (OutcomeVerifier, {"head": "reserved", "loss": "mse", "lm_weight": 1.0}, False),
    "prm, labels": (ProcessRewardModel, {}, False),
    "prm, vocabulary": (ProcessRewardModel, {"loss_over": "vocabulary"}, False),
    "prm, mse": (ProcessRewardModel, {"loss": "mse"}, False),
    "prm, neutral": (ProcessRewardModel, {"neutral": "negative"}, True),
    "implicit": (ImplicitRewardModel, {"beta": 0.5}, False),
}


def built(name: str, model: str, device: str, **backbone: Any) -> Any:
    """A Lightning module of an objective with its model on a device."""
    from stepverify.data.targets import StepTargets

    cls, arguments, neutral = OBJECTIVES[name]
    template = Template(prompt="{problem}\n", neutral="*" if neutral else None)
    if neutral:
        arguments = arguments | {"targets": StepTargets(neutral="class")}
    module = cls(Backbone(path=model, **backbone), template, **arguments)
    torch.manual_seed(0)
    module.model = module.build()
    head = getattr(module.model, "value_head", None)
    if isinstance(head, torch.nn.Linear):  # it starts at zero, where nothing is sent back to the hidden states
        torch.nn.init.normal_(head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    module.model.to(device)
    return module


def batch_of(name: str, module: Any, *, shared: bool = True, problems: int = 8) -> Batch:
    """A training batch, as the datamodule makes it."""
    neutral, joint = OBJECTIVES[name][2], module.lm_weight > 0
    examples = [module.encode(s, labelled=True) for s in solutions(problems, neutral=neutral)]
    for example in examples if name == "implicit" else ():
        example.reference = [-3.0] * len(example.positions)
    if joint:
        examples = [*examples, *(module.encoder.lm(s) for s in solutions(2))]
    weights = [e.weight() for e in examples]
    loss_denominators = tuple(max(1.0, sum(w[i] for w in weights)) for i in (0, 1))
    return collate(examples, shared=shared, loss_denominators=loss_denominators, lm=joint)  # type: ignore[arg-type]


def step(module: Any, batch: Batch, *, autocast: bool = False) -> tuple[float, torch.Tensor]:
    """Loss of a batch and the flattened gradient of all trained parameters, in float64 on the CPU."""
    model = module.model.train()
    model.zero_grad(set_to_none=True)
    device = next(model.parameters()).device
    batch = batch.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        outputs, nll = model(batch)
        total, _ = module.loss(outputs, batch.scored, module.model)
        loss = total / batch.loss_denominators[0]
        if nll is not None:
            loss = loss + module.lm_weight * (nll * batch.lm.weights).sum() / batch.loss_denominators[1]
    loss.backward()
    return loss.item(), gradient(model)


def gradient(model: torch.nn.Module) -> torch.Tensor:
    grads = [p.grad.detach().double().cpu().flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(grads)


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    found, wanted = found.double().cpu(), wanted.double().cpu()
    return ((found - wanted).norm() / wanted.norm().clamp(min=1e-30)).item()


def bf16_bound(layers: int = LAYERS) -> float:
    """Relative error that bfloat16 products leave in hidden states: 8 rounded tensors a layer, each by 2^-8 at most.

    They are norm, query-key-value, rotation, weights of attention, its output, gate and up, their product, down. Errors
    of either sign add as the root of their number.
    """
    return 2**-8 * math.sqrt(8 * layers + 2)


def config(
    kind: str, root: Path, model: str, folder: str, device: str, *, init: dict[str, Any] | None = None,
    backbone: dict[str, Any] | None = None, trainer: dict[str, Any] | None = None, seen: bool = False, **more: Any,
) -> str:  # fmt: skip
    """A fit of two epochs of four batches; ``accelerator`` is left to the program where the device is a GPU."""
    reader = {"class_path": "stepverify.readers.Solutions", "init_args": {"path": folder}}
    callbacks: list[Any] = []
    if seen:
        callbacks.append({"class_path": "tests.gpu.work.Losses", "init_args": {"path": str(root) + ".losses"}})
    settings = {
        "seed_everything": 3,
        "model": {
            "class_path": f"stepverify.modules.{kind}",
            "init_args": {
                "backbone": {"path": model, **(backbone or {})}, "template": {"prompt": "{problem}\n"}, "warmup": 0.0,
                "decay": "constant", "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
                **(init or {}),
            },
        },
        "data": {"train": reader, "validation": reader, "batch_size": 8},
        "trainer": {
            "default_root_dir": str(root), "max_epochs": 2, "log_every_n_steps": 1, "enable_progress_bar": False,
            "enable_model_summary": False, "callbacks": callbacks, "precision": "32-true",
            **({"accelerator": "cpu", "devices": 1} if device == "cpu" else {}), **(trainer or {}),
        },
    }  # fmt: skip
    for key, value in more.items():
        settings[key] = settings.get(key, {}) | value if isinstance(value, dict) else value
    settings["trainer"]["callbacks"] = [*callbacks, *(trainer or {}).get("callbacks", [])]
    root.parent.mkdir(parents=True, exist_ok=True)
    file = root.parent / f"{root.name}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return str(file)


class Losses(lightning.Callback):
    """Writes the loss of every training batch, exactly."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.is_global_zero:
            with self.path.open("a") as file:
                file.write(json.dumps([trainer.global_step, outputs["loss"].item()]) + "\n")


class Waits(lightning.Callback):
    """Counts the calls that wait for the card in each step but the first four, and where they are made."""

    def __init__(self) -> None:
        self.counts, self.places = list[int](), set[str]()
        self._catching: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._close()
        if trainer.global_step >= 4:
            self._catching = warnings.catch_warnings(record=True)
            self._caught = self._catching.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._catching is None:
            return
        torch.cuda.set_sync_debug_mode("default")
        self._catching.__exit__(None, None, None)
        self._catching = None
        waits = [w for w in self._caught if "synchronizing CUDA" in str(w.message)]
        self.counts.append(len(waits))
        self.places |= {f"{Path(w.filename).name}:{w.lineno}" for w in waits}

    def per_step(self) -> dict[str, Any]:
        places = " ".join(sorted(self.places))
        return {"least": min(self.counts), "most": max(self.counts), "steps": len(self.counts), "places": places}


def losses(root: Path) -> list[float]:
    """What :class:`Losses` has written of a run."""
    return [json.loads(line)[1] for line in Path(f"{root}.losses").read_text().splitlines()]


def weights(root: Path) -> dict[str, torch.Tensor]:
    """All tensors of an export."""
    from safetensors.torch import load_file

    return load_file(root / "export" / "model.safetensors")


def started(*arguments: str) -> subprocess.Popen:
    """``stepverify`` in a process of its own; several may run at the same time."""
    return subprocess.Popen(
        [sys.executable, "-m", "stepverify.cli", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def patience(seconds: float) -> float:
    """Seconds to wait for a process: many times as long in a dry run, which may share its cores with others."""
    return 20 * seconds if os.environ.get("STEPVERIFY_GPU_TESTS") == "cpu" else seconds


def ended(process: subprocess.Popen, seconds: float) -> tuple[int, str]:
    """Exit code and output; a process that takes too long is killed."""
    try:
        out, _ = process.communicate(timeout=patience(seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        out += f"\nkilled after {seconds:.0f} seconds"
    return process.returncode, out


KINDS = {
    "GeneratorModule": {},
    "OutcomeVerifier": {"objective": "bce", "calibrate": False},
    "ProcessRewardModel": {},
}


class Trained(dict):
    """kind → folder of a run of two epochs in float32, and its Lightning CLI; trained when it is first asked for."""

    def __init__(self, root, model, data, device):
        self.root, self.rest = root, (model, data, device)

    def __missing__(self, kind):
        root = self.root / kind
        self[kind] = root, run(["fit", "--config", config(kind, root, *self.rest, init=KINDS[kind], seen=True)])
        return self[kind]
