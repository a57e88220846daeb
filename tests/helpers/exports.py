"""Small untrained exports of both kinds, solutions that they score, and their values by transformers alone."""

from pathlib import Path

from stepverify.records import Solution
from stepverify.template import Template

TEMPLATE = Template(prompt="{problem}\n")
MAX_LENGTH = 40


def solution(number, steps, finish="stop", sample=0):
    return Solution(
        id=f"p/{number}#{sample}", problem_id=f"p/{number}", problem=f"a = {number} ; b = a + 1 ; b ?", steps=steps,
        finish=finish, answer="1", correct=False,
    )  # fmt: skip


SOLUTIONS = [
    solution(0, ["b = 0 + 1 = 1", "#### 1"]),
    solution(1, ["b = 1 + 1 = 3", "c = 3", "c = 4", "#### 3"]),
    solution(2, ["#### 2"]),
    solution(3, ["b = 3 + 1"], finish="length"),
    solution(4, ["b = 4 + 1 = 5", "b = 4 + 1 = 5", "#### 5"]),
]
LONG = solution(5, ["b = 5 + 1 = 6"] * 12)
EMPTY = solution(6, [])


def many(num_problems, num_samples):
    """Solutions of 2 or 3 steps, those of a problem side by side, with beginnings in common."""
    return [
        solution(n, [f"b = {n % 7} + 1 = {n % 7 + 1}", *["c = 3"] * (k % 2), f"#### {(n + k) % 9}"], sample=k)
        for n in range(num_problems) for k in range(num_samples)
    ]  # fmt: skip


def write_export(model, tokenizer, folder: Path, **facts) -> str:
    """As stepverify.callbacks.export does."""
    folder.mkdir()
    model.export(folder, model.state_dict())
    tokenizer.save_pretrained(str(folder))
    TEMPLATE.save(folder, objective=model.objective, form=model.form, max_length=MAX_LENGTH, **facts)
    return str(folder)


def write_outcome(base: Path, folder: Path) -> str:
    """An outcome verifier with a random head."""
    import torch

    from stepverify.data.encode import load_tokenizer
    from stepverify.models import Backbone, OutcomeModel

    model = OutcomeModel(Backbone(path=str(base)).load())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.nn.init.normal_(model.value_head.weight)
        torch.nn.init.normal_(model.value_head.bias)
    return write_export(model, load_tokenizer(str(base)), folder)


def write_process(base: Path, folder: Path) -> str:
    """A process reward model that is an untrained language model."""
    from stepverify.data.encode import load_tokenizer
    from stepverify.models import Backbone, ProcessModel

    tokenizer = load_tokenizer(str(base))
    tag, negative, positive = ids_of(tokenizer)
    model = ProcessModel(Backbone(path=str(base)).load(), (negative, positive))
    return write_export(model, tokenizer, folder, ids={"step_tag": tag, "negative": negative, "positive": positive})


def ids_of(tokenizer):
    return [tokenizer.encode(text)[0] for text in (TEMPLATE.step_tag, TEMPLATE.negative, TEMPLATE.positive)]


def _encoded(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def outcome_by_hand(folder, s, per_token=False):
    """Transformers' own token classifier over prompt, steps and the end of the sequence; no code of ours."""
    import torch
    from transformers import AutoModelForTokenClassification

    from stepverify.data.encode import load_tokenizer

    tokenizer = load_tokenizer(folder)
    prompt = _encoded(tokenizer, s.problem + "\n")
    ids = prompt + [i for step in s.steps for i in _encoded(tokenizer, step + "\n")]
    ids += [tokenizer.eos_token_id] * (s.finish != "length")
    with torch.no_grad():
        logits = AutoModelForTokenClassification.from_pretrained(folder)(torch.tensor([ids])).logits
    values = logits[0, :, 0].sigmoid().tolist()
    return values[len(prompt) :] if per_token else values[-1:]


def process_by_hand(folder, s):
    """Transformers' own language model; at every tag the softmax of two logits."""
    import torch
    from transformers import AutoModelForCausalLM

    from stepverify.data.encode import load_tokenizer

    tokenizer = load_tokenizer(folder)
    tag, negative, positive = ids_of(tokenizer)
    ids, at = _encoded(tokenizer, s.problem + "\n"), []
    for step in s.steps:
        ids += [*_encoded(tokenizer, step + "\n"), tag]
        at.append(len(ids) - 1)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0, at]
    return logits[:, [negative, positive]].softmax(-1)[:, 1].tolist()
