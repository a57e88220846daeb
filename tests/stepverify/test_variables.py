"""Variables of configuration files, and short class names: what is filled in, and one line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampling.engines import Engine
from stepverify.config_files import check_tree, hints_of
from stepverify.records import InputError
from stepverify.variables import Variables, split_arguments, variables_file


def read(folder: Path, text: str, given: dict[str, str] | None = None, variables: str | None = None) -> dict:
    (folder / "stage.yaml").write_text(text)
    if variables is not None:
        (folder / "vars.yaml").write_text(variables)
    used = Variables(given)
    tree = used.read(folder / "stage.yaml")
    used.check()
    return tree


def test_a_variable_keeps_its_type_and_stands_as_text_inside_text(tmp_path):
    variables = (
        'n: 7\nlr: 1e-5\nruns: runs/x\nengine: {class_path: E, init_args: {model: "${runs}/e"}}\nstop: ["\\nQ:"]\n'
    )
    text = 'a: ${n}\nb: "${runs}/${n}"\nc: ${engine}\nd: ["${stop}", "${lr}"]\ne: ${here}/base\n'
    assert read(tmp_path, text, variables=variables) == {
        "a": 7, "b": "runs/x/7", "c": {"class_path": "E", "init_args": {"model": "runs/x/e"}}, "d": [["\nQ:"], 1e-5],
        "e": f"{tmp_path}/base",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", [r"^\d+$", "$5", r"a{2}$", "${", "${1}", "${a b}", "Question: {problem}\nAnswer:\n", "$n", "$$"]
)
def test_other_dollars_and_braces_are_themselves(text, tmp_path):
    import json

    assert read(tmp_path, json.dumps({"a": text})) == {"a": text}


def test_a_doubled_dollar_is_the_text_itself(tmp_path):
    assert read(tmp_path, "a: $${n}\nb: x$${n}y${n}\n", variables="n: 1\n") == {"a": "${n}", "b": "x${n}y1"}


def test_set_goes_before_the_file_and_may_use_what_stands_above(tmp_path):
    variables = 'subset: gsm8k\nbench: hub/id\nn: 7\nprompt: "Q: {problem}"\nskip: []\n'
    text = "a: ${bench}\nb: ${n}\nc: ${prompt}\nd: ${skip}\n"
    given = {"bench": "dir/${subset}.jsonl", "n": "12", "prompt": "Problem: {problem}", "skip": "[a, b]"}
    assert read(tmp_path, text, given, variables) == {
        "a": "dir/gsm8k.jsonl", "b": 12, "c": "Problem: {problem}", "d": ["a", "b"]
    }  # fmt: skip
    assert read(tmp_path, "a: ${prompt}\n", {"prompt": r'"P: {problem}\n"'}, variables)["a"] == "P: {problem}\n"
    assert read(tmp_path, "a: ${bench}\n", {"bench": "123"}, variables)["a"] == "123"  # a path, as its default is


def test_the_file_beside_goes_before_that_of_the_folder_above(tmp_path):
    inner = tmp_path / "ablations"
    inner.mkdir()
    (tmp_path / "vars.yaml").write_text("n: 1\n")
    assert variables_file(inner / "a.yaml") == tmp_path / "vars.yaml"
    assert read(inner, "a: ${n}\nb: ${here}") == {"a": 1, "b": str(tmp_path)}
    assert read(inner, "a: ${n}", variables="n: 2\n") == {"a": 2}


def test_the_command_line_loses_its_variables():
    assert split_arguments(["fit", "--set", "a=b=c", "--config", "x", "--set=n=1"]) == (
        {"a": "b=c", "n": "1"}, ["fit", "--config", "x"],
    )  # fmt: skip


@pytest.mark.parametrize("words", [["--set"], ["--set", "a"], ["--set=1a=2"]])
def test_a_set_without_name_or_value_is_refused(words):
    with pytest.raises(InputError, match="--set: expected name=value"):
        split_arguments(words)


@pytest.mark.parametrize(
    ("text", "variables", "given", "message"),
    [
        ("a: {b: ['x', '${m}']}", "n: 1", {}, "stage.yaml: a.b[1]: ${m} is not defined: "),
        ("a: ${m}", None, {}, "stage.yaml: a: ${m} is not defined: there is no vars.yaml beside it; $${m} is the text itself"),
        ("a: x${m}", "m: [1]", {}, "stage.yaml: a: ${m} inside other text: expected text or a number, got [1]"),
        ("a: 1", "n: ${m}\nm: 1", {}, "vars.yaml: n: ${m} is not defined"),
        ("a: 1", "n: 1", {"m": "2"}, "--set m: no such variable; there are: n"),
        ("a: 1", None, {"m": "2"}, "--set m: no such variable; there are: none (vars.yaml)"),
        ("a: 1", "n: 1", {"n": "[1"}, "--set n: no valid YAML: '[1'"),
        ("a: 1", "here: 1", {}, "vars.yaml: here: is the folder of this file"),
        ("a: 1", "- n", {}, "vars.yaml: expected names"),
        ("- a", None, {}, "stage.yaml: expected keys and values"),
        ("a: 1\nb: [1\n", None, {}, "stage.yaml:3: no valid YAML"),
    ],
)  # fmt: skip
def test_mistakes_name_file_and_key(text, variables, given, message, tmp_path):
    with pytest.raises(InputError) as refused:
        read(tmp_path, text, given, variables)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def generate_hints():
    from sampling.stages.generate import generate

    return hints_of(generate)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("engine", {"class_path": "VllmEngin"}, "f: engine.class_path: no class 'VllmEngin'; did you mean VllmEngine?"),
        ("engine", {"class_path": "CalculatorEngine", "init_args": {"engine": {"class_path": "Q"}}},
         "f: engine.init_args.engine.class_path: no class 'Q'"),
        ("problems", {"class_path": "MATH", "init_args": {"exclude": [{"class_path": "GSM9K"}]}},
         "f: problems.init_args.exclude[0].class_path: no class 'GSM9K'; did you mean GSM8K?"),
        ("few_shot", "Syntetic", "f: few_shot: no class 'Syntetic'; did you mean Synthetic?"),
    ],
)  # fmt: skip
def test_an_unknown_class_is_refused_with_those_there_are(key, value, message):
    with pytest.raises(InputError) as refused:
        check_tree(value, generate_hints()[key], f"f: {key}")
    assert str(refused.value).startswith(message)
    if "did you mean" not in message:  # no close name: all are listed, without the abstract ones
        assert "CalculatorEngine, " in str(refused.value)
        assert str(refused.value).endswith(", or the import path of another class")
        assert ", Engine," not in str(refused.value)
        assert "Path" not in str(refused.value)


def test_known_classes_pass_with_long_names_and_without_any():
    hints = generate_hints()
    for value in ({"class_path": "sampling.engines.NoEngine"}, {"class_path": "VllmEngine", "init_args": {"model": "m"}},
                  {"init_args": {"model": "m"}}):  # fmt: skip
        check_tree(value, hints["engine"], "f: engine")
    check_tree({"prompt": "p"}, hints["template"], "f: template")
    check_tree("runs/x", hints["output"], "f: output")


def test_a_name_of_two_classes_is_refused_with_both():
    from stepverify.readers import Reader

    two = [
        type("TwiceNamed", (Reader,), {"__module__": f"plugin_{i}", "problems": lambda self: iter(())}) for i in (1, 2)
    ]
    with pytest.raises(InputError) as refused:
        check_tree({"class_path": "TwiceNamed"}, Reader, "f: problems")
    assert str(refused.value) == (
        "f: problems.class_path: 'TwiceNamed' is the name of several classes; expected one of plugin_1.TwiceNamed, plugin_2.TwiceNamed"
    )
    del two


def test_optimizers_are_known_by_what_they_build():
    pytest.importorskip("torch")
    from stepverify.modules import OutcomeVerifier

    hints = hints_of(OutcomeVerifier)
    check_tree({"class_path": "AdamW"}, hints["optimizer"], "f")
    with pytest.raises(InputError, match=r"no class 'AdmW'; did you mean AdamW"):
        check_tree({"class_path": "AdmW"}, hints["optimizer"], "f")
    check_tree("mse", hints["loss"], "f")
    with pytest.raises(InputError, match=r"no class 'OutcomeMS'; did you mean OutcomeMSE\?"):
        check_tree("OutcomeMS", hints["loss"], "f")


@pytest.mark.parametrize("value", ["null", "false"])
def test_null_and_false_are_no_class_names(value):
    """As options of the command line give them."""
    check_tree(value, Engine | bool | None, "--engine")
