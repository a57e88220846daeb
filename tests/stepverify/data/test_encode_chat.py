"""Ids and labels of solutions in chats, for each objective; trees, exports and scores of a model of such a chat."""

import copy

import pytest

from stepverify.data.encode import Example, LeftOut, SolutionEncoder
from stepverify.records import InputError, Solution
from stepverify.template import Template
from tests.helpers.chats import chat_tokenizer, write_chat_model

STOP, TAG = 4, 5


def solution(steps, finish="stop", number=0, problem="1+2?"):
    return Solution(id=f"p/{number}#0", problem_id=f"p/{number}", problem=problem, steps=steps, finish=finish)


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture(scope="module")
def chat():
    """An encoder of paragraphs in ChatML, its tokenizer and the prompt's ids."""
    tokenizer = chat_tokenizer("chatml", eos="<eos>")
    encoder = SolutionEncoder(tokenizer, Template(chat=True, step_separator="\n\n"))
    prompt = ids(tokenizer, "<|turn|>system\nHelp.<|stop|>\n<|turn|>user\n1+2?<|stop|>\n<|turn|>assistant\n")
    return encoder, tokenizer, prompt


RECORD = solution(["1+2\n=3", "#### 3"])


def test_the_generator_learns_the_solution_and_the_end_of_turn(chat):
    """7 tokens of the first step, 2 of the blank line, 6 of the second and the end: no separator before that one."""
    encoder, tokenizer, prompt = chat
    own = [*ids(tokenizer, "1+2\n=3\n\n#### 3"), STOP]
    assert len(own) == 6 + 2 + 6 + 1
    start = len(prompt) - 1
    assert encoder.next_token(RECORD) == Example(
        [*prompt, *own[:-1]], list(range(start, start + len(own))), [float(i) for i in own], RECORD
    )
    cut = solution(RECORD.steps, finish="length")
    assert encoder.next_token(cut).targets == [float(i) for i in ids(tokenizer, "1+2\n=3\n\n#### 3\n\n")]


def test_the_outcome_verifier_is_read_up_to_the_end_of_turn(chat):
    """8 tokens of the first step and its blank line have its target, 6 and the end that of the second."""
    encoder, tokenizer, prompt = chat
    example = encoder.outcome(RECORD, [0.25, 1.0])
    assert example.input_ids == [*prompt, *ids(tokenizer, "1+2\n=3\n\n#### 3"), STOP]
    assert example.positions == list(range(len(prompt), len(prompt) + 15))
    assert example.targets == [0.25] * 8 + [1.0] * 7
    assert encoder.outcome(RECORD, None, last_only=True).positions == [len(prompt) + 14]
    texts = encoder.token_texts(RECORD)
    assert (len(texts), "".join(texts)) == (15, "1+2\n=3\n\n#### 3<|stop|>")


def test_step_tags_stand_in_the_assistants_turn(chat):
    """After each blank line, the final one too; nothing ends the turn."""
    encoder, tokenizer, prompt = chat
    example = encoder.process(RECORD, [1.0, 0.0])
    assert example.input_ids == [*prompt, *ids(tokenizer, "1+2\n=3\n\n"), TAG, *ids(tokenizer, "#### 3\n\n"), TAG]
    assert example.positions == [len(prompt) + 8, len(prompt) + 17]
    assert example.targets == [1.0, 0.0]


def test_a_prefix_is_where_every_solution_with_these_steps_goes_on(chat):
    encoder, tokenizer, prompt = chat
    assert encoder.path("1+2?", []) == prompt
    assert encoder.path("1+2?", ["1+2\n=3"]) == [*prompt, *ids(tokenizer, "1+2\n=3\n\n")]
    whole = encoder.outcome(RECORD, None).input_ids
    assert whole[: len(prompt) + 8] == encoder.path("1+2?", ["1+2\n=3"])


def test_reading_ahead_changes_no_ids(chat):
    encoder, tokenizer, _ = chat
    other = SolutionEncoder(tokenizer, encoder.template)
    other.read_ahead([RECORD])
    assert other.outcome(RECORD, None) == encoder.outcome(RECORD, None)


def test_what_the_tokenizer_begins_texts_with_is_written_once():
    for shape in ("llama", "chatml"):
        tokenizer = chat_tokenizer(shape)
        example = SolutionEncoder(tokenizer, Template(chat=True)).process(RECORD, None)
        assert tokenizer("").input_ids == [2]
        assert example.input_ids.count(2) == (shape == "llama")


def test_a_prompt_that_begins_to_think_is_closed_before_the_steps():
    """Sampling begins within ``<think>``; verifiers read, and the generator learns, its end."""
    tokenizer = chat_tokenizer("begun")
    encoder = SolutionEncoder(tokenizer, Template(chat=True))
    prompt, closed = encoder.prompt("1?"), ids(tokenizer, "\n</think>\n\n")
    assert tokenizer.decode(prompt).endswith("<|turn|>assistant\n<think>\n")
    record = solution(["a"], problem="1?")
    assert encoder.path("1?", []) == prompt
    assert encoder.path("1?", ["a"]) == [*prompt, *closed, *ids(tokenizer, "a\n")]
    assert encoder.process(record, None).positions == [len(prompt) + len(closed) + 2]
    assert encoder.outcome(record, None).positions[0] == len(prompt) + len(closed)
    assert encoder.next_token(record).targets == [*map(float, [*closed, *ids(tokenizer, "a"), STOP])]


def test_an_empty_think_block_is_an_option_of_the_template():
    tokenizer = chat_tokenizer("thinking")
    plain, empty = (SolutionEncoder(tokenizer, Template(chat=True, chat_options=o)) for o in ({}, {"enable_thinking": False}))  # fmt: skip
    assert empty.prompt("1?") == [*plain.prompt("1?"), *ids(tokenizer, "<think>\n\n</think>\n\n")]
    assert empty.path("1?", ["a"]) == [*empty.prompt("1?"), *ids(tokenizer, "a\n")]


def test_worked_solutions_without_the_headings_of_steps_are_left_out():
    encoder = SolutionEncoder(chat_tokenizer(), Template(chat=True, step_separator="Step {i}:"))
    assert encoder.next_token(solution(["Let us see.", "Step 1: a"])).record.steps[0] == "Let us see."
    with pytest.raises(LeftOut, match=r"without the heading 'Step \{i\}:' in a step"):
        encoder.next_token(solution(["a", "b"]))


@pytest.mark.parametrize("objective", ["generator", "outcome", "process"])
@pytest.mark.parametrize("shape", ["chatml", "llama", "begun"])
def test_the_model_cards_code_makes_the_same_ids(shape, objective):
    """The lines of the card, run with the tokenizer alone."""
    from stepverify.callbacks.usage import _ENCODE, Usage

    tokenizer = chat_tokenizer(shape, eos="<eos>")
    encoder = SolutionEncoder(tokenizer, Template(chat=True, step_separator="\n\n"))
    usage = Usage.__new__(Usage)
    usage.objective, usage.template, usage.encoder = objective, encoder.template, encoder
    known = {"tokenizer": tokenizer}
    exec("\n".join([_ENCODE, *usage._ids()]), known)
    record = solution(known.get("steps", []), problem=known["problem"])
    if objective == "generator":
        assert known["ids"] == encoder.prompt(record.problem)
    else:
        assert known["ids"] == getattr(encoder, objective)(record, None).input_ids


# ── a model ───────────────────────────────────────────────────────────────────────────────────────

TREE = [
    solution(["1+2\n=3", "#### 3"]),
    solution(["1+2\n=3", "#### 4"]),
    solution(["1+2\n=3", "```\n1\n\n2\n```", "#### 3"]),
    solution(["1+2\n=3", "#### 3"], finish="length"),
    solution(["2"], number=1, problem="2?"),
]


@pytest.fixture(scope="module")
def exports(base, tmp_path_factory):
    """Untrained verifiers of both kinds of an untrained chat model, as fits export them."""
    import torch

    from stepverify.models import Backbone, OutcomeModel, ProcessModel

    folder = tmp_path_factory.mktemp("chats")
    path = write_chat_model(base, folder / "base", eos="<eos>")
    tokenizer = chat_tokenizer(eos="<eos>")
    encoder = SolutionEncoder(tokenizer, Template(chat=True, step_separator="\n\n"), max_length=200)
    made = {}
    for kind in ("process", "outcome"):
        backbone = Backbone(path=path).load()
        model = ProcessModel(backbone, encoder.label_ids) if kind == "process" else OutcomeModel(backbone)
        if kind == "outcome":
            torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(1))
        made[kind] = folder / kind
        made[kind].mkdir()
        model.export(made[kind], model.state_dict())
        tokenizer.save_pretrained(str(made[kind]))
        known = {"ids": encoder.judging_ids()} if kind == "process" else {}
        encoder.template.save(
            made[kind], objective=kind, form=model.form, max_length=200, probe=encoder.probe(), **known
        )
    return made


@pytest.mark.parametrize("kind", ["process", "outcome"])
def test_a_tree_of_solutions_has_the_scores_of_each(exports, kind):
    """Packed with shared prefixes, one at a time, and by plain transformers from text to score."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    from stepverify.verifier import Verifier

    verifier = Verifier.from_pretrained(exports[kind], device="cpu")
    together = verifier.score_solutions(TREE)
    for one, values in zip(TREE, together, strict=True):
        assert verifier.score_solutions([one])[0] == pytest.approx(values, abs=1e-5)
    tokenizer = chat_tokenizer(eos="<eos>")
    text = f"<|turn|>system\nHelp.<|stop|>\n<|turn|>user\n{TREE[2].problem}<|stop|>\n<|turn|>assistant\n"
    auto = AutoModelForCausalLM if kind == "process" else AutoModelForTokenClassification
    model = auto.from_pretrained(exports[kind]).eval()
    text += "".join(f"{step}\n\n<step>" for step in TREE[2].steps) if kind == "process" else "\n\n".join(TREE[2].steps) + "<|stop|>"  # fmt: skip
    whole = torch.tensor([ids(tokenizer, text)])
    with torch.no_grad():
        logits = model(whole).logits[0]
    if kind == "process":
        negative, positive = (tokenizer.convert_tokens_to_ids(word) for word in "-+")
        by_hand = logits[whole[0] == TAG][:, [negative, positive]].softmax(-1)[:, 1].tolist()
        assert len(by_hand) == 3
    else:
        by_hand = logits[-1:, 0].sigmoid().tolist()
    assert together[2] == pytest.approx(by_hand, abs=1e-5)
    best = verifier.best_of("1+2?", ["1+2\n=3\n\n#### 3\n", "1+2\n=3\n\n#### 4"]).scores
    assert best == verifier.best_of("1+2?", [TREE[0].steps, TREE[1].steps]).scores


def test_an_export_with_another_chat_template_is_refused(exports, tmp_path):
    """Before its weights are read."""
    import shutil

    from stepverify.verifier import Verifier

    changed = shutil.copytree(exports["process"], tmp_path / "changed", ignore=shutil.ignore_patterns("*.safetensors"))
    file = next(f for f in changed.iterdir() if "Help." in f.read_text() and f.name != "stepverify.json")
    file.write_text(file.read_text().replace("Help.", "Help well."))
    with pytest.raises(
        InputError, match=r"its chat template has changed since the export: it now writes 'ystem..Help well"
    ):
        Verifier.from_pretrained(changed, device="cpu")


def test_a_generator_stops_where_its_solutions_end():
    """A configuration without the end of turn, as of base models, gets it, in the export too."""
    from types import SimpleNamespace

    import torch

    from stepverify.models import GeneratorModel

    for listed, then in ((1, [1, 4]), ([1, 4], [1, 4]), (None, 4), (4, 4)):
        model = GeneratorModel.__new__(GeneratorModel)
        torch.nn.Module.__init__(model)
        model.backbone = torch.nn.Module()
        model.backbone.generation_config = SimpleNamespace(eos_token_id=copy.copy(listed))
        model.stop_at(4)
        assert model.backbone.generation_config.eos_token_id == then
