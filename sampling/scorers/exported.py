"""Score with exported verifiers, using the code that trained them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Literal

from sampling.scorers.local import LocalScorer
from sampling.scorers.parallel import Dtype, Neutral
from stepverify.digests import fingerprint_export
from stepverify.hub import local_model
from stepverify.objectives import Reading, Rewards
from stepverify.template import load_export
from stepverify.tensors import count_parameters


class ExportedVerifier(LocalScorer):
    """Score with an exported verifier on every device of this machine.

    The verifier is an outcome verifier, a process or an implicit reward model. With one device it runs in this process,
    with several in one process each. Values do not depend on the number of devices.

    Args:
        path: folder of the export, or Hub repository (``name/repository``, ``name/repository@revision``).
        dtype: number format of the parameters; ``auto`` is that of the training.
        devices: number of devices; ``auto`` uses every GPU, or one process without a GPU.
        device: kind or name of the device, ``cpu`` or ``cuda:1``; None takes GPUs if there are any.
        pack_tokens: tokens per forward pass on a device, with shared prefixes counted once.
        per_token: keep the value at every solution token, of an outcome verifier or implicit reward model.
        neutral: what P(neutral) counts as in the values of a process reward model with a neutral label; None takes the
            export's setting.
        prefix_cache_gib: keep up to this many GiB of keys and values in each process, so that prefixes scored in
            earlier calls are not computed again; 0 keeps nothing, None keeps nothing except in a search, where it is 1.
            Values change by rounding only. A model that does not support it is refused when it is loaded, since costs
            count on it: set 0 then. An implicit reward model does not, and None keeps nothing of it in a search either.
        rewards: values of an implicit reward model: of the solution up to the end of each step (``cumulative``), or of
            the ``step`` itself, see :class:`stepverify.objectives.Reading`.
        reference: where the reference of an implicit reward model is; None takes the place that the export names.
        raw: give the values of the training, without a calibration that the export has adopted.
    """

    def __init__(
        self,
        path: str,
        dtype: Dtype = "auto",
        devices: int | Literal["auto"] = "auto",
        device: str | None = None,
        pack_tokens: int = 8192,
        per_token: bool = False,
        neutral: Neutral | None = None,
        prefix_cache_gib: float | None = None,
        raw: bool = False,
        rewards: Rewards = "cumulative",
        reference: str | None = None,
    ) -> None:
        super().__init__(path, dtype, devices, device, pack_tokens, per_token, neutral, prefix_cache_gib)
        self.raw, self.rewards, self.reference = raw, rewards, reference

    def identity(self) -> dict[str, Any]:
        """Return digests of the export, its calibration, and the settings that decide its values.

        Of an implicit reward model also how its values become a score, which ``sampling rank`` and ``sampling
        calibrate`` take unless told otherwise. Its reference is named by a digest in the export.
        """
        assert self.export is not None
        found = {"scorer": "exported", "export": fingerprint_export(self.export), **self.asked()}
        if self.objective == "implicit":
            read = Reading("implicit", "cumulative" if self.per_token else self.rewards)
            found |= {"rewards": read.rewards, "aggregation": read.aggregation}
        return found

    @cached_property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the number of parameters, those of a reference included."""
        own = count_parameters(self.weights)
        if self.objective != "implicit" or own is None:
            return own
        found = load_export(self.weights)
        assert found is not None
        other = count_parameters(local_model(self.reference or found[1]["reference"]["path"]))
        return None if other is None else own + other

    def keep_prefixes(self) -> None:
        """Keep prefixes in a search, except of an implicit reward model, which is said."""
        if self.objective != "implicit" or self.prefix_cache_gib is not None:
            super().keep_prefixes()
        else:
            print(
                f"{self.path}: prefixes are read again in every call: an implicit reward model keeps none", flush=True
            )

    def loader(self) -> Callable[..., Any]:
        """Return what loads the export."""
        from stepverify.verifier import Verifier

        assert self.export is not None
        return partial(
            Verifier.from_pretrained, self.export, dtype=self.dtype, neutral=self.neutral, pack_tokens=self.pack_tokens,
            prefix_cache_gib=self.prefix_cache_gib, raw=self.raw, rewards=self.rewards, reference=self.reference,
        )  # fmt: skip
