"""Score with exported verifiers, using the code that trained them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from sampling.scorers.local import LocalScorer
from sampling.scorers.parallel import Dtype, Neutral
from stepverify.digests import fingerprint_export


class ExportedVerifier(LocalScorer):
    """Score with an exported verifier on every device of this machine.

    The verifier is an outcome verifier or a process reward model. With one device it runs in this process, with several
    in one process each. Values do not depend on the number of devices.

    Args:
        path: folder of the export, or Hub repository (``name/repository``, ``name/repository@revision``).
        dtype: number format of the parameters; ``auto`` is that of the training.
        devices: number of devices; ``auto`` uses every GPU, or one process without a GPU.
        device: kind or name of the device, ``cpu`` or ``cuda:1``; None takes GPUs if there are any.
        pack_tokens: tokens per forward pass on a device, with shared prefixes counted once.
        per_token: keep an outcome verifier's value at every solution token instead of the final one.
        neutral: what P(neutral) counts as in the values of a process reward model with a neutral label; None takes the
            export's setting.
        prefix_cache_gib: keep up to this many GiB of keys and values in each process, so that prefixes scored in
            earlier calls are not computed again; 0 keeps nothing, None keeps nothing except in a search, where it is 1.
            Values change by rounding only. A model that does not support it is refused when it is loaded, since costs
            count on it: set 0 then.
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
    ) -> None:
        super().__init__(path, dtype, devices, device, pack_tokens, per_token, neutral, prefix_cache_gib)
        self.raw = raw

    def identity(self) -> dict[str, Any]:
        """Return digests of the export, its calibration, and the settings that decide its values."""
        assert self.export is not None
        return {"scorer": "exported", "export": fingerprint_export(self.export), **self.asked()}

    def loader(self) -> Callable[..., Any]:
        """Return what loads the export."""
        from stepverify.verifier import Verifier

        assert self.export is not None
        return partial(
            Verifier.from_pretrained, self.export, dtype=self.dtype, neutral=self.neutral, pack_tokens=self.pack_tokens,
            prefix_cache_gib=self.prefix_cache_gib, raw=self.raw,
        )  # fmt: skip
