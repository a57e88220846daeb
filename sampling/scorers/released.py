"""Score with process reward models that others released.

Prompt, positions, head and mapping of each are in :mod:`stepverify.prms`; devices and batches are those of
:class:`sampling.scorers.ExportedVerifier`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from sampling.scorers.local import LocalScorer
from sampling.scorers.parallel import Dtype
from stepverify.digests import digest_model
from stepverify.hub import local_model
from stepverify.objectives import Objective
from stepverify.prms.families import check_files, load_format
from stepverify.prms.formats import PRMFormat
from stepverify.records import InputError

_DECIDING = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json")


class ReleasedPRM(LocalScorer, ABC):
    """Provide the base of released process reward models, one class each.

    Args:
        model: local folder, or Hub repository (``name/repository``, ``name/repository@revision``).
        dtype: number format of the parameters; ``auto`` is the checkpoint's.
        devices: number of devices; ``auto`` uses every GPU, or one process without a GPU.
        device: kind or name of the device, ``cpu`` or ``cuda:1``; None takes GPUs if there are any.
        pack_tokens: tokens per forward pass on a device, with shared prefixes counted once.
        max_length: longest problem and solution in tokens; longer ones have no score. None is the model's limit.
        prefix_cache_gib: as in :class:`sampling.scorers.ExportedVerifier`.
    """

    def __init__(
        self,
        model: str,
        dtype: Dtype = "auto",
        devices: int | Literal["auto"] = "auto",
        device: str | None = None,
        pack_tokens: int = 8192,
        max_length: int | None = None,
        prefix_cache_gib: float | None = None,
    ) -> None:
        super().__init__(model, dtype, devices, device, pack_tokens, prefix_cache_gib=prefix_cache_gib)
        if max_length is not None and max_length < 1:
            raise InputError(f"max_length: expected 1 or more, or null, got {max_length}")
        self.max_length = max_length

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the name of the kind, of :data:`stepverify.prms.FAMILIES`."""

    @property
    def export(self) -> None:  # type: ignore[override]
        """Return None: it does not say what it was trained on."""

    @property
    def objective(self) -> Objective:  # type: ignore[override]
        """Return ``process``."""
        return "process"

    @property
    def weights(self) -> str:
        """Return the folder of the model."""
        return self.folder

    @cached_property
    def folder(self) -> str:
        """Return the folder of the model, whose files are of this kind.

        Raises:
            InputError: they are not.
        """
        folder = local_model(self.path)
        check_files(self.name, folder, self.path)
        return folder

    def options(self) -> dict[str, Any]:
        """Return the arguments of the format."""
        return {}

    def load_format(self) -> PRMFormat:
        """Load tokenizer and format."""
        return load_format(self.name, self.folder, self.path, self.max_length, **self.options())

    def identity(self) -> dict[str, Any]:
        """Return digests of the files, and the settings that decide the values."""
        self.load_format()  # fails first if the tokenizer is not of this kind
        digests = digest_model(Path(self.folder), _DECIDING)
        decide = {"dtype": self.dtype, "max_length": self.max_length, **self.options()}
        return {"scorer": self.name, "model": digests, **decide}

    def loader(self) -> Callable[..., Any]:
        """Return what loads the model with its head."""
        from stepverify.prms import load_prm

        return partial(
            load_prm, self.name, self.folder, dtype=self.dtype, pack_tokens=self.pack_tokens,
            max_length=self.max_length, prefix_cache_gib=self.prefix_cache_gib, **self.options(),
        )  # fmt: skip


class QwenPRM(ReleasedPRM):
    """Score with ``Qwen/Qwen2.5-Math-PRM-7B``, ``-72B``, or ``Qwen/Qwen2.5-Math-7B-PRM800K``.

    A chat whose answer has ``<extra_0>`` after each step; softmax of the head's two logits there.
    """

    name = "QwenPRM"


class MathShepherdPRM(ReleasedPRM):
    """Score with ``peiyi9979/math-shepherd-mistral-7b-prm``.

    Numbered steps with ``ки`` at their end; softmax of the next token's ``+`` and ``-`` there.
    """

    name = "MathShepherdPRM"


class RLHFlowPRM(ReleasedPRM):
    """Score with ``RLHFlow/Llama3.1-8B-PRM-Deepseek-Data`` or ``-Mistral-Data``.

    Every step is a user's turn; softmax of ``+`` and ``-`` as its answer. All steps are read in one pass, in which
    every answer is ``+``, as on the model card.
    """

    name = "RLHFlowPRM"


class SkyworkPRM(ReleasedPRM):
    """Score with ``Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B`` or ``-7B``.

    The problem and the steps on lines; sigmoid of the value head at the line ends.
    """

    name = "SkyworkPRM"


class TRLPRM(ReleasedPRM):
    """Score with a token classifier that TRL's PRMTrainer saved.

    Prompt and steps, each with the separator; softmax of two logits at the separator's last token.

    Args:
        model: local folder, or Hub repository (``name/repository``, ``name/repository@revision``).
        prompt: text of TRL's ``prompt`` in its training; ``{problem}`` is replaced by the problem.
        step_separator: ``step_separator`` of TRL's PRMConfig in its training.
        dtype: number format of the parameters; ``auto`` is the checkpoint's.
        devices: number of devices; ``auto`` uses every GPU, or one process without a GPU.
        device: kind or name of the device, ``cpu`` or ``cuda:1``; None takes GPUs if there are any.
        pack_tokens: tokens per forward pass on a device, with shared prefixes counted once.
        max_length: longest problem and solution in tokens; longer ones have no score. None is the model's limit.
        prefix_cache_gib: as in :class:`sampling.scorers.ExportedVerifier`.
    """

    name = "TRLPRM"

    def __init__(
        self,
        model: str,
        prompt: str = "{problem}",
        step_separator: str = "\n",
        dtype: Dtype = "auto",
        devices: int | Literal["auto"] = "auto",
        device: str | None = None,
        pack_tokens: int = 8192,
        max_length: int | None = None,
        prefix_cache_gib: float | None = None,
    ) -> None:
        super().__init__(model, dtype, devices, device, pack_tokens, max_length, prefix_cache_gib)
        self.prompt, self.step_separator = prompt, step_separator

    def options(self) -> dict[str, Any]:
        """Return prompt and separator."""
        return {"prompt": self.prompt, "step_separator": self.step_separator}
