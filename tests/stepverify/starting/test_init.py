"""``stepverify init``: each format is recognised, and what is written is parsed and trains."""

from __future__ import annotations

import shlex

import pytest
import yaml

pytest.importorskip("torch")

from stepverify import readers
from stepverify.cli import main
from stepverify.starting import init as starting
from tests.helpers import first_rows
from tests.helpers.first_rows import COLUMNS
from tests.helpers.parsing import PARSED, parse

GIB = 2**30
PRM = {
    "TRL": "Stepwise", "Math-Shepherd": "MathShepherd", "OpenRLHF": "OpenRLHF", "RLHFlow": "RLHFlow", "OpenR": "OpenR",
    "PRM800K": "PRM800K", "own records": "Solutions", "own columns": "Solutions", "usual columns": "Solutions",
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own, on a machine of 16 GiB without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(starting, "look", lambda: ("CPU", 16 * GIB, False))
    PARSED.clear()  # commands name files relative to this folder


def write(kind, name, model, *more):
    """Run the command on rows of a format."""
    first_rows.write(first_rows.Path("rows.jsonl"), name)
    columns = ["--columns", *COLUMNS[name]] if name in COLUMNS else []
    main(["init", kind, "--model", str(model), "--data", "rows.jsonl", *columns, *more])


def tree(kind="prm"):
    text = first_rows.Path(f"my_{kind}.yaml").read_text()
    assert len(text.splitlines()) <= 30
    assert text.count(" # ") >= 2, "choices are explained"
    return yaml.safe_load(text)


def refused(kind, name, model, capsys, *more):
    with pytest.raises(SystemExit) as stopped:
        write(kind, name, model, *more)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("name", PRM)
def test_prm_of_each_format(name, one_layer_dir, capsys):
    """The reader of the format; 24 problems × 2 solutions, each fold reads its share; the command parses."""
    write("prm", name, one_layer_dir)
    said, written = capsys.readouterr().out, tree()
    data = written["data"]
    assert data["train"]["class_path"] == data["validation"]["class_path"] == PRM[name]
    assert f"(reader {PRM[name]}): 48 solutions of " in said
    read = [
        [*getattr(readers, one["class_path"])(**one["init_args"]).solutions()]
        for one in (data["train"], data["validation"])
    ]
    assert len(read[0]) + len(read[1]) == 48
    assert min(map(len, read)) > 0
    assert written["model"]["init_args"]["template"]["step_tag"] == "<step>"
    assert ("targets" in written["model"]["init_args"]) == (name == "usual columns"), "0.9 is no rating"
    command = shlex.split(said.split("next:\n")[1].splitlines()[0])
    assert command == ["stepverify", "fit", "--config", "my_prm.yaml"]
    assert "ProcessRewardModel" in parse(command, capsys)


@pytest.mark.parametrize(
    ("kind", "name", "reader", "more"),
    [
        ("orm", "own records", "Solutions", {}), ("orm", "graded", "Solutions", {}),
        ("generator", "GSM8K", "GSM8K", {}), ("generator", "worked records", "Problems", {"limit": 2}),
        ("generator", "graded", "Solutions", {"correct_only": True}),
    ],
)  # fmt: skip
def test_other_kinds(kind, name, reader, more, one_layer_dir, capsys):
    write(kind, name, one_layer_dir)
    written = tree(kind)
    assert written["data"]["train"]["class_path"] == reader
    assert written["data"]["validation"]["init_args"].items() >= more.items()
    parsed = parse(["stepverify", "fit", "--config", f"my_{kind}.yaml"], capsys)
    assert {"orm": "OutcomeVerifier", "generator": "GeneratorModule"}[kind] in parsed


def test_what_is_found_is_said(one_layer_dir, capsys):
    """``<step>`` is token 3. Each solution: 5 tokens of prompt text at least; the length is a multiple of 64."""
    write("prm", "TRL", one_layer_dir)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "rows: TRL's step-labelled rows (reader Stepwise): 48 solutions of 24 problems"
    assert said[1] == "template: plain text, as the tokenizer has no chat template; a line for each step"
    assert said[2] == "step tag: '<step>', one token (3), in none of 48 solutions, not a label ('+', '-')"
    assert said[3].startswith("length: 48 of 48 solutions fit into 64 tokens, the longest has ")
    assert said[4].startswith("machine: CPU, 16.0 GiB free; 0.1 M parameters, 32-true")


def test_no_file_is_replaced_without_force(one_layer_dir, capsys):
    first_rows.Path("my_prm.yaml").write_text("mine")
    said = refused("prm", "TRL", one_layer_dir, capsys)
    assert said == (
        "stepverify init: my_prm.yaml: is there already; another name by --output, or --force replaces it\n"
    )
    assert first_rows.Path("my_prm.yaml").read_text() == "mine"
    write("prm", "TRL", one_layer_dir, "--force")
    assert "Stepwise" in first_rows.Path("my_prm.yaml").read_text()


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("orm", "TRL", "without outcome labels ('correct'; columns ['completions', 'labels', 'prompt']): make them by "
                       "sampling label, or train on step labels by stepverify init prm"),
        ("prm", "GSM8K", "rows.jsonl:1: expected solutions with step labels, found the columns ['answer', 'question']: "
                         "none of a known format, and none for steps, step_labels; say which by --columns COLUMN=steps"),
        ("generator", "TRL", "have step labels, so some are incorrect, and a generator would learn them"),
        ("prm", "graded", "none for step_labels; say which by --columns COLUMN=step_labels"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(kind, name, said, one_layer_dir, capsys):
    assert said in refused(kind, name, one_layer_dir, capsys)
    assert not first_rows.Path(f"my_{kind}.yaml").exists()


def test_a_machine_that_is_too_small(one_layer_dir, capsys, monkeypatch):
    monkeypatch.setattr(starting, "look", lambda: ("CPU", 2**20, False))
    said = refused("prm", "TRL", one_layer_dir, capsys)
    assert "training adapters on a batch of 256 tokens needs about" in said
    assert "and CPU has 1.0 MiB free; take a smaller model" in said


@pytest.mark.parametrize("name", ["TRL", "PRM800K", "own columns"])
def test_what_is_written_trains(name, one_layer_dir, capsys):
    write("prm", name, one_layer_dir)
    main(["fit", "--config", "my_prm.yaml", "--trainer.max_epochs=1", "--trainer.logger=false",
          "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"])  # fmt: skip
    assert first_rows.Path("runs/my_prm/export/stepverify.json").is_file()


@pytest.mark.parametrize(("kind", "name"), [("orm", "graded"), ("generator", "GSM8K")])
def test_other_kinds_train(kind, name, one_layer_dir, capsys):
    write(kind, name, one_layer_dir)
    main(["fit", "--config", f"my_{kind}.yaml", "--trainer.max_epochs=1", "--trainer.logger=false",
          "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"])  # fmt: skip
    assert first_rows.Path(f"runs/my_{kind}/export/stepverify.json").is_file()
