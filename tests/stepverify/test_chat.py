"""Chat templates: what is rendered, what is refused, and that a changed one is noticed."""

import json

import pytest

from stepverify.data.encode import SolutionEncoder
from stepverify.records import InputError, Problem
from stepverify.template import Template, load_export
from stepverify.thinking import thinking, without
from tests.helpers.chats import SHAPES, chat_tokenizer

SYSTEM = {
    "chatml": "Be brief.",
    "llama": "Be brief.",
    "mistral": "Be brief.",
    "thinking": "Be brief.",
    "begun": "Be brief.",
}
EXAMPLES = [
    Problem(id="e1", problem="1+1?", steps=["1+1=2", "#### 2"]),
    Problem(id="e2", problem="2?", steps=["#### 2"]),
]


@pytest.mark.parametrize(
    ("shape", "system", "before", "after", "end"),
    [
        ("chatml", None, "<|turn|>system\nHelp.<|stop|>\n<|turn|>user\n", "<|stop|>\n<|turn|>assistant\n", "<|stop|>\n"),
        ("chatml", "Be brief.", "<|turn|>system\nBe brief.<|stop|>\n<|turn|>user\n", "<|stop|>\n<|turn|>assistant\n", "<|stop|>\n"),
        ("llama", None, "<bos><|turn|>system\nToday is 26 Jul 2024.\n<|stop|><|turn|>user\n", "<|stop|><|turn|>assistant\n", "<|stop|>"),
        ("mistral", None, "<bos>[INST] ", " [/INST]", "<eos>"),
        ("mistral", "Be brief.", "<bos>[INST] Be brief.\n\n", " [/INST]", "<eos>"),
        ("gemma", None, "<bos><|turn|>user\n", "<|stop|>\n<|turn|>model\n", "<|stop|>\n"),
        ("thinking", None, "<|turn|>user\n", "<|stop|>\n<|turn|>assistant\n", "<|stop|>\n"),
        ("begun", None, "<bos><|turn|>user\n", "<|stop|><|turn|>assistant\n<think>\n", "<|stop|>"),
    ],
)  # fmt: skip
def test_what_stands_around_a_problem(shape, system, before, after, end):
    tokenizer = chat_tokenizer(shape, eos="<eos>")
    rendering = Template(chat=True, system=system).rendered_by(tokenizer).rendering
    assert (rendering.before, rendering.after, rendering.end) == (before, after, end)
    encoder = SolutionEncoder(tokenizer, Template(chat=True, system=system))
    assert tokenizer.convert_ids_to_tokens(encoder.end_id) == end.strip()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("examples", [0, 1, 2])
def test_ids_are_those_of_the_tokenizers_own_rendering(shape, examples):
    """With a system turn, worked problems and text of ours in the user's turn; BOS once at most."""
    tokenizer = chat_tokenizer(shape, eos="<eos>")
    template = Template(chat=True, system=SYSTEM.get(shape), prompt="Solve: {problem}\nStep by step.\n")
    encoder = SolutionEncoder(tokenizer, template, examples=EXAMPLES[:examples])
    turns = [{"role": "system", "content": "Be brief."}] if shape in SYSTEM else []
    for example in EXAMPLES[:examples]:
        turns += [
            {"role": "user", "content": f"Solve: {example.problem}\nStep by step."},
            {"role": "assistant", "content": "\n".join(example.steps)},
        ]
    turns.append({"role": "user", "content": "Solve: What is {x}  of\n\n2 & 3?\nStep by step."})
    expected = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False, strftime_now=lambda form: "26 Jul 2024"
    )
    ids = encoder.prompt(" What is {x}  of\n\n2 & 3?\n")
    assert ids == expected
    assert ids.count(2) == (tokenizer.decode(ids).count("<bos>") == 1)
    assert encoder.template.messages(" What is {x}  of\n\n2 & 3?\n", examples=EXAMPLES[:examples]) == turns


def test_the_beginning_of_a_solution_is_an_assistants_turn():
    turns = Template(chat=True, step_separator="\n\n").messages("1?", ["a\nb", "c"])
    assert turns == [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "a\nb\n\nc\n\n"}]


@pytest.mark.parametrize(
    ("template", "shape", "said"),
    [
        ({}, None, "template.chat: true, but the tokenizer of chatty has no chat template; write the text around a problem as template.prompt"),
        ({"system": "x"}, "gemma", "refuses turns of system, user: there is no system turn; write it at the start of template.prompt"),
        ({"chat_options": {"enable_thinking": False}}, "chatml", "template.chat_options.enable_thinking: the chat template of chatty has no such variable"),
        ({"chat_options": {"messages": []}}, "chatml", "template.chat_options.messages: the chat template"),
        ({}, "{{ messages[-1].content | upper }}", "does not write the problem 'Mark 5 of the problem' as it is; write the text"),
        ({}, "{{ messages[-1].content | replace('  ', ' ') }}<eos>", "does not write the problem"),
        ({}, "{{ messages[-1].content | e }}<eos>", "does not write the problem"),
        ({}, "{{ messages[-1].content[:100] }}<eos>", "does not write the problem"),
        ({}, "{{ messages[0].content }}{{ messages[0].content }}<eos>", "does not write the problem"),
        ({"system": "Be kind."}, "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "changes or leaves out the text of a turn (system: 'Be kind.')"),
        ({}, "{{ messages[0].content }}", "leaves out the assistant's turn"),
        ({}, "{% for m in messages %}{{ m.content }} ###\n{% endfor %}", "ends the assistant's turn with ' ###\\n', which is no special token"),
        ({"system": "{problem}"}, "chatml", "expected {problem} in the user's turn alone"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused(template, shape, said):
    with pytest.raises(InputError) as refused:
        SolutionEncoder(chat_tokenizer(shape), Template(chat=True, **template))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["system", "chat_options", "rendering"])
def test_what_only_chats_have_is_refused_without(key):
    with pytest.raises(InputError, match=rf"template.{key}: is for chat templates; set template.chat: true"):
        Template(**{key: {"before": "a", "after": "b", "end": "c", "sha256": "d"} if key == "rendering" else {"a": 1}})


def test_an_example_that_the_template_changes_is_refused():
    template = Template(chat=True)
    with pytest.raises(
        InputError, match=r"changes or leaves out the text of a turn \(assistant: '<think>a</think>b'\)"
    ):
        SolutionEncoder(chat_tokenizer("thinking"), template, examples=[Problem(id="e", problem="?", steps=["<think>a</think>b"])])  # fmt: skip


def test_a_blank_end_is_the_end_of_the_sequence():
    tokenizer = chat_tokenizer("{% for m in messages %}{{ m.content }}\n{% endfor %}", eos="<eos>")
    assert SolutionEncoder(tokenizer, Template(chat=True)).end_id == 1


def test_a_day_of_ones_own_and_none_by_the_clock():
    tokenizer = chat_tokenizer("llama")
    template = Template(chat=True, chat_options={"day": "29 Nov 2026"}).rendered_by(tokenizer)
    assert "Today is 29 Nov 2026." in template.rendering.before


def test_an_export_notices_another_chat_template(tmp_path):
    """Spelled otherwise it is the same; a change in any turn, also one of examples alone, is refused in one line."""
    tokenizer = chat_tokenizer("chatml")
    kept = Template(chat=True, step_separator="\n\n", strip_thinking=True).rendered_by(tokenizer)
    kept.save(tmp_path, objective="process")
    loaded, _ = load_export(tmp_path)
    assert loaded == kept
    assert json.loads((tmp_path / "stepverify.json").read_text())["template"]["rendering"]["after"] == (
        "<|stop|>\n<|turn|>assistant\n"
    )
    assert loaded.rendered_by(chat_tokenizer(SHAPES["chatml"] + "{# the same #}")) == kept
    for shape, said in (
        (SHAPES["chatml"].replace("Help.", "Do help."), "it now writes 'n|>system\\nDo help.<|stop|>"),
        (SHAPES["chatml"].replace("assistant\n", "model\n"), "where it wrote "),
        (SHAPES["chatml"].replace("<|stop|>\n{% endfor", "<|stop|>{% endfor"), "where it wrote "),
        (SHAPES["chatml"].replace("{{ m.content }}", "{{ m.content if loop.index < 3 else m.content + ' ' }}"), "it now writes other turns"),
        (None, "the tokenizer of chatty has no chat template"),
    ):  # fmt: skip
        with pytest.raises(InputError) as refused:
            SolutionEncoder(chat_tokenizer(shape), loaded)
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "begun", "rest"),
    [
        ("<think>a\n\nb</think>\n\nc", False, "\n\nc"),
        ("a</think>b", False, "b"),
        ("a</think>b", True, "b"),
        ("a", True, ""),
        ("a", False, "a"),
        ("a<think>b</think>c<thinking>d</thinking>e", False, "ace"),
        ("a<think>b", False, "a"),
        ("a</think>b<think>c", True, "b"),
        ("<think>a<think>b</think>c</think>d", False, "c</think>d"),
    ],
)
def test_thinking_is_removed(text, begun, rest):
    assert without(text, thinking(text, begun=begun)) == rest


def test_thinking_is_removed_before_the_steps_are_split():
    text = "<think>Hm.\n\nOr 6?</think>\n\n2 + 3 = 5\n\n#### 5"
    assert Template(step_separator="\n\n", strip_thinking=True).split(text) == ["2 + 3 = 5", "#### 5"]
    assert Template(step_separator="\n\n").split(text)[0] == "<think>Hm."
    begun = Template(chat=True, strip_thinking=True).rendered_by(chat_tokenizer("begun"))
    assert (begun.split("Hm, 5"), begun.split("Hm, 5", continued=True)) == ([], ["Hm, 5"])


@pytest.mark.slow
def test_the_real_template_of_qwen(models_folder):
    """ChatML with a system turn of its own; paragraphs, their tags and the end of turn by the tokenizer's own merges."""
    from stepverify.data.encode import load_tokenizer
    from stepverify.records import Solution

    tokenizer = load_tokenizer(str(models_folder / "qwen2.5-coder-0.5b"))
    for system in (None, "Reason step by step."):
        template = Template(chat=True, system=system, step_separator="\n\n", step_tag="<|fim_pad|>")
        encoder = SolutionEncoder(tokenizer, template, examples=EXAMPLES)
        turns = encoder.template.messages("What is 12 + 30?", examples=EXAMPLES)
        assert [turn["role"] for turn in turns] == ["system"] * bool(system) + ["user", "assistant"] * 2 + ["user"]
        rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert encoder.prompt("What is 12 + 30?") == rendered
        assert tokenizer.decode(rendered).startswith("<|im_start|>system\n" + (system or "You are Qwen, created by"))
    encoder = SolutionEncoder(tokenizer, template)
    steps = ["First, add 12 and 30.\nThat is 42.", "So \\(12 + 30 = \\boxed{42}\\)."]
    record = Solution(id="p#0", problem_id="p", problem="What is 12 + 30?", steps=steps, finish="stop")
    assert (encoder.end_id, tokenizer.eos_token_id) == (151645, 151645)
    own = tokenizer.encode("\n\n".join(steps) + "<|im_end|>", add_special_tokens=False)
    prompt = encoder.prompt(record.problem)
    assert encoder.outcome(record, None).input_ids == prompt + own
    assert encoder.next_token(record).targets == own
    tagged = encoder.process(record, None)
    assert [tagged.input_ids[at] for at in tagged.positions] == [151662] * 2
    assert tokenizer.decode(tagged.input_ids) == tokenizer.decode(prompt) + "".join(
        f"{s}\n\n<|fim_pad|>" for s in steps
    )
    assert encoder.path(record.problem, steps[:1]) == tagged.input_ids[: tagged.positions[0]]
