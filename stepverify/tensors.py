"""Read the headers of safetensors checkpoints: names and shapes, without weights and without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path

from stepverify.records import InputError


def tensor_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Read name and shape of each tensor from the headers of safetensors files.

    Raises:
        InputError: not a safetensors file, or one that was cut off.
    """
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            try:
                if size > file.stat().st_size - 8:
                    raise ValueError("its header is longer than the file")
                header = json.loads(opened.read(size))
                found |= {name: tuple(facts["shape"]) for name, facts in header.items() if name != "__metadata__"}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(f"{file}: not a safetensors file ({error}); download or copy it again") from None
    return found


def count_parameters(folder: str | Path) -> int | None:
    """Count the parameters of a local model from its safetensors headers.

    Shared matrices that are stored once count once; all experts of a mixture count. None if the number is unknown: no
    such folder, weights in another format, an adapter without its model, or quantised weights, several of which share
    a stored number.

    Raises:
        InputError: as :func:`tensor_shapes`.
    """
    where = Path(folder)
    # Mistral's repositories hold the same weights a second time, under other names.
    files = [file for file in where.glob("*.safetensors") if not file.name.startswith("consolidated")]
    if not files or (where / "adapter_config.json").is_file() or _is_quantised(where / "config.json"):
        return None
    return sum(map(prod, tensor_shapes(files).values()))


def _is_quantised(file: Path) -> bool:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return any("quantization_config" in part for part in (config, config.get("text_config") or {}))
    except (OSError, ValueError, AttributeError, TypeError):
        return False
