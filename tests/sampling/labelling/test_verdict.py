"""Questions to a judge, and what its answers say."""

import copy

import pytest

from sampling.engines.prompts import Prompts
from sampling.labelling import Consensus
from sampling.labelling.verdict import DEFAULT, JudgePrompt, compared, first_incorrect, majority, read_verdict
from stepverify.records import InputError, StepLabel
from tests.helpers.judges import PLAIN, Fixed, Judge
from tests.helpers.labels import RIGHT, WRONG, counted, solution

# ── answers ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (r"\boxed{2}", 2), (r"so \boxed{1}? No: $\boxed{3}$.", 3), (r"\boxed{Step 2}", 2), (r"\boxed{\text{Step 3}}", 3),
        (r"**\boxed{ \textbf{2} }**", 2), (r"\boxed{\text{step} 2}", 2), (r"\boxed{#1}", 1), (r"\boxed{$2$.}", 2),
        (r"\boxed {2}", 2), (r"\boxed{line 3}", 3), (r"\boxed{none}", 0), (r"\boxed{\text{None}.}", 0),
        (r"\boxed{-1}", 0), (r"\boxed{No error}", 0),
        ("Step 2 is incorrect", None), ("", None), (r"\boxed{}", None), (r"\boxed{0}", None), (r"\boxed{4}", None),
        (r"\boxed{2 and 3}", None), (r"\boxed{Step 1. 2}", None), (r"\boxed{2.5}", None), (r"\boxed{2", None),
        (r"\boxed{\frac{1}{2}}", None), (r"\boxed{all correct}", None), (r"\boxed{2} and \boxed{x}", None),
        (r"\boxed{" + "9" * 5000 + "}", None), (r"\boxed{²}", None),
    ],
)  # fmt: skip
def test_what_an_answer_about_three_steps_says(text, verdict):
    assert read_verdict(text, 3) == verdict


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [([2], 2), ([0], 0), ([None], None), ([], None), ([2, 2, 0], 2), ([2, 0], None), ([2, None, None], 2),
     ([0, 0, 1, 2], None), ([0, 0, 0, 1, 2], 0)],
)  # fmt: skip
def test_more_than_half_of_what_can_be_read(verdicts, expected):
    assert majority(verdicts) == expected


def test_the_first_incorrect_step_of_labels_read_hard():
    """1 of 8 correct is correct, 0 of 8 is not; a neutral rating is correct; what is unknown is not incorrect."""
    assert first_incorrect([counted(8, 8), counted(1, 8), counted(0, 8), WRONG]) == 3
    assert first_incorrect([StepLabel(rating=0), None, RIGHT]) == 0
    assert first_incorrect([None, WRONG, RIGHT]) == 2
    assert first_incorrect([]) == 0


@pytest.mark.parametrize(
    ("labelled", "verdicts", "expected"),
    [
        (0, [0], "agreed_on_none"), (2, [2], "agreed_on_a_step"), (2, [0], "error_by_labels_only"),
        (0, [2], "error_by_judge_only"), (2, [1], "different_steps"), (2, [None, None], "unparsable"),
        (2, [2, 1], "undecided"), (2, [None, 2, 2, 0], "agreed_on_a_step"),
    ],
)  # fmt: skip
def test_how_labels_and_judge_stand_to_each_other(labelled, verdicts, expected):
    assert compared(labelled, verdicts) == expected


# ── questions ─────────────────────────────────────────────────────────────────────────────────────


def test_a_template_is_filled_in_at_once(tmp_path):
    r"""Braces in the problem and the steps stay as they are, as does the ``\boxed{}`` of the template."""
    (tmp_path / "t.txt").write_text("P {problem}\nA {answer}{answer}\n{steps}\n\\boxed{}, {other}\n")
    asked = JudgePrompt(tmp_path / "t.txt").render(solution(0, ["{answer} 1", "x"], problem="{steps}", answer="5"))
    assert asked == "P of {steps}\nA 55\nStep 1: {answer} 1\nStep 2: x\n\\boxed{}, {other}"


def test_the_template_that_is_shipped_asks_for_what_is_read():
    asked = JudgePrompt(DEFAULT).render(solution(0, ["1 + 1 = 3", "#### 3"], answer="2"))
    assert "\nof p/0\n" in asked
    assert "answer is 2" in asked
    assert "\nStep 1: 1 + 1 = 3\nStep 2: #### 3\n" in asked
    assert read_verdict(asked.replace(r"\boxed{none}", ""), 2) == 2
    assert read_verdict(asked, 2) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [("{problem}", r"t\.txt: has no placeholder \{steps\}"), ("{steps}", r"has no placeholder \{problem\}"), (None, "No such file"),
     (b"\xff{problem}{steps}", "t.txt: 'utf-8' codec")],
)  # fmt: skip
def test_bad_templates(tmp_path, text, message):
    path = tmp_path / "t.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"prompt: .*{message}"):
        Consensus(Fixed(), Judge(list), path)


def test_the_question_is_asked_plainly_or_in_the_chat_template(tmp_path, characters, characters_bos):
    """Plain: BOS where the tokenizer has one. In chat the template writes it, once."""
    (tmp_path / "t.txt").write_text("{problem}{steps}")
    judge, asked = Judge(lambda steps: ["?"]), solution(0, ["1"], problem="a")
    judge.tokenizer = characters
    with pytest.raises(InputError, match=r"template.chat: true, but the tokenizer of characters has no chat template"):
        Consensus(Fixed(), judge)

    def ids(tokenizer, **options):
        judge.tokenizer = tokenizer
        consensus = Consensus(Fixed(), judge, tmp_path / "t.txt", **options)
        question = consensus.prompt.render(asked)
        return Prompts(judge, consensus.template).request("k", question, 1, 0).prompt_ids

    plain = ids(characters_bos, template=PLAIN)
    assert plain[0] == 3
    assert plain.count(3) == 1
    chatting = copy.deepcopy(characters_bos)
    chatting.chat_template = (
        "<bos>Q{% for m in messages %}{{ m.content }}{% endfor %}{{ 'A' if add_generation_prompt else '<eos>' }}"
    )
    assert ids(chatting) == [3, 6, *plain[1:], 7]
