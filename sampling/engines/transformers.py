"""Completions by plain transformers: the embedded default, on CPU or one GPU, with no server.

Batched, left-padded, sorted by length; a prompt is read once for all its samples; finished rows leave
the batch; keys and values lie in buffers that grow by doubling. Every token is sampled with one uniform
number that is a hash of (seed, position): a sample does not depend on what else is in the batch, except for rounding.
So texts are equal in every batch in fp32 as a rule, and not in bf16.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from sampling.engines.pump import Core, InProcessEngine, load_shared_tokenizer
from sampling.runtime.device import choose_device
from stepverify.records import InputError

_WAITING = 8  # batches that are asked for at the same time: what waits is sorted by length


class LoadedEngine(InProcessEngine):
    """A Hugging Face causal language model that is in memory already, one in training among them.

    Args:
        network: called as transformers does; has its ``config``, ``generation_config`` and ``device``. The caller
            puts it into evaluation mode.
        tokenizer: its tokenizer.
        model: what it is called.
        batch_size: completions that are begun together; an eighth as many may be left of those before.
        inference_mode: sample in torch's inference mode, which is faster than without gradients alone, but not for
            sharded weights: what is gathered there stays, and could not be trained with.
        in_thread: compute in a thread of its own. One in training stays in the thread of its event loop: autocast,
            the current device and collectives belong to that.
    """

    def __init__(
        self, network: Any, tokenizer: Any, model: str = "loaded", batch_size: int = 256, inference_mode: bool = True,
        in_thread: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(in_thread=in_thread)
        self.network, self._tokenizer, self.model, self.batch_size = network, tokenizer, model, batch_size
        self.inference_mode, self.capacity = inference_mode, _WAITING * batch_size

    def identity(self) -> dict[str, Any]:
        """Engine and model."""
        return {"engine": "loaded", "model": self.model}

    @property
    def tokenizer(self) -> Any:
        """The one that was given."""
        return self._tokenizer

    def _load(self) -> Core:
        return _decoder(self.network, self.tokenizer, self.batch_size, self.inference_mode)


class TransformersEngine(InProcessEngine):
    """A Hugging Face causal language model in this process.

    Args:
        model: local folder or hub id.
        dtype: number format of the parameters; ``auto`` takes the checkpoint's.
        device: ``cpu``, ``cuda``, ``cuda:1``; None takes a GPU where there is one.
        batch_size: completions that are begun together; an eighth as many may be left of those before.
    """

    def __init__(
        self, model: str, dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32",
        device: str | None = None, batch_size: int = 256,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.dtype, self.device, self.batch_size = model, dtype, device, batch_size
        self.capacity = _WAITING * batch_size

    def identity(self) -> dict[str, Any]:
        """Engine, model and number format."""
        return {"engine": "transformers", "model": self.model, "dtype": self.dtype}

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_shared_tokenizer(self.model)

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

    def _load(self) -> Core:
        return _decoder(self._network, self.tokenizer, self.batch_size, inference_mode=True)


def _decoder(network: Any, tokenizer: Any, batch_size: int, inference_mode: bool) -> Core:
    from sampling.engines.decode import Decoder

    configured = network.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    end_ids = {i for i in (*listed, tokenizer.eos_token_id) if i is not None}
    return Decoder(network, tokenizer, end_ids, batch_size, inference_mode)
