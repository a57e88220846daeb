"""Reload exports in plain transformers, and compare logits with the trained model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from stepverify.data.batch import collate
from stepverify.data.encode import Example
from stepverify.models.backbone import Backbone, without_adapters
from stepverify.models.check import Reading
from stepverify.models.export import Form
from stepverify.models.files import tensor_by_tensor
from stepverify.models.heads import VerifierModel
from stepverify.models.implicit import ImplicitModel
from stepverify.models.outcome import OutcomeModel
from stepverify.models.process import ProcessModel
from stepverify.models.rows import decoder_of, reset_rope
from stepverify.models.sharded import Sharding, gathered, home, stand_ins
from stepverify.records import InputError

# Largest RMS difference, relative to the RMS of the logits if that is above 1: some hundred rounding errors.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def local_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the part of a model's state that this process holds."""
    return {k: v.to_local() if isinstance(v, DTensor) else v for k, v in model.state_dict().items()}


def check_finite(state: Mapping[str, Tensor], of_any: Callable[[Tensor], Tensor] = lambda flags: flags) -> None:
    """Refuse weights that are not finite.

    Args:
        state: the part that this process holds.
        of_any: converts flags of this process, one per weight, to flags of any process.

    Raises:
        InputError: with their number, and the name of one.
    """
    flags = of_any(torch.stack([~weight.isfinite().all() for weight in state.values()]))
    bad = [name for name, flag in zip(state, flags.tolist(), strict=True) if flag]
    if bad:
        raise InputError(f"{len(bad)} of {len(state)} weights are not finite (NaN or infinite), {bad[0]} among them")


@torch.no_grad()
def trained_logits(model: VerifierModel, examples: Sequence[Example]) -> list[Tensor]:
    """Compute the trained model's logits, without dropout, in its parameters' dtype.

    All ranks must call it for sharded models.

    Returns:
        (M, K) for each example: log-probabilities of the K labels at M step tags (process reward model), the calibrated
            value logit (outcome verifier), or the log-probability of each target token (generator) or solution token
            (implicit reward model).
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    found = []
    for example in examples:
        batch = collate([example]).to(device)
        compute = model.log_probs if isinstance(model, ImplicitModel) else lambda batch: model(batch)[0]
        outputs = compute(batch)[batch.scored.entries].float()
        if isinstance(model, OutcomeModel):
            outputs = (model.scaling[0] * outputs + model.scaling[1])[:, None]
        elif isinstance(model, ProcessModel):
            outputs = outputs.log_softmax(-1)
        else:
            outputs = outputs[:, None] if isinstance(model, ImplicitModel) else -outputs[:, None]
        found.append(outputs.cpu())
    model.train(was_training)
    return found


def reload(
    folder: Path,
    form: Form,
    own_form: Form,
    source: Backbone,
    reading: Reading,
    device: torch.device,
    sharding: Sharding | None = None,
) -> nn.Module:
    """Load one form of an export in plain transformers, or peft.

    Args:
        folder: folder of the form.
        form: form to load.
        own_form: the model's own form, on which an adapter is based.
        source: the backbone before training, which adapters are loaded on.
        reading: measured properties of the trained model: some need another attention than transformers' default.
        device: device to load to, if its memory can hold the model.
        sharding: each process holds its rows of every parameter; None loads everything.

    Raises:
        InputError: weights are missing, unknown or of another shape.
    """
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    is_classifier = (own_form if form == "adapter" else form) == "classifier"
    auto: Any = AutoModelForTokenClassification if is_classifier else AutoModelForCausalLM
    options: dict[str, Any] = {"trust_remote_code": source.trust_remote_code}
    if reading.sdpa and reading.own != "sdpa":
        options["attn_implementation"] = reading.own
    path: Path | str = folder
    if form == "adapter":
        options["dtype"] = source.dtype if source.dtype == "auto" else getattr(torch, source.dtype)
        options |= {"num_labels": 1} if is_classifier else {}
        path = source.folder
    else:
        options["dtype"] = "auto"
    with sharding.together() if sharding else nullcontext():
        with tensor_by_tensor(), sharding.reading() if sharding else nullcontext():
            model, report = auto.from_pretrained(path, output_loading_info=True, **options)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if form != "adapter" else ():
            if names := sorted(map(str, report[kind])):
                raise InputError(f"{len(names)} {kind.replace('_', ' ')}, {names[0]} among them")
    if sharding is not None:
        sharding.keep_rest(model)
    if form == "adapter":
        from peft import PeftModel

        with stand_ins(model):
            model = PeftModel.from_pretrained(model, str(folder))
    if sharding is not None:
        return model.eval()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        size = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
        if torch.cuda.mem_get_info(device)[0] < 1.5 * size:
            device = torch.device("cpu")
    return model.eval().to(device)


@torch.no_grad()
def exported_logits(
    plain: nn.Module, model: VerifierModel, examples: Sequence[Example], head: nn.Module | None = None
) -> list[Tensor]:
    """Compute the logits of a reloaded export, as :func:`trained_logits` does.

    Args:
        plain: the reloaded export.
        model: the trained model.
        examples: encoded solutions.
        head: the value head on the last hidden states, if the export has one.
    """
    base: Any = without_adapters(plain)
    with gathered(base):
        return _exported_logits(plain, base, model, examples, head)


def _exported_logits(
    plain: nn.Module, base: Any, model: VerifierModel, examples: Sequence[Example], head: nn.Module | None
) -> list[Tensor]:
    device = home(base)
    if head is not None:
        decoder, head = decoder_of(base), head.to(device)
        return [_head_logits(decoder, head, example) for example in examples]
    is_causal = base.get_output_embeddings() is not None
    keeps = is_causal and "logits_to_keep" in inspect.signature(base.forward).parameters
    found = []
    for example in examples:
        of_tokens = isinstance(model, ImplicitModel)  # read before them
        positions = [position - of_tokens for position in example.positions]
        ids, places = (torch.tensor(x, device=device) for x in ([example.input_ids], positions))
        logits = plain(input_ids=ids, **({"logits_to_keep": places} if keeps else {})).logits[0].float()
        logits = logits if keeps else logits[places]
        if isinstance(model, ProcessModel):
            labels: Any = model.label_ids
            logits = (logits[:, labels.to(device)] if is_causal else logits).log_softmax(-1)
        elif not isinstance(model, OutcomeModel):
            targets = ids[0, places + 1] if of_tokens else torch.tensor(example.targets, device=device).long()
            logits = logits.log_softmax(-1).gather(-1, targets[:, None])
        found.append(logits.cpu())
    return found


def _head_logits(decoder: nn.Module, head: nn.Module, example: Example) -> Tensor:
    reset_rope(decoder)
    ids = torch.tensor([example.input_ids], device=next(head.parameters()).device)
    hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[0][example.positions]
    return head(hidden.to(next(head.parameters()).dtype)).float().cpu()


def compare(
    trained: Sequence[Tensor], exported: Sequence[Tensor], examples: Sequence[Example], dtype: torch.dtype
) -> None:
    """Refuse an export whose logits differ from the trained model's beyond rounding.

    Args:
        trained: (M, K) for each example.
        exported: as many.
        examples: named in the error message.
        dtype: the coarsest dtype of weights, trained or exported.

    Raises:
        InputError: logits are not finite, or differ; with both numbers where they differ most.
    """
    one, other = torch.cat(list(trained)), torch.cat(list(exported))
    for name, logits in (("trained", one), ("exported", other)):
        if not logits.isfinite().all():
            raise InputError(f"the {name} model's scores are not finite")
    tolerance = _TOLERANCE.get(dtype, 1e-1)
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        tolerance = _TOLERANCE[torch.float16]  # products of 10 bits, as in float16
    limit = tolerance * max(1.0, one.square().mean().sqrt().item())
    if (gap := (one - other).square().mean().sqrt().item()) <= limit:
        return
    row, label = divmod(int((one - other).abs().argmax()), one.shape[1])
    owner = [(e.record.id, at) for e in examples for at in e.positions]
    solution, position = owner[row]
    raise InputError(
        f"it gives other values than the trained model: at token {position} of solution {solution} the logit "
        f"{other[row, label]:.6g}, trained {one[row, label]:.6g} (difference of all {gap:.2g} RMS, at most {limit:.2g})"
    )
