"""Complete prompts with plain transformers, on CPU or one GPU.

This is the default engine, which needs no server. Prompts are batched, left-padded and sorted by length; a prompt is
read once for all its samples, and nothing twice that an earlier call has read or sampled, as far as there is room;
finished rows leave the batch; the key-value cache grows by doubling. Every token is sampled with one uniform number, a
hash of (seed, position), so a sample does not depend on the rest of the batch, except for rounding. In float32 texts
are therefore usually equal in every batch, in bfloat16 they are not.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from sampling.engines.base import Usage
from sampling.engines.pump import Core, InProcessEngine, load_shared_tokenizer
from stepverify.cache_size import cache_bytes
from stepverify.hub import local_model
from stepverify.records import InputError
from stepverify.tensors import count_parameters

_WAITING = 8  # batches requested at the same time, since waiting calls are sorted by length


class LoadedEngine(InProcessEngine):
    """Sample from a causal language model that is already in memory.

    It may be a model in training.

    Args:
        network: called like a transformers model; has its ``config``, ``generation_config`` and ``device``. The caller
            puts it into evaluation mode.
        tokenizer: its tokenizer.
        model: name of the model.
        batch_size: completions that are sampled at the same time.
        inference_mode: sample in torch's inference mode. It is faster than only switching gradients off, but must not
            be used with sharded weights: gathered weights are kept, and could not be trained afterwards.
        in_thread: compute in a thread of its own. A model in training stays in the thread of its event loop: autocast,
            the current device and collectives belong to that thread.
    """

    def __init__(
        self, network: Any, tokenizer: Any, model: str = "loaded", batch_size: int = 256, inference_mode: bool = True,
        in_thread: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(in_thread=in_thread)
        self.network, self._tokenizer, self.model, self.batch_size = network, tokenizer, model, batch_size
        self.inference_mode, self.capacity = inference_mode, _WAITING * batch_size

    def identity(self) -> dict[str, Any]:
        """Return engine and model."""
        return {"engine": "loaded", "model": self.model}

    @property
    def tokenizer(self) -> Any:
        """Return the given tokenizer."""
        return self._tokenizer

    @property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the number of parameters of the network; shared ones count once."""
        return sum(p.numel() for p in self.network.parameters())

    def _load(self) -> Core:
        return _decoder(self.network, self.tokenizer, self.batch_size, self.inference_mode)


class TransformersEngine(InProcessEngine):
    """Sample completions with transformers in this process.

    Args:
        model: local folder or hub id of a causal language model.
        dtype: number format of the parameters; ``auto`` takes the checkpoint's.
        device: ``cpu``, ``cuda``, ``cuda:1``; None takes a GPU if there is one.
        batch_size: completions that are sampled at the same time.
        prefix_cache_gib: GiB of keys and values of prompts and of completions that a stop text ended, kept from call to
            call, so that their continuations read new tokens only; 0 for none.

    Raises:
        InputError: an impossible size of the prefix cache.
    """

    def __init__(
        self, model: str, dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32",
        device: str | None = None, batch_size: int = 256, prefix_cache_gib: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self._cache_bytes = cache_bytes(prefix_cache_gib)
        self.caches_prefixes, self.usage = self._cache_bytes > 0, Usage()
        self.model, self.dtype, self.device, self.batch_size = model, dtype, device, batch_size
        self.capacity = _WAITING * batch_size

    def identity(self) -> dict[str, Any]:
        """Return engine, model and number format."""
        return {"engine": "transformers", "model": self.model, "dtype": self.dtype}

    @cached_property
    def tokenizer(self) -> Any:
        """Return the model's tokenizer."""
        return load_shared_tokenizer(self.model)

    @cached_property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the model's number of parameters, from the headers of its files."""
        return count_parameters(local_model(self.model))

    @cached_property
    def _network(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        from stepverify.device import choose_device

        disable_progress_bar()  # of loading; the stage has one of its own
        device = choose_device(self.device)
        try:
            dtype = self.dtype if self.dtype == "auto" else getattr(torch, self.dtype)
            network: Any = AutoModelForCausalLM.from_pretrained(local_model(self.model), dtype=dtype)
            return network.to(device).eval()
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.model}: no causal language model could be loaded: {str(error).splitlines()[0]}"
            ) from None

    def _load(self) -> Core:
        return _decoder(self._network, self.tokenizer, self.batch_size, True, self._cache_bytes, self.usage)


def _decoder(network: Any, tokenizer: Any, batch_size: int, inference_mode: bool, *kept: Any) -> Core:
    from sampling.engines.decode import Decoder

    configured = network.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    end_ids = {i for i in (*listed, tokenizer.eos_token_id) if i is not None}
    return Decoder(network, tokenizer, end_ids, batch_size, inference_mode, *kept)
