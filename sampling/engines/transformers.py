"""Completions by plain transformers: the embedded default, on CPU or one GPU, with no server.

Batched, left-padded, sorted by length; a prompt is read once for all its samples; finished rows leave
the batch; keys and values lie in buffers that grow by doubling. Every token is drawn from one uniform
number that is a hash of (seed, position): a sample does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from sampling.engines.base import Completion, Request, SamplingOptions
from sampling.runtime.device import choose_device
from stepverify.data.encode import load_tokenizer
from stepverify.records import InputError

# Requests are sorted by prompt length within windows of so many batches.
_WINDOW = 8


class LoadedEngine:
    """A Hugging Face causal language model that is in memory already, one in training among them.

    Args:
        network: called as transformers does; has its ``config``, ``generation_config`` and ``device``. The caller
            puts it into evaluation mode.
        tokenizer: its tokenizer.
        model: what it is called.
        batch_size: completions drawn at the same time.
        inference_mode: draw in torch's inference mode, which is faster than without gradients alone, but not for
            sharded weights: what is gathered there stays, and could not be trained with.
    """

    def __init__(
        self, network: Any, tokenizer: Any, model: str = "loaded", batch_size: int = 256, inference_mode: bool = True
    ) -> None:
        self.network, self.tokenizer, self.model, self.batch_size = network, tokenizer, model, batch_size
        self.inference_mode = inference_mode

    def identity(self) -> dict[str, Any]:
        """Engine and model."""
        return {"engine": "loaded", "model": self.model}

    def generate(
        self, requests: Iterable[Request], options: SamplingOptions
    ) -> Iterator[tuple[Request, list[Completion]]]:
        """Yield each request with its completions, batch by batch."""
        from sampling.engines.decode import Decoder

        decoder = Decoder(self.network, self.tokenizer, options, self._end_ids() | set(options.stop_ids))
        source = iter(requests)
        while window := self._window(source):
            window.sort(key=lambda r: -len(r.prompt_ids))
            batch: list[Request] = []
            for request in window:
                if batch and sum(r.n for r in batch) + request.n > self.batch_size:
                    yield from zip(batch, decoder.run(batch, self.inference_mode), strict=True)
                    batch = []
                batch.append(request)
            yield from zip(batch, decoder.run(batch, self.inference_mode), strict=True)

    def _end_ids(self) -> set[int]:
        configured = self.network.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        return {i for i in (*listed, self.tokenizer.eos_token_id) if i is not None}

    def _window(self, source: Iterator[Request]) -> list[Request]:
        window: list[Request] = []
        while sum(r.n for r in window) < _WINDOW * self.batch_size and (more := list(islice(source, 16))):
            window += more
        return window


class TransformersEngine:
    """A Hugging Face causal language model in this process.

    Args:
        model: local folder or hub id.
        dtype: number format of the parameters; ``auto`` takes the checkpoint's.
        device: ``cpu``, ``cuda``, ``cuda:1``; None takes a GPU where there is one.
        batch_size: completions drawn at the same time.
    """

    def __init__(
        self, model: str, dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32",
        device: str | None = None, batch_size: int = 256,
    ) -> None:  # fmt: skip
        self.model, self.dtype, self.device, self.batch_size = model, dtype, device, batch_size

    def identity(self) -> dict[str, Any]:
        """Engine, model and number format."""
        return {"engine": "transformers", "model": self.model, "dtype": self.dtype}

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.model)

    @cached_property
    def _network(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        device = choose_device(self.device)
        try:
            dtype = self.dtype if self.dtype == "auto" else getattr(torch, self.dtype)
            network: Any = AutoModelForCausalLM.from_pretrained(self.model, dtype=dtype)
            return network.to(device).eval()
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.model}: no causal language model could be loaded: {str(error).splitlines()[0]}"
            ) from None

    def generate(
        self, requests: Iterable[Request], options: SamplingOptions
    ) -> Iterator[tuple[Request, list[Completion]]]:
        """Yield each request with its completions, batch by batch."""
        loaded = LoadedEngine(self._network, self.tokenizer, self.model, self.batch_size)
        yield from loaded.generate(requests, options)
