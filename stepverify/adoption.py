"""Put a calibration of ``sampling calibrate`` into an export, or remove it.

``stepverify adopt --export DIR --calibration FILE``: whatever reads the export gives calibrated values then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepverify import atomic
from stepverify.adopted import CALIBRATION_FILE, VERSION, Adopted, counts_neutral_as, load_adopted
from stepverify.calibration import BY_VALUE, Map
from stepverify.decoding import read_json
from stepverify.digests import fingerprint_export
from stepverify.records import InputError
from stepverify.suggest import OneLineParser
from stepverify.template import load_export

_CARD, _HEADING = "README.md", "## Calibration"


class _Measured(Struct):
    """Hold ECE and Brier score of one aggregation, before and after; a part of what the file has."""

    before: dict[str, float] | None
    after: dict[str, float]


class _Fitted(Struct):
    """Hold what an export needs of a verifier in a file of ``sampling calibrate``."""

    identity: dict[str, Any] | None
    target: str
    maps: list[Map]
    first_steps: list[int]
    aggregation: str | None = None
    num_labels: int = 0
    step_quality: dict[str, list[float]] = {}
    measured: dict[str, _Measured] = {}


class _File(Struct):
    version: int
    problems: list[str]
    verifiers: dict[str, _Fitted]


def adopt(export: Path, calibration: Path, name: str | None = None) -> Adopted:
    """Put a verifier's map into its export, in place of an earlier one.

    The values of the export are then mapped wherever it is read, unless ``raw`` is set there. The map is stored as
    ``calibration.json`` beside the weights, which stay as they are, and described in the card.

    Args:
        export: folder of the export.
        calibration: file of ``sampling calibrate``.
        name: of the verifier in the file; None takes the one that this export is.

    Raises:
        InputError: not an exported verifier, or not such a file; a map of another verifier, of values that were
            calibrated already, or of scores that need all values of a solution.
    """
    digests, facts = _read_export(export)
    found = _read_file(calibration)
    known = {str(export): digests}
    if any((classifier := export / "classifier").glob("*.safetensors")):  # what vLLM's pooling runner reads
        known[str(classifier)] = fingerprint_export(str(classifier))
    name = _named(found, calibration, known, export) if name is None else name
    if name not in found.verifiers:
        raise InputError(f"{calibration}: has no map of {name!r}, but of {', '.join(found.verifiers) or 'none'}")
    fitted, where = found.verifiers[name], f"{calibration}: {name}"
    _check(fitted, where, known, facts, export)
    assert fitted.identity is not None
    quality = fitted.step_quality or {
        when: [one["ece"], one["brier"]]
        for measured in [fitted.measured.get(fitted.aggregation or "")] if measured is not None
        for when, one in (("before", measured.before), ("after", measured.after)) if one is not None
    }  # fmt: skip
    adopted = Adopted(
        version=VERSION, name=name, export=digests, target=fitted.target,  # type: ignore[arg-type]
        aggregation=fitted.aggregation, neutral=counts_neutral_as(facts, fitted.identity.get("neutral")),
        maps=fitted.maps, first_steps=fitted.first_steps, num_labels=fitted.num_labels, problems=found.problems,
        quality=quality,
    )  # fmt: skip
    text = json.dumps(msgspec.to_builtins(adopted), indent=2, ensure_ascii=False, allow_nan=False)
    atomic.write(export / CALIBRATION_FILE, text + "\n")
    load_adopted(export)  # what was written is read back before the card says it
    _write_card(export, describe(adopted))
    return adopted


def remove(export: Path) -> None:
    """Remove the calibration of an export.

    Its values are then those of the training again.

    Raises:
        InputError: not an exported verifier, or one without a calibration.
    """
    _read_export(export)
    if not (file := export / CALIBRATION_FILE).is_file():
        raise InputError(f"{export}: has no calibration to remove (no {CALIBRATION_FILE})")
    _write_card(export, None)
    file.unlink()


def describe(adopted: Adopted) -> str:
    """Describe a calibration in one paragraph, for the card."""
    methods = ", ".join(dict.fromkeys(type(one).__name__.lower() for one in adopted.maps))
    what = "that its step is correct" if adopted.target == "steps" else (
        f"that the solution is correct (fitted on the {adopted.aggregation} value)"
    )  # fmt: skip
    several = f", by position from steps {', '.join(map(str, adopted.first_steps))}" * (len(adopted.maps) > 1)
    text = (
        f"Each value is mapped to the probability {what}: {methods}{several}, fitted by `sampling calibrate` on "
        f"{adopted.num_labels:,} labels of {len(adopted.problems):,} problems ({CALIBRATION_FILE})."
    )
    if {"before", "after"} <= adopted.quality.keys():
        (ece, brier), (ece_after, brier_after) = adopted.quality["before"], adopted.quality["after"]
        text += f" Cross-fitted: ECE {ece:.3f} → {ece_after:.3f}, Brier score {brier:.3f} → {brier_after:.3f}."
    return text


def _read_export(export: Path) -> tuple[str, dict[str, Any]]:
    if not export.is_dir():
        raise InputError(f"{export}: not an exported verifier (no such folder)")
    digests, found = fingerprint_export(str(export)), load_export(export)
    assert found is not None
    if found[1].get("form") == "adapter":
        raise InputError(f"{export}: an adapter; take the merged export in its parent folder")
    return digests, found[1]


def _read_file(path: Path) -> _File:
    plain = read_json(path)
    try:
        found = msgspec.convert(plain, _File)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: not a file of `sampling calibrate`: {error}") from None
    if found.version != 1:
        raise InputError(f"{path}: key 'version': expected 1, got {found.version}; run `sampling calibrate` again")
    return found


def _named(found: _File, path: Path, known: dict[str, str], export: Path) -> str:
    """Return the verifier of a file that an export is; the only one if none is said to be it."""
    own = [name for name, one in found.verifiers.items() if (one.identity or {}).get("export") in known.values()]
    if len(own) > 1:
        raise InputError(f"{path}: has maps of {', '.join(own)} for {export}; say which by --name")
    if not own and len(found.verifiers) != 1:
        raise InputError(f"{path}: has no map of {export}, but of {', '.join(found.verifiers) or 'none'}")
    return own[0] if own else next(iter(found.verifiers))


def _check(fitted: _Fitted, where: str, known: dict[str, str], facts: dict[str, Any], export: Path) -> None:
    identity, again = fitted.identity, "calibrate scores of `sampling score` with this export"
    if identity is None:
        raise InputError(f"{where}: no manifest said which verifier gave the scores that it was fitted on; {again}")
    if identity.get("rewards") == "step":
        raise InputError(f"{where}: was fitted on rewards of single steps; {again} and its cumulative rewards")
    theirs = str(identity.get("export"))
    if {"calibration", "adopted"} & identity.keys():
        raise InputError(f"{where}: was fitted on values that were calibrated already; {again} and raw: true")
    if theirs not in known.values():
        raise InputError(f"{where}: was fitted for another verifier than {export}, with other files; {again}")
    if fitted.target == "solutions" and fitted.aggregation not in BY_VALUE:
        raise InputError(
            f"{where}: maps scores by {fitted.aggregation}, which need all values of a solution; calibrate with "
            "target: steps, or aggregation: last, min or max"
        )
    if fitted.target == "steps" and facts["objective"] != "process":
        raise InputError(f"{where}: maps values of steps, and {export} predicts the final answer")


def _write_card(export: Path, text: str | None) -> None:
    """Write or remove the card's section about the calibration, where there is a card."""
    card = export / _CARD
    if not card.is_file():
        return
    before = card.read_text(encoding="utf-8")
    plain = re.sub(rf"^{_HEADING}\n.*?(?=^## |\Z)", "", before, flags=re.MULTILINE | re.DOTALL)
    after = plain
    if text is not None:
        section = (
            f"{_HEADING}\n\n{text} `stepverify.Verifier` and `sampling score` give calibrated values; with `raw=True`, "
            "and in the code above, they are those of the training.\n\n"
        )
        at = found.start() if (found := re.search(r"^## Text$", plain, re.MULTILINE)) else len(plain)
        after = plain[:at] + ("" if found else "\n") + section.removesuffix("\n" * (found is None)) + plain[at:]
    if after != before:
        atomic.write(card, after)


def main(args: Sequence[str]) -> None:
    """Run ``stepverify adopt``; ``args`` follow the command."""
    parser = OneLineParser("stepverify adopt", description=__doc__.partition("\n")[0])
    parser.add_argument("--export", type=Path, required=True, help="folder of an exported verifier")
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--calibration", type=Path, help="file of `sampling calibrate`; replaces an earlier calibration")
    one.add_argument("--remove", action="store_true", help="remove the calibration")
    parser.add_argument("--name", help="verifier in the file; by default the one that the export is")
    given = parser.parse_args(args)
    if given.remove:
        remove(given.export)
        print(f"{given.export}: its values are those of the training again")
        return
    replaced = (given.export / CALIBRATION_FILE).is_file()
    adopted = adopt(given.export, given.calibration, given.name)
    print(f"{given.export}: {describe(adopted)}")
    if replaced:
        print("  it replaces an earlier calibration; nothing of that is left")
