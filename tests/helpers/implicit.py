"""Implicit reward models: small exports, and their values by transformers alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stepverify.data.encode import load_tokenizer
from stepverify.jsonl import write_records
from stepverify.models import Backbone, ImplicitModel
from stepverify.models.reference import Reference
from stepverify.records import Problem, Solution
from tests.helpers.exports import write_export
from tests.helpers.runs import config

BETA, SCALING = 0.5, [2.0, -0.25]
# One step of pairs on all solutions; the second time in packs of one or two problems, divided among devices.
ONE_STEP = {
    "loss": "dpo", "beta": 1.0, "data__pack_tokens": 4096, "trainer__logger": False,
    "model__init_args__optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}},
}  # fmt: skip
PARTS = {"data__pack_tokens": 80, "trainer__accumulate_grad_batches": 64}


def implicit(root: Path, data: Path, base: Path, **changes: Any) -> str:
    """A configuration of 16 solutions in packs; ``loss``, ``beta`` and such are of the module, others as in :func:`config`."""
    own = {key: changes.pop(key) for key in ("loss", "beta", "reference", "calibrate") if key in changes}
    settings = {
        "model__init_args__backbone": {"path": str(base)}, "data__pack_tokens": 256, "data__cache": str(root.parent / "cache"),
        "trainer__max_epochs": 1, **{f"model__init_args__{key}": value for key, value in own.items()},
    }  # fmt: skip
    return config("ImplicitRewardModel", root, data, **settings | changes)


def write_pairs(folder: Path) -> Path:
    """The solutions of :func:`pairs` in a folder."""
    write_records(folder / "part-00000.jsonl", pairs())
    return folder


def pairs(count: int = 8) -> list[Solution]:
    """Two solutions of each problem, which share their first steps: one correct, one incorrect; of the first both are correct."""
    from stepverify.readers import Synthetic

    found = []
    for i, problem in enumerate(Synthetic("train", count, num_steps=3).problems()):
        assert isinstance(problem, Problem)
        for sample in range(2):
            good = sample == 0 or i == 0
            steps = problem.steps if good else [*problem.steps[:-1], "#### 99"]
            found.append(Solution.of(problem, sample, steps, correct=good))
    return found


def other_weights(base: Path, folder: Path, seed: int = 7) -> Path:
    """The model of a folder with other random weights, and the same tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)).save_pretrained(folder)
    load_tokenizer(str(base)).save_pretrained(str(folder))
    return folder


def write_implicit(policy: Path, reference: Path, folder: Path) -> str:
    """An export as a fit would write it."""
    model = ImplicitModel(Backbone(path=str(policy)).load(), BETA)
    facts = {"beta": BETA, "scaling": SCALING, "reference": asdict(Reference.of(str(reference)))}
    return write_export(model, load_tokenizer(str(policy)), folder, **facts)


def log_probs(causal, ids: list[int], start: int) -> torch.Tensor:
    """Log-probabilities of the tokens from ``start`` on, by the full softmax of plain logits."""
    logits = causal(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids[start:])[:, None])[:, 0]


def rewards_by_hand(policy: Path | str, reference: Path | str, s: Solution, beta: float, prompt: str) -> list[float]:
    """Reward of each step: β times the log-ratios of its own tokens; the final one has the end of the sequence too."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(str(policy))
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    start, lengths = len(ids), []
    for step in s.steps:
        own = tokenizer.encode(step + "\n", add_special_tokens=False)
        lengths.append(len(own))
        ids += own
    if s.finish != "length":
        ids.append(tokenizer.eos_token_id)
        lengths[-1] += 1
    with torch.no_grad():
        one, other = (log_probs(AutoModelForCausalLM.from_pretrained(path), ids, start) for path in (policy, reference))
    return [beta * part.sum().item() for part in (one - other).split(lengths)]
