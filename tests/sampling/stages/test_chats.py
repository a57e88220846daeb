"""Chats and paragraphs through the stages: what engines are asked, and how what they say is read."""

import json

import pytest

from sampling.engines import Message, SamplingOptions
from sampling.engines.prompts import Prompts, template_of
from sampling.labelling import Exhaustive, Rollouts
from sampling.stages.generate import generate
from sampling.stages.label import label
from stepverify.jsonl import read_records, write_records
from stepverify.readers import Reader
from stepverify.records import InputError, Problem, Rollout, Solution
from stepverify.template import Template
from tests.helpers.chats import SHAPES, Speaker, chat_tokenizer

CHAT = Template(chat=True, system="Be brief.", step_separator="\n\n")
SHOT = Problem(id="shot", problem="1+1?", answer="2", steps=["1+1\n= 2", "#### 2"])
TEXT = "2+3\n= 5\n\n```\n5\n\n```\n\n#### 5"
STEPS = ["2+3\n= 5", "```\n5\n\n```", "#### 5"]


class Given(Reader):
    def __init__(self, *problems):
        self.given = problems

    def problems(self):
        yield from self.given

    def solutions(self):
        yield from ()


PROBLEMS = Given(Problem(id="p", problem="2+3?", answer="5"))


def sampled(folder, says, tokenizer, template=CHAT, num_samples=2, **more):
    engine = Speaker(lambda prompt: says, tokenizer)
    generate(engine, PROBLEMS, folder, num_samples=num_samples, template=template, **more)
    return engine, list(read_records(folder, Solution)), json.loads((folder / "manifest.json").read_text())


def test_a_problem_is_asked_in_every_form(tmp_path):
    """Token ids, the same as text, and turns; the examples too. Paragraphs are steps."""
    tokenizer = chat_tokenizer("llama")
    engine, solutions, manifest = sampled(tmp_path / "o", [TEXT], tokenizer, few_shot=Given(SHOT))
    (request,) = engine.asked
    assert request.messages == (
        Message("system", "Be brief."), Message("user", "1+1?"), Message("assistant", "1+1\n= 2\n\n#### 2"),
        Message("user", "2+3?"),
    )  # fmt: skip
    assert request.prompt == (
        "<bos><|turn|>system\nToday is 26 Jul 2024.\nBe brief.<|stop|><|turn|>user\n1+1?<|stop|><|turn|>assistant\n"
        "1+1\n= 2\n\n#### 2<|stop|><|turn|>user\n2+3?<|stop|><|turn|>assistant\n"
    )
    assert request.prompt_ids == tokenizer.encode(request.prompt, add_special_tokens=False)
    assert [(s.steps, s.step_separator, s.text) for s in solutions] == [(STEPS, "\n\n", TEXT)] * 2
    rendering = manifest["config"]["template"]["rendering"]
    assert rendering["after"] == "<|stop|><|turn|>assistant\n"


def test_a_server_without_a_tokenizer_is_given_turns_alone(tmp_path):
    engine, solutions, manifest = sampled(tmp_path / "o", [TEXT], None)
    (request,) = engine.asked
    assert (request.prompt_ids, request.prompt) == ([], None)
    assert request.messages == (Message("system", "Be brief."), Message("user", "2+3?"))
    assert solutions[0].steps == STEPS
    assert manifest["config"]["template"]["rendering"] is None


def test_a_plain_prompt_is_text_and_ids_without_turns(tmp_path):
    for tokenizer in (chat_tokenizer(), None):
        engine, *_ = sampled(
            tmp_path / str(tokenizer is None), ["a"], tokenizer, Template(), few_shot=Given(SHOT_LINES)
        )
        (request,) = engine.asked
        assert request.messages is None
        assert request.prompt == "Question: 1?\nAnswer:\n#### 1\n\nQuestion: 2+3?\nAnswer:\n"
        assert request.prompt_ids == ([] if tokenizer is None else [2, *tokenizer.encode(request.prompt, add_special_tokens=False)])  # fmt: skip


SHOT_LINES = Problem(id="shot", problem="1?", answer="1", steps=["#### 1"])


@pytest.mark.parametrize(("eos", "stops"), [("<|stop|>", []), ("<eos>", [4])])
def test_the_end_of_turn_stops_a_model_whose_end_of_sequence_is_another(tmp_path, eos, stops):
    engine, _, manifest = sampled(tmp_path / "o", [TEXT], chat_tokenizer(eos=eos))
    assert engine.options[0].stop_ids == stops
    assert manifest["config"]["sampling"]["stop_ids"] == []
    given = Prompts(engine, template_of(engine, CHAT)).options(SamplingOptions(stop_ids=[7])).stop_ids
    assert given == [7, *stops]


def test_another_chat_template_is_another_run(tmp_path):
    """A killed run goes on under the same chat template only; one that is missing is refused before a folder is made."""
    sampled(tmp_path / "o", [TEXT], chat_tokenizer())
    with pytest.raises(InputError, match=r"was made with config\.template\.rendering\.after"):
        sampled(tmp_path / "o", [TEXT], chat_tokenizer(SHAPES["chatml"].replace("assistant\n", "model\n")))
    with pytest.raises(InputError, match="has no chat template"):
        sampled(tmp_path / "new", [TEXT], chat_tokenizer(None))
    assert not (tmp_path / "new").exists()


def test_thinking_is_removed_and_counted(tmp_path):
    """``Hm.⏎⏎6?`` and its borders are 8 + 6 + 7 characters, each a token; the ids keep them."""
    text = "<think>Hm.\n\n6?</think>\n\n#### 5"
    template = Template(chat=True, step_separator="\n\n", strip_thinking=True)
    _, solutions, manifest = sampled(tmp_path / "o", [text, "#### 5"], chat_tokenizer("thinking"), template)
    assert [s.steps for s in solutions] == [["#### 5"]] * 2
    assert [s.meta for s in solutions] == [{"thinking_tokens": 22}, {}]
    assert len(solutions[0].token_ids) == len(text)
    assert (manifest["summary"]["solutions_with_thinking"], manifest["summary"]["thinking_tokens"]) == (1, 22)
    _, solutions, _ = sampled(tmp_path / "begun", ["Hm.</think>#### 5", "Hm, 5"], chat_tokenizer("begun"), template)
    assert [(s.steps, s.meta) for s in solutions] == [
        (["#### 5"], {"thinking_tokens": 11}),
        ([], {"thinking_tokens": 5}),
    ]


def test_a_separator_that_fits_badly_is_named(tmp_path, capsys):
    """Three of four solutions are a step where lines would be 2, 2 and 5: 3.0 each."""
    texts = ["a\nb", "a\nb", "a\nb\nc\nd\ne", "a\n\nb"]
    sampled(tmp_path / "o", texts, chat_tokenizer(), num_samples=4)
    assert (
        "warning: 3 of 4 solutions (75%) are a single step by template.step_separator '\\n\\n'; steps that others would "
        "find on average: '\\n' 3.0" in capsys.readouterr().err
    )
    sampled(tmp_path / "short", ["#### 5"], chat_tokenizer())
    sampled(tmp_path / "fits", ["a\nb", "a\n\nb", "a\n\nb", "a\n\nb"], chat_tokenizer(), num_samples=4)
    assert "warning" not in capsys.readouterr().err
    sampled(tmp_path / "thinks", ["<think>a</think>b"], chat_tokenizer())
    assert (
        "warning: 2 of 2 solutions (100%) have thinking among their steps; template.strip_thinking: true removes it"
        in (capsys.readouterr().err)
    )


def test_rollouts_continue_the_assistants_turn(tmp_path):
    """After the first paragraph: its ids, its text and an assistant's turn; a paragraph with a blank line counts once."""
    tokenizer = chat_tokenizer(eos="<eos>")
    solution = Solution(
        id="p#0", problem_id="p", problem="2+3?", answer="5", steps=STEPS, step_separator="\n\n", finish="stop"
    )
    write_records(tmp_path / "in.jsonl", [solution])
    engine = Speaker(lambda prompt: ["```\n5\n\n```\n\n#### 5", "So\n\n#### 6"], tokenizer)
    steps = Rollouts(engine, Exhaustive(2), template=CHAT, reuse_rollouts=True)
    label(tmp_path / "in.jsonl", tmp_path / "out", steps)
    asked, _ = engine.asked
    prompt = "<|turn|>system\nBe brief.<|stop|>\n<|turn|>user\n2+3?<|stop|>\n<|turn|>assistant\n2+3\n= 5\n\n"
    assert asked.messages[-1] == Message("assistant", "2+3\n= 5\n\n")
    assert asked.prompt == prompt
    assert asked.prompt_ids == tokenizer.encode(prompt, add_special_tokens=False)
    assert engine.options[0].stop_ids == [4]
    (found,) = read_records(tmp_path / "out", Solution)
    counts = [(label.num_correct, label.num_rollouts) for label in found.step_labels[:2]]
    assert counts == [(1, 2), (2, 2)]  # one of the two is a completion that passed through
    rollouts = list(read_records(tmp_path / "out" / "rollouts", Rollout))
    assert [r.answers for r in rollouts] == [["5", "6"], ["5"]]


def test_every_key_of_a_template_is_read_from_the_command_line(capsys):
    import yaml

    from sampling.__main__ import main

    given = {
        "chat": True, "system": "Be brief.", "chat_options": {"enable_thinking": False}, "strip_thinking": True,
        "step_separator": {"regex": r"(?<=\.) +", "text": " "}, "step_tag": "#",
    }  # fmt: skip
    with pytest.raises(SystemExit):
        main(["generate", f"--template={json.dumps(given)}", "--print_config"])
    read = yaml.safe_load(capsys.readouterr().out)["template"]
    assert {key: read[key] for key in given} == given
    assert read["rendering"] is None
