"""What a comparison needs: data, a tiny model, an environment with TRL, and what the machine can do at most."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from stepverify.data.encode import SolutionEncoder, load_tokenizer
from stepverify.jsonl import write_records
from stepverify.readers import Solutions, Synthetic
from stepverify.readers.synthetic import Chain, verdicts
from stepverify.records import Solution, StepLabel
from stepverify.template import Template

TRL, ACCELERATE = "1.13.0", "1.15.0"
_CODE = "from tests.benchmarks.peers import setup, work; "


def choose(path: str, problems: int, samples: int, model: str, longest: int | None = None) -> list[Solution]:
    """The first problems that have so many solutions of at most ``longest`` tokens of the model.

    Where steps have no labels, the outcome stands for them.
    """
    encoder = SolutionEncoder(load_tokenizer(model), Template()) if longest else None
    groups: dict[str, list[Solution]] = {}
    for solution in Solutions(path).solutions():
        if solution.steps and (
            encoder is None or len(encoder.path(solution.problem, solution.steps)) + len(solution.steps) <= longest
        ):
            groups.setdefault(solution.problem_id, []).append(solution)
    chosen = [group[:samples] for group in groups.values() if len(group) >= samples][:problems]
    if len(chosen) < problems:
        sys.exit(f"{path}: only {len(chosen)} problems have {samples} solutions")
    for solution in (s for group in chosen for s in group):
        if solution.step_labels is None:
            solution.step_labels = [StepLabel(rating=1 if solution.correct else -1) for _ in solution.steps]
    return [s for group in chosen for s in group]


def synthetic(problems: int, samples: int) -> Iterator[Solution]:
    """Chained arithmetic; in every fourth step another number, labels by the oracle."""
    for problem in Synthetic("train", problems, num_steps=9).problems():
        for index in range(samples):
            rng = random.Random(f"{problem.id}#{index}")
            steps = Chain(problem.problem, 7).worked(0.25, rng)
            steps = [s[:-1] + str(rng.randrange(7)) if rng.random() < 0.25 else s for s in steps]
            labels = [StepLabel(rating=1 if correct else -1) for correct in verdicts(problem.problem, steps, 7)]
            yield Solution.of(problem, index, steps, finish="stop", step_labels=list(labels))


def write(folder: Path, solutions: list[Solution]) -> str:
    write_records(folder / "part-00000.jsonl", solutions)
    return str(folder)


SMOLLM2 = {"vocabulary": 49152, "width": 576, "layers": 30, "heads": 9, "groups": 3, "inner": 1536}


def tiny_model(
    folder: str, vocabulary: int, width: int, layers: int, heads: int = 0, groups: int = 0, inner: int = 0
) -> None:
    """A random Llama with the quickstart's tokenizer and as many rows of the vocabulary as are asked for."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    base = Path(__file__).parents[3] / "lit_configs" / "quickstart" / "base"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(base))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner or 3 * width, num_hidden_layers=layers,
        num_attention_heads=heads or width // 64, num_key_value_heads=groups or width // 64, max_position_embeddings=4096,
        tie_word_embeddings=bool(groups),
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def trl_python(cache: str | None) -> str | None:
    """An interpreter that has TRL: this one; or one made once that sees this one's packages; or none."""
    if importlib.util.find_spec("trl"):
        return sys.executable
    return own_trl(Path(cache).resolve()) if cache else None


def own_trl(cache: Path) -> str:
    folder = cache / f"trl-{TRL}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        venv.create(folder, with_pip=True)
        own = next(folder.glob("lib/python*/site-packages"))
        parent = Path(json.__file__).parents[1] / "site-packages" if sys.prefix == sys.base_prefix else None
        parent = parent or next(Path(sys.prefix).glob("lib/python*/site-packages"))
        (own / "parent.pth").write_text(f"import site; site.addsitedir({str(parent)!r})\n")
        wanted = [f"trl=={TRL}", f"accelerate=={ACCELERATE}"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        ready.touch()
    return str(python)


def call(command: list[str], threads: int, device: str = "cpu", seconds: float | None = None) -> str:
    """What a process printed; all of it is shown where the process failed, or took longer."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1",
        **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
    }  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as late:
        sys.exit(f"{' '.join(command)}\ntook more than {seconds} seconds\n{late.stderr!r}")
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def code(expression: str, threads: int = 1, device: str = "cpu") -> str:
    """Evaluate in a process of its own, so that torch stays out of this one."""
    return call([sys.executable, "-c", _CODE + expression], threads, device)


def cuda_ceiling() -> dict[str, float]:
    """Floating-point operations a second of a product of two 8192 × 8192 matrices on the GPU; median of 10."""
    import torch

    found: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
        seconds = []
        for _ in range(13):
            torch.cuda.synchronize()
            start = time.perf_counter()
            a @ b
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        found[str(dtype).removeprefix("torch.")] = 2 * 8192**3 / median(seconds[3:])
    return found


def ceiling() -> dict[str, float]:
    """Floating-point operations a second of a product of two 2048 × 2048 matrices; median of 5.

    Where a format is slow, as bf16 is on a CPU without instructions for it, of 512 × 512 ones.
    """
    import torch

    found: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for size in (512, 2048):
            a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
            start = time.perf_counter()
            a @ b
            if time.perf_counter() - start > 0.05:
                break
        seconds = []
        for _ in range(5):
            start = time.process_time()
            a @ b
            seconds.append(time.process_time() - start)
        found[str(dtype).removeprefix("torch.")] = 2 * size**3 / median(seconds)
    return found


def parsed(output: str) -> Any:
    return json.loads(output.splitlines()[-1])
