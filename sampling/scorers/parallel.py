"""Score with an export on several devices.

The base of the scorers in this process and in vLLM.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from sampling.engines.base import Usage
from sampling.scorers.base import Scorer
from sampling.scorers.workers import Pool, Worker
from stepverify.adopted import Adopted, load_adopted
from stepverify.data.encode import LeftOut, SolutionEncoder
from stepverify.hub import local_export
from stepverify.objectives import Objective, Reading
from stepverify.records import InputError, Solution
from stepverify.template import load_export
from stepverify.tensors import count_parameters

Neutral = Literal["positive", "negative"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ParallelScorer(Scorer):
    """Score with one exported verifier, loaded once on each of several devices.

    Args:
        path: folder of the export, or id of a hub repository.
        dtype: number format of the parameters; ``auto`` is that of the training.
        devices: number of devices; ``auto`` uses as many as the scorer can.
        per_token: keep an outcome verifier's value at every solution token instead of the final one.
        neutral: what P(neutral) counts as in the values of a process reward model with a neutral label; None takes the
            export's setting.
    """

    def __init__(
        self, path: str, dtype: Dtype, devices: int | Literal["auto"], per_token: bool, neutral: Neutral | None
    ) -> None:
        if devices != "auto" and devices < 1:
            raise InputError(f"devices: expected auto, or 1 or more, got {devices}")
        self.path, self.dtype, self.devices, self.per_token, self.neutral = path, dtype, devices, per_token, neutral
        self.raw = False
        self.usage: Usage = Usage()
        self._pool: Pool | None = None

    @cached_property
    def export(self) -> str | None:  # type: ignore[override]
        """Return the export's local folder; None without an export."""
        return local_export(self.path)

    @property
    def adopted(self) -> Adopted | None:  # type: ignore[override]
        """Return the calibration that the export has adopted; None with ``raw``."""
        return None if self.raw or not self.export else load_adopted(self.export)

    @cached_property
    def objective(self) -> Objective | None:  # type: ignore[override]
        """Return the objective of the export's training."""
        found = load_export(self.export) if self.export else None
        return found[1].get("objective") if found else None

    @cached_property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the model's number of parameters, from the headers of its files."""
        return count_parameters(self.weights)

    @property
    def weights(self) -> str:
        """Return the folder of the weights.

        Raises:
            InputError: it holds no model that this scorer can load.
        """
        assert self.export is not None
        return self.export

    @property
    @abstractmethod
    def places(self) -> Sequence[str | None]:
        """Return where each worker loads the model.

        A device, GPUs, or None for the CPU.

        Raises:
            InputError: fewer devices than requested.
        """

    @abstractmethod
    def workers(self) -> list[Worker]:
        """Make a worker for each of :attr:`places`.

        Models are loaded with their first batch.
        """

    def asked(self) -> dict[str, Any]:
        """Return the arguments that decide values, and the export's calibration, for :meth:`identity`."""
        adopted = {} if self.adopted is None else {"adopted": self.adopted.identity()}
        return {"dtype": self.dtype, "per_token": self.per_token, "neutral": self.neutral} | adopted

    @property
    def concurrency(self) -> int:  # type: ignore[override]
        """Return two calls per device: one is scored while one waits."""
        return 2 * len(self.places)

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions and prefixes, in the given order."""
        if self._pool is None:
            self._pool = Pool(self.workers(), self.usage, self.caches_prefixes)
        return await self._pool.score(solutions)

    def token_texts(self, solution: Solution) -> list[str]:
        """Return the texts of a solution's tokens for token values.

        Empty for a process reward model or without ``per_token``.
        """
        return self._encoder.token_texts(solution) if self.per_token and self.objective != "process" else []

    def count_tokens(self, solution: Solution) -> int:
        """Count the tokens of problem and solution, with step tags and the token that ends a complete solution.

        An implicit reward model reads them by both of its models, whose parameters :attr:`num_parameters` adds up.
        """
        encoder = self._encoder
        try:
            return len(Reading(self.objective or "outcome").encode(encoder, solution).input_ids)
        except LeftOut:
            return 0

    async def aclose(self) -> None:
        """End the workers and their processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def load_format(self) -> SolutionEncoder:
        """Load the encoder with its tokenizer.

        Raises:
            InputError: not an exported verifier.
        """
        from stepverify.models import load_encoder

        assert self.export is not None
        return load_encoder(self.export)[0]

    @cached_property
    def _encoder(self) -> SolutionEncoder:
        return self.load_format()
