"""Load exported verifiers for scoring."""

from __future__ import annotations

from typing import Any

from stepverify.adopted import check_neutral, load_adopted
from stepverify.data.encode import SolutionEncoder, load_tokenizer
from stepverify.models.backbone import Backbone
from stepverify.models.export import load_value_head
from stepverify.models.heads import VerifierModel
from stepverify.models.implicit import ImplicitModel
from stepverify.models.outcome import OutcomeModel
from stepverify.models.process import Neutral, ProcessModel
from stepverify.models.reference import Reference
from stepverify.objectives import OBJECTIVES
from stepverify.records import InputError
from stepverify.template import load_export

_NAMES = f"{', '.join(OBJECTIVES[:-1])} or {OBJECTIVES[-1]}"


def load_encoder(path: str, neutral: Neutral | None = None) -> tuple[SolutionEncoder, dict[str, Any]]:
    """Load the encoder and metadata of an exported verifier.

    Args:
        path: the export.
        neutral: as in :func:`load_verifier`.

    Raises:
        InputError: as in :func:`load_verifier`, except for the weights.
    """
    export = load_export(path)
    if export is None or export[1].get("objective") not in OBJECTIVES:
        raise InputError(f"{path}: not an exported verifier (its stepverify.json must say objective: {_NAMES})")
    template, facts = export
    if facts.get("form") == "adapter":
        raise InputError(f"{path}: an adapter; score with the merged export in its parent folder")
    encoder = SolutionEncoder(load_tokenizer(path), template, facts.get("max_length", 1024))
    if facts.get("probe", probe := encoder.probe()) != probe:
        raise InputError(f"{path}: its tokenizer gives other ids than in training: was a file of the export replaced?")
    if neutral is not None and (facts["objective"] != "process" or template.neutral is None):
        raise InputError(f"{path}: neutral: {neutral}: it has no neutral label (template.neutral)")
    if facts["objective"] == "process" and facts.get("ids") != (now := encoder.judging_ids()):
        raise InputError(f"{path}: trained with ids {facts.get('ids')}, but its tokenizer now gives {now}")
    return encoder, facts


def load_verifier(
    path: str, dtype: str = "auto", neutral: Neutral | None = None, reference: str | None = None, *, raw: bool = False
) -> tuple[VerifierModel, SolutionEncoder, dict[str, Any]]:
    """Load an exported verifier in evaluation mode, with its encoder and metadata.

    Args:
        path: the export.
        dtype: dtype of the parameters; ``auto`` takes that of the training's matrix products, or the checkpoint's if
            the export does not record it.
        neutral: how the values of a process reward model with a neutral label count P(neutral); None takes the export's
            choice.
        reference: where the reference of an implicit reward model is; None takes the place that the export names.
        raw: leave out a calibration that the export has adopted; otherwise the metadata hold it as ``calibration``.

    Raises:
        InputError: not an exported verifier, its tokenizer no longer gives the saved ids, ``neutral`` or ``reference``
            is given for a verifier without a neutral label or reference, the reference is missing or another
            model, or ``neutral`` is another one than in the calibration.
    """
    encoder, facts = load_encoder(path, neutral)
    if not raw and (adopted := load_adopted(path)) is not None:
        check_neutral(adopted, facts, neutral, path)
        facts["calibration"] = adopted
    if dtype == "auto":
        dtype = facts.get("dtype", dtype)
    if reference is not None and facts["objective"] != "implicit":
        raise InputError(f"{path}: reference: {reference}: it is no implicit reward model, which alone has one")
    other = Reference.read(facts, path).find(path, reference) if facts["objective"] == "implicit" else None
    backbone = Backbone(path=path, dtype=dtype).load()  # type: ignore[arg-type]
    if other is not None:
        beside = ImplicitModel(Backbone(path=other, dtype=dtype).load())  # type: ignore[arg-type]
        implicit = ImplicitModel(backbone, facts["beta"], beside)
        implicit.scale(*facts["scaling"])
        return implicit.eval(), encoder, facts
    if facts["objective"] == "process":
        counts_as: Neutral = neutral or facts.get("neutral", "positive")
        model: VerifierModel = ProcessModel(backbone, encoder.label_ids, neutral=counts_as)
    else:
        model = OutcomeModel(backbone, trained=load_value_head(path))
    return model.eval(), encoder, facts
