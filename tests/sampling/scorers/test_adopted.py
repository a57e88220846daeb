"""A calibration that an export has adopted: its values everywhere, its identity, and what is refused."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from sampling.scorers import ExportedVerifier, PoolingVerifier
from sampling.scorers.calibrated import CalibratedScorer
from sampling.scorers.pooling import _stream
from sampling.selection.calibration import Calibration, Calibrations
from sampling.selection.calibration_files import read_calibrations
from sampling.stages.calibrate import calibrate
from sampling.stages.score import score
from stepverify import Verifier
from stepverify.adopted import CALIBRATION_FILE, load_adopted
from stepverify.adoption import adopt, remove
from stepverify.calibration import Isotonic, Platt, Temperature, logit, sigmoid
from stepverify.cli import main
from stepverify.jsonl import read_records, write_records
from stepverify.models import load_encoder
from stepverify.records import InputError, Solution
from tests.helpers.exports import SOLUTIONS, many

CARD = "# A model\n\n## Use\n\ncode\n\n## Text\n\n| a |\n\n## Versions\n\nall\n"


def own(folder: str, target: Path) -> Path:
    """A copy of an export, with a card."""
    shutil.copytree(folder, target)
    (target / "README.md").write_text(CARD)
    return target


@pytest.fixture
def prm(process, tmp_path):
    return own(process, tmp_path / "prm")


@pytest.fixture
def orm(outcome, tmp_path):
    return own(outcome, tmp_path / "orm")


def written(path: Path, *maps, name="prm", identity, first_steps=None, **known) -> Path:
    """A file of ``sampling calibrate`` with maps of steps."""
    one = Calibration(
        identity=identity, maps=list(maps), first_steps=first_steps or [1], num_labels=70,
        **{"target": "steps", "step_quality": {"before": [0.25, 0.5], "after": [0.125, 0.25]}} | known,
    )  # fmt: skip
    made = Calibrations(
        version=1, method="platt", num_samples=4, majority=0.5, num_folds=2, seed=0, problems=["p/0", "q/1"],
        verifiers={name: one},
    )  # fmt: skip
    path.write_text(json.dumps(msgspec.to_builtins(made)))
    return path


def values(export, **options):
    return Verifier.from_pretrained(str(export), device="cpu", **options).score_solutions(SOLUTIONS)


def mapped(given, *maps):
    """What maps of step 1 and of all later steps make of values."""
    return [
        [round(float(maps[min(i, len(maps) - 1)](np.array([v]))[0]), 6) for i, v in enumerate(along)] for along in given
    ]


PLATT = Platt(2.0, 1.0)


def test_values_are_mapped_wherever_the_export_is_read(prm, tmp_path, capsys):
    """sigmoid(2 · logit + 1) of each value, in Python and in the stage, of which the scores are another verifier's."""
    identity = ExportedVerifier(str(prm)).identity()
    raw = values(prm)
    write_records(tmp_path / "in.jsonl", SOLUTIONS)
    score(tmp_path / "in.jsonl", tmp_path / "before", {"prm": str(prm)})
    adopt(prm, written(tmp_path / "c.json", PLATT, identity=identity))
    expected = [[round(float(v), 6) for v in sigmoid(2 * logit(np.array(along)) + 1)] for along in raw]
    assert values(prm) == expected
    assert expected != raw
    assert values(prm, raw=True) == raw
    capsys.readouterr()
    score(tmp_path / "in.jsonl", tmp_path / "after", {"prm": str(prm)})
    assert [s.scores["prm"] for s in read_records(tmp_path / "after", Solution)] == expected
    said = capsys.readouterr().out
    assert "prm: its export holds a calibration, with which its values are mapped" in said
    assert "WARNING: the calibration was fitted on 1 of the" in said
    now = ExportedVerifier(str(prm)).identity()
    assert now == identity | {"adopted": {"1": {"method": "platt", "gain": 2.0, "bias": 1.0}}}
    assert ExportedVerifier(str(prm), raw=True).identity() == identity
    with pytest.raises(InputError, match=r"before: was made with config\.verifiers\.prm\.adopted\.1\."):
        score(tmp_path / "in.jsonl", tmp_path / "before", {"prm": str(prm)})


def test_the_second_one_replaces_the_first(prm, tmp_path):
    """The map of the raw values alone, by position: nothing is composed."""
    identity, raw = ExportedVerifier(str(prm)).identity(), values(prm)
    adopt(prm, written(tmp_path / "one.json", PLATT, identity=identity))
    first = ExportedVerifier(str(prm)).identity()
    maps = Temperature(2.0), Isotonic([0.0, 1.0], [0.25, 0.75])
    adopt(prm, written(tmp_path / "two.json", *maps, first_steps=[1, 2], identity=identity))
    assert values(prm) == mapped(raw, *maps)
    assert ExportedVerifier(str(prm)).identity() != first
    assert (prm / "README.md").read_text().count("## Calibration") == 1


def test_it_can_be_removed(prm, tmp_path):
    identity, raw = ExportedVerifier(str(prm)).identity(), values(prm)
    adopt(prm, written(tmp_path / "c.json", PLATT, identity=identity))
    remove(prm)
    assert (values(prm), ExportedVerifier(str(prm)).identity()) == (raw, identity)
    assert (prm / "README.md").read_text() == CARD
    with pytest.raises(InputError, match=r"has no calibration to remove \(no calibration.json\)"):
        remove(prm)


def test_the_card_says_it(prm, tmp_path):
    """Before the texts; at the end of a card without them; nowhere without a card."""
    file = written(tmp_path / "c.json", PLATT, identity=ExportedVerifier(str(prm)).identity())
    adopt(prm, file)
    use, rest = CARD.split("## Text")
    section = (
        "## Calibration\n\nEach value is mapped to the probability that its step is correct: platt, fitted by `sampling "
        "calibrate` on 70 labels of 2 problems (calibration.json). Cross-fitted: ECE 0.250 → 0.125, Brier score 0.500 → "
        "0.250. `stepverify.Verifier` and `sampling score` give calibrated values; with `raw=True`, and in the code above, "
        "they are those of the training.\n"
    )
    assert (prm / "README.md").read_text() == f"{use}{section}\n## Text{rest}"
    for card in ("# Mine\n", None):
        (prm / "README.md").unlink()
        if card:
            (prm / "README.md").write_text(card)
        adopt(prm, file)
        assert not card or (prm / "README.md").read_text() == f"{card}\n{section}"
        assert (prm / "README.md").exists() == bool(card)
    assert load_adopted(prm).problems == ["p/0", "q/1"]


def test_what_calibrate_writes_is_adopted(orm, tmp_path):
    """An outcome verifier's map of solutions: the values that ``sampling score`` gives with the file."""
    rows = many(12, 6)
    for i, solution in enumerate(rows):
        solution.correct, solution.predicted, solution.answer = i % 3 == 0, "1", "1" if i % 3 == 0 else "2"
    write_records(tmp_path / "in.jsonl", rows)
    score(tmp_path / "in.jsonl", tmp_path / "scored", {"orm": str(orm)})
    calibrate(tmp_path / "scored", tmp_path / "c.json", method="isotonic", num_folds=2, num_subsets=2)
    score(tmp_path / "in.jsonl", tmp_path / "by_file", {"orm": str(orm)}, calibration=tmp_path / "c.json")
    adopt(orm, tmp_path / "c.json")
    assert load_adopted(orm).quality.keys() == {"before", "after"}
    score(tmp_path / "in.jsonl", tmp_path / "adopted", {"orm": str(orm)})
    by_file, adopted = (
        [s.scores["orm"] for s in read_records(tmp_path / name, Solution)] for name in ("by_file", "adopted")
    )
    assert adopted == [[round(v, 6) for v in along] for along in by_file]
    assert PoolingVerifier(str(orm)).identity()["adopted"] == ExportedVerifier(str(orm)).identity()["adopted"]
    assert "adopted" not in PoolingVerifier(str(orm), raw=True).identity()
    with pytest.raises(InputError, match="was fitted for another verifier 'orm'"):  # never twice
        score(tmp_path / "in.jsonl", tmp_path / "twice", {"orm": str(orm)}, calibration=tmp_path / "c.json")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"identity": {"scorer": "exported", "export": "0" * 16}}, "was fitted for another verifier than"),
        ({"identity": None}, "no manifest said which verifier gave the scores"),
        (
            {"target": "solutions", "aggregation": "prod", "step_quality": {}},
            "maps scores by prod, which need all values",
        ),
    ],
)
def test_maps_of_others_are_refused(prm, tmp_path, changed, message):
    file = written(tmp_path / "c.json", PLATT, **{"identity": ExportedVerifier(str(prm)).identity()} | changed)
    with pytest.raises(InputError, match=f"c.json: prm: {message}"):
        adopt(prm, file)
    assert not (prm / CALIBRATION_FILE).exists()


def test_maps_of_calibrated_values_are_refused(prm, tmp_path):
    """Those of the export with its map, and those of a file that was applied."""
    plain = ExportedVerifier(str(prm))
    file = written(tmp_path / "c.json", PLATT, identity=plain.identity())
    by_file = CalibratedScorer(plain, read_calibrations(file).verifiers["prm"], "c").identity()
    adopt(prm, file)
    for identity in (by_file, ExportedVerifier(str(prm)).identity()):
        with pytest.raises(InputError, match="was fitted on values that were calibrated already"):
            adopt(prm, written(tmp_path / "d.json", PLATT, identity=identity))


def test_kinds_and_names_are_checked(orm, prm, tmp_path):
    identity = ExportedVerifier(str(orm)).identity()
    with pytest.raises(InputError, match=r"maps values of steps, and .*orm predicts the final answer"):
        adopt(orm, written(tmp_path / "c.json", PLATT, identity=identity))
    file = written(tmp_path / "c.json", PLATT, identity=ExportedVerifier(str(prm)).identity())
    with pytest.raises(InputError, match="has no map of 'other', but of prm"):
        adopt(prm, file, "other")
    both = json.loads(file.read_text())
    both["verifiers"]["again"] = both["verifiers"]["prm"]
    file.write_text(json.dumps(both))
    with pytest.raises(InputError, match=r"has maps of prm, again for .*prm; say which by --name"):
        adopt(prm, file)
    assert adopt(prm, file, "again").name == "again"
    for path, message in ((tmp_path / "none", "no such folder"), (tmp_path, "no .safetensors file")):
        with pytest.raises(InputError, match=message):
            adopt(path, file)


def test_a_calibration_of_other_files_is_not_applied(prm, tmp_path):
    """A changed template or tokenizer; another version; a value counted otherwise."""
    adopt(prm, written(tmp_path / "c.json", PLATT, identity=ExportedVerifier(str(prm)).identity()))
    file = prm / CALIBRATION_FILE
    known = json.loads(file.read_text())
    for changed, message in (
        ({"export": "0 1 2"}, "is of another export than this one"),
        ({"version": 2}, r"not an export's calibration of version 1 \(key 'version': 2\)"),
        ({"maps": "none"}, "Expected `array`"),
        ({"neutral": "negative"}, "neutral: None: its calibration was fitted on values with neutral: negative"),
    ):
        file.write_text(json.dumps(known | changed))
        with pytest.raises(InputError, match=message):
            values(prm)


def test_vllm_s_pooling_runner_maps_what_it_reads(orm, tmp_path):
    """A quarter at every token: sigmoid(2 · logit(1/4) + 1) = 1 / (1 + 9 / e) = 0.231969."""
    import torch

    identity = ExportedVerifier(str(orm)).identity()
    adopted = adopt(orm, written(tmp_path / "c.json", PLATT, identity=identity, target="solutions", aggregation="last"))

    class Runner:
        def encode(self, prompts, **_):
            data = [torch.full((len(prompt["prompt_token_ids"]), 1), 0.25) for prompt in prompts]
            return [SimpleNamespace(outputs=SimpleNamespace(data=one), num_cached_tokens=0) for one in data]

    arguments = Runner(), load_encoder(str(orm))[0], False, False, False, False
    for given, value in ((adopted, 0.231969), (None, 0.25)):
        assert dict(_stream(*arguments, given, SOLUTIONS[:2], lambda *_: None)) == {0: [value], 1: [value]}


def test_the_program(prm, tmp_path, capsys):
    file = written(tmp_path / "c.json", PLATT, identity=ExportedVerifier(str(prm)).identity())
    for again in (False, True):
        main(["adopt", "--export", str(prm), "--calibration", str(file)])
        out = capsys.readouterr().out
        assert out.startswith(f"{prm}: Each value is mapped to the probability that its step is correct: platt")
        assert ("it replaces an earlier calibration" in out) == again
    main(["adopt", "--export", str(prm), "--remove"])
    assert capsys.readouterr().out == f"{prm}: its values are those of the training again\n"
    with pytest.raises(SystemExit) as stopped:
        main(["adopt", "--export", str(prm), "--remove"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"stepverify adopt: {prm}: has no calibration to remove")
