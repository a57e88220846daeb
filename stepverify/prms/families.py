"""List the released process reward models, and recognise their files. Without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stepverify.data.encode import load_tokenizer
from stepverify.prms.formats import MathShepherdFormat, PRMFormat, QwenFormat, RLHFlowFormat, SkyworkFormat, TRLFormat
from stepverify.records import InputError
from stepverify.template import EXPORT_FILE
from stepverify.tensors import tensor_shapes

_NO_LIMIT = 1 << 20  # tokens, where neither model nor tokenizer states a limit (transformers: 1e30)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describe released models that are read in one way.

    Attributes:
        models: ids on the Hub.
        form: prompt and positions.
        head: what is applied to the hidden states there: ``labels``, two rows of the vocabulary head; ``mlp``, two
            layers with a ReLU between them; ``linear``, one layer with two outputs; ``value``, one layer with one.
        mapping: the value in [0, 1] of a step.
        tensors: names of the head's tensors in the released files; empty for the vocabulary head.
        vllm: vLLM's pooling runner has the architecture.
    """

    models: tuple[str, ...]
    form: type[PRMFormat]
    head: Literal["labels", "mlp", "linear", "value"]
    mapping: str
    tensors: tuple[str, ...] = ()
    vllm: bool = False


FAMILIES: Mapping[str, Family] = {
    "QwenPRM": Family(
        models=("Qwen/Qwen2.5-Math-PRM-7B", "Qwen/Qwen2.5-Math-PRM-72B", "Qwen/Qwen2.5-Math-7B-PRM800K"),
        form=QwenFormat, head="mlp", mapping="softmax of two, the second",
        tensors=("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias"), vllm=True,
    ),
    "MathShepherdPRM": Family(
        models=("peiyi9979/math-shepherd-mistral-7b-prm",), form=MathShepherdFormat, head="labels",
        mapping="softmax of the logits of + and -, the first",
    ),
    "RLHFlowPRM": Family(
        models=("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "RLHFlow/Llama3.1-8B-PRM-Mistral-Data"), form=RLHFlowFormat,
        head="labels", mapping="softmax of the logits of + and -, the first",
    ),
    "SkyworkPRM": Family(
        models=("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B", "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B"),
        form=SkyworkFormat, head="value", mapping="sigmoid", tensors=("v_head.summary.weight", "v_head.summary.bias"),
    ),
    "TRLPRM": Family(
        models=(), form=TRLFormat, head="linear", mapping="softmax of two, the second",
        tensors=("score.weight", "score.bias"), vllm=True,
    ),
}  # fmt: skip


def check_files(name: str, folder: str, path: str) -> dict[str, Any]:
    """Check that a folder holds a model of a family.

    Args:
        name: of :data:`FAMILIES`.
        folder: the model's files.
        path: shown in error messages.

    Returns:
        The content of config.json.

    Raises:
        InputError: files are missing, or are those of another family; the message says which one fits.
    """
    where, config = Path(folder), _config(folder, path)
    if not any(where.glob("*.safetensors")):
        raise InputError(
            f"{path}: has no .safetensors file, and other weights are not read; load it in transformers, save it with "
            "save_pretrained, and give that folder"
        )
    tensors = _tensors(where)
    family, wanted = FAMILIES[name], (config.get("architectures") or ["?"])[0]
    fits = _recognise(where, wanted, tensors)
    if missing := [tensor for tensor in family.tensors if tensor not in tensors]:
        found = f"it has no tensor {missing[0]}"
    elif fits == "ExportedVerifier":
        found = f"it is an export (it has {EXPORT_FILE})"
    elif family.head == "labels" and (heads := sorted(t for t in tensors if t.startswith(("score.", "v_head.")))):
        found = f"it has a head of its own, {heads[0]}"
    elif name == "TRLPRM" and len(config.get("id2label") or (0, 1)) != 2:
        found = f"config.json says {len(config['id2label'])} labels, not 2"
    else:
        return config
    raise InputError(f"{path}: not a model of {name}: {found}" + (f"; {fits} fits its files" if fits else ""))


def _recognise(folder: Path, architecture: str, tensors: set[str]) -> str | None:
    """Name the scorer that fits, or None."""
    if (folder / EXPORT_FILE).is_file():
        return "ExportedVerifier"
    for name, family in FAMILIES.items():
        if family.tensors and {*family.tensors} <= tensors:
            return name
    if not architecture.endswith("ForCausalLM"):
        return None
    return "RLHFlowPRM" if _has_chat_template(folder) else "MathShepherdPRM"


def load_format(name: str, folder: str, path: str, max_length: int | None = None, **options: Any) -> PRMFormat:
    """Load a family's tokenizer and format, and try them.

    Args:
        name: of :data:`FAMILIES`.
        folder: the model's files.
        path: shown in error messages.
        max_length: longest sequence in tokens; None is the limit of model and tokenizer.
        options: further arguments of the format.

    Raises:
        InputError: the tokenizer is not that of the family.
    """
    config, tokenizer = _config(folder, path), load_tokenizer(folder)
    limits = (config.get("max_position_embeddings"), tokenizer.model_max_length, max_length, _NO_LIMIT)
    limit = int(min(value for value in limits if value is not None))
    try:
        form = FAMILIES[name].form(tokenizer, limit, **options)
        form.probe_tokenizer()
    except InputError as error:
        fits = _recognise(Path(folder), (config.get("architectures") or ["?"])[0], _tensors(Path(folder)))
        other = f"; {fits} fits its files" if fits not in (None, name) else ""
        raise InputError(f"{path}: not a model of {name}: {error}{other}") from None
    return form


def _config(folder: str, path: str) -> dict[str, Any]:
    try:
        found = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{path}: no model folder (no config.json)") from None
    except ValueError as error:
        raise InputError(f"{path}: config.json is not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def _tensors(folder: Path) -> set[str]:
    """Read the names of a checkpoint's tensors from the headers of its files."""
    return {*tensor_shapes(folder.glob("*.safetensors"))}


def _has_chat_template(folder: Path) -> bool:
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return (folder / "chat_template.jinja").is_file() or bool(said.get("chat_template"))
