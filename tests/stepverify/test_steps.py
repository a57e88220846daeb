r"""Separators: what ends a step and what does not; splitting and joining are inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.records import InputError
from stepverify.steps import StepPattern, joint, split_steps
from stepverify.template import Template

SENTENCES = StepPattern(r"(?<=[.!?])[ \n]+", " ")
NUMBERED = StepPattern(r"\n(?=\d+\. )")
SEPARATORS = ["\n", "\n\n", "\n\n\n", "\n---\n", "\nStep {i}:", "\n\nStep {i}:", SENTENCES, NUMBERED]

CODE = "```python\nx = 1\n\n\nprint(x)\n```"
MATHS = "$$\na\n\n= b\n$$"
BRACKETS = "\\[\nx\n\n= 1\n\\]"


def test_a_blank_line_ends_a_paragraph_and_a_line_end_does_not():
    text = "First,\nin two lines.\n\nThen:\n\\[ x = 1 \\]\nso.\n\n#### 5"
    assert split_steps(text, "\n\n") == ["First,\nin two lines.", "Then:\n\\[ x = 1 \\]\nso.", "#### 5"]
    assert split_steps(text, "\n") == ["First,", "in two lines.", "Then:", "\\[ x = 1 \\]", "so.", "#### 5"]


@pytest.mark.parametrize(
    "text",
    ["a\n\nb", "\n\na\n\nb\n\n", "a\r\n\r\nb\r\n", "a\n \t\nb", "a\n\n\n\n\nb\n", " a \n\n\u3000\n b", "a\r\rb", "\n\n\n\na\n\nb\n \n \n"],
)  # fmt: skip
def test_blank_lines_of_every_kind_separate_once(text):
    assert split_steps(text, "\n\n") == ["a", "b"]


@pytest.mark.parametrize("whole", [CODE, CODE.replace("`", "~"), MATHS, BRACKETS, f"- so:\n  {CODE}\n- and {MATHS}."])
def test_blank_lines_in_code_and_displayed_formulas_end_no_step(whole):
    assert split_steps(f"a\n\n{whole}\n\nb", "\n\n") == ["a", whole, "b"]
    assert split_steps(f"a\n\n{whole}\n\nb".replace("\n", "\r\n"), "\n\n") == ["a", whole, "b"]


@pytest.mark.parametrize("open_", ["```\nx", "$$ x", "\\[ x", "costs $$5", "~~~~\n~~~", "a \\\\[2pt] b", "`` ` ``"])
def test_what_is_never_closed_is_plain_text(open_):
    assert split_steps(f"{open_}\n\ny\n\nz", "\n\n") == [open_, "y", "z"]


def test_one_kind_inside_another_is_text():
    """A dollar within code opens nothing, a fence of three within one of four closes nothing."""
    code = "````\n$$\n\n```\n\n````"
    assert split_steps(f"{code}\n\n$$ x $$\n\ny", "\n\n") == [code, "$$ x $$", "y"]


def test_headings_begin_steps():
    text = "Let us see.\n\nStep 1: add\n\n2 + 3 = 5\n**Step 2:** so\n### Step 10: done\nIn Step 2: no."
    steps = ["Let us see.", "Step 1: add\n\n2 + 3 = 5", "**Step 2:** so", "### Step 10: done\nIn Step 2: no."]
    assert split_steps(text, "Step {i}:") == steps
    assert [joint(s) for s in ("Step {i}:", "\nStep {i}:", "\n\nStep {i}:")] == ["\n", "\n", "\n\n"]
    assert Template(step_separator="\n\nStep {i}:").join(["Step 1: a", "Step 2: b"]) == "Step 1: a\n\nStep 2: b"


def test_a_regular_expression_decides():
    assert split_steps("It is 5. So 6!\nDone? ", SENTENCES) == ["It is 5.", "So 6!", "Done?"]
    assert split_steps("1. a\nb\n2. c", NUMBERED) == ["1. a\nb", "2. c"]


def test_other_texts_separate_with_or_without_their_final_line_end():
    assert split_steps("a\n---\nb\nc\n---", "\n---\n") == ["a", "b\nc"]
    assert split_steps("a\n> b\n>", "\n> ") == ["a", "b"]


@pytest.mark.parametrize(
    ("separator", "said"),
    [
        ("", "expected a line end first, or a heading with {i}, got ''"),
        (StepPattern("("), "step_separator.regex: '(': missing )"),
        (StepPattern("x*"), "step_separator.regex: 'x*' matches an empty text"),
        (StepPattern("x", ""), "step_separator.text: expected the text between two steps"),
    ],
)
def test_a_separator_that_separates_nothing_is_refused(separator, said):
    with pytest.raises(InputError) as refused:
        Template(step_separator=separator)
    assert said in str(refused.value)


WORDS = st.text(st.sampled_from("ab 1=$`\\"), min_size=1, max_size=6).map(str.strip).filter(
    lambda t: t and "```" not in t and "$$" not in t
)  # fmt: skip


@pytest.mark.parametrize("separator", ["\n\n", "\n\n\n", "\n---\n"])
@given(
    st.lists(
        st.lists(st.one_of(WORDS, st.sampled_from([CODE, MATHS, BRACKETS])), min_size=1, max_size=3).map("\n".join),
        max_size=4,
    )
)
def test_joined_steps_fall_apart_into_the_same(separator, steps):
    """Steps of several lines, with blank lines in code and formulas."""
    template = Template(step_separator=separator)
    assert template.split(template.join(steps)) == steps
    assert template.split("".join(map(template.render_step, steps))) == steps


@given(st.lists(WORDS, max_size=4).map(lambda words: [f"Step {i}: {w}\n\n{w}" for i, w in enumerate(words, 1)]))
def test_joined_headings_fall_apart_into_the_same(steps):
    template = Template(step_separator="Step {i}:")
    assert template.split(template.join(steps)) == steps


def test_a_pattern_that_looks_ahead_at_lost_space_separates_nothing():
    """The space after the final ``2.`` is no part of a step, so ``2. `` begins none; ``3. b`` does."""
    template = Template(step_separator=StepPattern(r"\n(?=\d+\. )"))
    assert template.split("a\n2. ") == ["a\n2."]
    assert template.split("a\n2. \n3. b") == ["a\n2.", "3. b"]


PARTS = ["a", "B.", " ", "\t", "\n", "\n\n", "\r\n", "\r", "```", "````", "~~~", "$$", "\\[", "\\]", "---", "Step 1:", "2. ", "> ", "\x0b", "\u3000", "é"]  # fmt: skip


@pytest.mark.parametrize("separator", SEPARATORS, ids=str)
@given(st.lists(st.sampled_from(PARTS), max_size=25).map("".join))
def test_whatever_was_split_stays_split(separator, text):
    """Steps of any text are joined and split into themselves, hold all of its words, and none is blank."""
    template = Template(step_separator=separator)
    steps = template.split(text)
    assert template.split(template.join(steps)) == steps
    assert all(step == step.strip() != "" for step in steps)
    if separator not in ("\n---\n",):
        assert "".join("".join(steps).split()) == "".join(text.split())
