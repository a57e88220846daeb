import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.records import InputError, Problem
from stepverify.template import EXPORT_FILE, Template, load_export

STEP = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10).filter(
    lambda text: text == text.strip() and len(text.splitlines()) == 1
)


def test_what_the_default_layout_writes():
    template = Template()
    assert template.render_prompt("  1 + 1?\n") == "Question: 1 + 1?\nAnswer:\n"
    assert template.render_step("1 + 1 = 2") == "1 + 1 = 2\n"


def test_another_layout_writes_another_text():
    template = Template(prompt="<|user|>{problem}<|end|>", step_separator="\n\n")
    assert template.render_prompt("x?") == "<|user|>x?<|end|>"
    assert template.render_step("x") == "x\n\n"


@pytest.mark.parametrize("problem", ["{problem}", "the set {1, 2}", "{}", "{0}", r"\frac{1}{2} %s $x", "{problem"])
def test_braces_in_a_problem_are_text(problem):
    assert Template(prompt="{Q} {problem} {}\n").render_prompt(problem) == f"{{Q}} {problem} {{}}\n"


def test_worked_examples_stand_in_the_same_layout():
    examples = [
        Problem(id="1", problem="1 + 1?", steps=["1 + 1 = 2", "#### 2"]),
        Problem(id="2", problem=" {2}? ", steps=["#### 2"]),
    ]
    assert Template().with_examples(None, examples) == (
        Template(), "Question: 1 + 1?\nAnswer:\n1 + 1 = 2\n#### 2\n\nQuestion: {2}?\nAnswer:\n#### 2\n\n"
    )  # fmt: skip
    other = Template(prompt="Q {problem} ", step_separator="\n.")
    assert other.with_examples(None, examples[1:]) == (other, "Q {2}? #### 2\n.\n")
    assert Template().with_examples(None, []) == (Template(), "")
    with pytest.raises(InputError, match="few-shot example 3: has no worked solution"):
        Template().with_examples(None, [*examples, Problem(id="3", problem="?")])
    with pytest.raises(InputError, match=r"few-shot example 4: has 1 steps, but its text 2 by template.step_separator"):
        Template().with_examples(None, [Problem(id="4", problem="?", steps=["a\nb"])])


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"prompt": "Question:"}, r"template.prompt: expected exactly one \{problem\} in 'Question:'"),
        ({"prompt": "{problem} {problem}"}, r"template.prompt: expected exactly one \{problem\}"),
        (
            {"step_separator": ""},
            r"template.step_separator: expected a line end first, or a heading with \{i\}, got ''",
        ),
        (
            {"step_separator": ".\n"},
            r"template.step_separator: expected a line end first, or a heading with \{i\}, got '.\\n'",
        ),
        ({"positive": "-"}, "template: positive and negative are the same token '-'"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(known, said):
    with pytest.raises(InputError, match=said):
        Template(**known)


@pytest.mark.parametrize("step_separator", ["\n", "\n\n", "\n> ", "\n###\n"])
@given(st.lists(STEP, max_size=5))
def test_steps_that_were_put_together_fall_apart_into_the_same(step_separator, steps):
    template = Template(step_separator=step_separator)
    assert template.split("".join(map(template.render_step, steps))) == steps


def test_lines_are_stripped_and_empty_ones_are_no_steps():
    assert Template().split("  a = 1 \n\n \t\r\nb = 2\r\n#### 3") == ["a = 1", "b = 2", "#### 3"]
    assert Template().split(" \n\n") == []
    assert Template().split("a\n> b\n") == ["a", "> b"]
    assert Template(step_separator="\n> ").split("a\n> b\nc\n> ") == ["a", "b\nc"]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), st.sampled_from(["\n", "\n\n", "\nки "]))
def test_an_export_gives_back_its_layout_and_facts(tmp_path_factory, tag, step_separator):
    folder = tmp_path_factory.mktemp("export")
    template = Template(
        prompt="Frage: {problem}\n", step_separator=step_separator, step_tag=tag, positive="gut", negative="schlecht"
    )
    template.save(folder, objective="process", ids={"step_tag": 7})
    assert load_export(folder) == (template, {"objective": "process", "ids": {"step_tag": 7}})


def test_a_model_of_others_has_no_export_file(tmp_path):
    assert load_export(tmp_path) is None
    assert load_export(tmp_path / "gone") is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"x"', '{"format": 1}', *(f'{{"format": 1, "template": {t}}}' for t in (
        1, '{"prompt": 5}', '{"colour": "red"}', '{"prompt": "no problem"}'
    ))],
)  # fmt: skip
def test_a_broken_export_file_is_named(tmp_path, text):
    (tmp_path / EXPORT_FILE).write_text(text)
    with pytest.raises(InputError) as caught:
        load_export(tmp_path)
    said = "JSON (" if text in ("", "{") else "an export of this project: "
    assert str(caught.value).startswith(f"{tmp_path / EXPORT_FILE}: not {said}")


@pytest.mark.parametrize(("fields", "said"), [({}, "None"), ({"format": 2}, "2"), ({"format": "1"}, "'1'")])
def test_an_unknown_format_is_refused(tmp_path, fields, said):
    """Exports from before the format had a number are among them: their template had other names."""
    (tmp_path / EXPORT_FILE).write_text(json.dumps({"template": {}, "objective": "process"} | fields))
    with pytest.raises(
        InputError, match=rf"stepverify.json: key 'format': {said}, this version of stepverify reads 1;"
    ):
        load_export(tmp_path)


def test_the_export_file_is_plain_json(tmp_path):
    Template().save(tmp_path, objective="outcome")
    assert json.loads((tmp_path / EXPORT_FILE).read_text()) == {
        "format": 1,
        "template": {
            "prompt": "Question: {problem}\nAnswer:\n", "step_separator": "\n", "step_tag": "<step>", "positive": "+",
            "negative": "-",
        },
        "objective": "outcome",
    }  # fmt: skip
