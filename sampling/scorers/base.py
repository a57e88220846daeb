"""The border between the stages and whatever scores solutions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from stepverify.jsonl import fingerprint
from stepverify.records import InputError, Solution
from stepverify.template import EXPORT_FILE, load_export


class Scorer(ABC):
    """Score solutions and prefixes of solutions.

    An object is cheap until :meth:`score` is awaited, and holds no model after :meth:`aclose`, when it may be used
    again. Any number of calls may wait at the same time; a scorer reads them together.

    Attributes:
        concurrency: calls that keep it busy.
        export: local folder of the export that it reads, which says what it was trained on; None without one.
    """

    concurrency: int = 1
    export: str | None = None

    @abstractmethod
    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions, complete ones and prefixes.

        A prefix is a solution without its end: the steps so far, and ``finish="length"``, as of one that was cut off. A
        process reward model gives the values of its steps, which are those of every solution that begins with it. An
        outcome verifier is read at its last token, without the end of the text; that value was trained where it learned
        at every token (``per_token``), and is the probability of a correct final answer from there.

        Args:
            solutions: of any problems; those of one problem side by side, as they share the computation of what is
                common to them.

        Returns:
            For each solution its values in [0, 1]: one a step, one a token or the last one alone. None at all for one
            without a step or too long to be read whole.

        Raises:
            InputError: it cannot be loaded, or a device failed.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Describe what decides the values, for the stage's manifest; nothing that decides only speed.

        Raises:
            InputError: there is nothing that could be loaded.
        """

    def token_texts(self, solution: Solution) -> list[str]:
        """Return the text of the token of each value; none where values are not of tokens."""
        return []

    async def aclose(self) -> None:  # noqa: B027 - most scorers hold something, none has to
        """End processes and free memory; calls that wait are given up."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def fingerprint_export(path: str) -> str:
    """Return digests of an export's files: a folder after another training is another verifier.

    Raises:
        InputError: not an exported verifier.
    """
    folder = Path(path)
    if not (weights := sorted(folder.glob("*.safetensors"))):
        raise InputError(f"{path}: not an exported verifier (no .safetensors file)")
    found = load_export(folder)
    if found is None or found[1].get("objective") not in ("outcome", "process"):
        raise InputError(f"{path}: not an exported verifier (its {EXPORT_FILE} must say objective: outcome or process)")
    # Configuration, template, ids and tokenizer decide what is read, as much as the weights do.
    others = [file for name in ("config.json", EXPORT_FILE, "tokenizer.json") if (file := folder / name).is_file()]
    return " ".join(fingerprint(file)[:16] for file in (*weights, *others))
