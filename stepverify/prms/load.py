"""Load released process reward models with their heads, without code from the Hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from stepverify.data.batch import Batch
from stepverify.device import choose_device
from stepverify.hub import local_model
from stepverify.models import Backbone, ProcessModel, VerifierModel
from stepverify.models.export import Form
from stepverify.models.files import tensor_by_tensor
from stepverify.models.heads import Rows
from stepverify.prms.families import FAMILIES, Family, check_files, load_format
from stepverify.records import InputError
from stepverify.verifier import Verifier

# The released name of a head's module, and ours.
_RENAMED = {r"^v_head\.summary\.": "score."}


def load_prm(
    name: str,
    path: str,
    *,
    device: str | torch.device | None = None,
    dtype: str = "auto",
    pack_tokens: int = 8192,
    max_length: int | None = None,
    prefix_cache_gib: float | None = None,
    **options: Any,
) -> Verifier:
    """Load a released process reward model.

    ::

        from stepverify.prms import load_prm

        prm = load_prm("QwenPRM", "Qwen/Qwen2.5-Math-PRM-7B")
        prm.score("What is 2 + 3?", ["2 + 3 = 5", "The answer is 5."])

    Args:
        name: kind of the model, of :data:`stepverify.prms.FAMILIES`.
        path: local folder, or Hub repository.
        device: None takes a GPU if there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` takes the checkpoint's.
        pack_tokens: tokens computed at the same time, with shared prefixes counted once.
        max_length: longest problem and solution in tokens; None is the model's limit.
        prefix_cache_gib: size of the prefix cache, see :class:`stepverify.Verifier`; None for none.
        options: further arguments of the format: ``prompt`` and ``step_separator`` of ``TRLPRM``.

    Raises:
        InputError: an unknown name, or files of another kind of model.
    """
    if name not in FAMILIES:
        raise InputError(f"{name}: not a released process reward model; expected one of {', '.join(FAMILIES)}")
    folder = local_model(path)
    check_files(name, folder, path)
    form = load_format(name, folder, path, max_length, **options)
    backbone = Backbone(path=folder, dtype=dtype)  # type: ignore[arg-type]
    if FAMILIES[name].head == "labels":
        model: VerifierModel = ProcessModel(backbone.load(), form.label_ids)
    else:
        model = HeadedModel(_headed(FAMILIES[name], backbone, path))
    model = model.eval().to(choose_device(device))
    return Verifier(model, form, {"objective": "process"}, path, pack_tokens, prefix_cache_gib)


class HeadedModel(VerifierModel):
    """Apply the head that was released with a model.

    Args:
        backbone: a token classifier whose ``score`` gives the logit of a correct step, or those of an incorrect and a
            correct one.
    """

    objective = "process"
    form: Form = "classifier"
    labels = ("incorrect", "correct")

    def read(self, hidden: Tensor, batch: Batch, rows: Rows | None) -> Tensor:
        """Compute the (M, 1 or 2) logits of the head."""
        return self.backbone.score(hidden)  # type: ignore[operator]

    def head_parameters(self) -> Iterable[Tensor | None]:
        """Return the parameters of the head."""
        return self.backbone.score.parameters()  # type: ignore[union-attr]

    def values(self, outputs: Tensor) -> Tensor:
        """Compute the sigmoid of one logit, or P(correct) of two."""
        if outputs.shape[-1] == 1:
            return outputs[:, 0].float().sigmoid()
        return outputs.float().softmax(-1)[:, 1]


def _headed(family: Family, source: Backbone, path: str) -> nn.Module:
    """Load the backbone as a token classifier whose ``score`` is the released head."""
    from transformers import AutoConfig, AutoModelForTokenClassification

    config = AutoConfig.from_pretrained(source.folder, num_labels=1 if family.head == "value" else 2)
    mapping: Any = AutoModelForTokenClassification._model_mapping
    if type(config) not in mapping:
        raise InputError(f"{path}: transformers has no token classifier of type {config.model_type}")
    plain: Any = mapping[type(config)]

    class Headed(plain):
        _keys_to_ignore_on_load_unexpected = (r"^lm_head\.",)

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            if family.head == "mlp":
                size = config.hidden_size
                self.score = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 2))
                self.post_init()

    dtype: Any = source.dtype if source.dtype == "auto" else getattr(torch, source.dtype)
    options: dict[str, Any] = {"key_mapping": _RENAMED} if family.head == "value" else {}
    try:
        with tensor_by_tensor():
            model, report = Headed.from_pretrained(
                source.folder, config=config, dtype=dtype, output_loading_info=True, **options
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{path}: could not be loaded: {str(error).splitlines()[0]}") from None
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, report[kind])):
            raise InputError(f"{path}: {len(names)} {kind.replace('_', ' ')}, {names[0]} among them")
    source.examine(model)
    return model
