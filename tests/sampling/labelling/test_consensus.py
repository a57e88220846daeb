"""Consensus of labels and a judge: what is asked, how answers are read, what is kept, and that a kill changes nothing."""

import asyncio
import contextlib
import copy
import json
import random
from collections import Counter

import pytest

from sampling.__main__ import main
from sampling.engines import Completion, Engine, SamplingOptions
from sampling.engines.prompts import Prompts
from sampling.labelling import Consensus, Exhaustive, Rollouts, StepLabeller
from sampling.labelling.verdict import DEFAULT, JudgePrompt, compared, first_incorrect, majority, read_verdict
from sampling.stages.label import label
from stepverify.jsonl import read_records, write_records
from stepverify.readers import Synthetic
from stepverify.records import InputError, Judgement, Solution, StepLabel
from stepverify.template import Template
from tests.sampling.labelling.test_rollouts import LENGTH, Walk, samples, summary
from tests.sampling.stages.test_generate import CodePoints
from tests.sampling.stages.test_label import TEMPLATE, counted, solution

RIGHT, WRONG = StepLabel(rating=1), StepLabel(rating=-1)
PLAIN = Template(prompt="{problem}")


class Judge(Engine):
    """Answers a question by the steps in it: ``says(steps)`` gives one text a vote. Remembers what it was asked."""

    model, tokenizer = "judge", CodePoints()

    def __init__(self, says, stop_after=None):
        self.says, self.stop_after, self.asked = says, stop_after, []

    def identity(self):
        return {"engine": "judge"}

    async def complete(self, request, options):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        question = "".join(map(chr, request.prompt_ids))
        self.asked.append((question, request.n, request.seed))
        steps = [line.partition(": ")[2] for line in question.splitlines() if line.startswith("Step ")]
        return [self._completion(text) for text in self.says(steps)[: request.n]]

    @staticmethod
    def _completion(text):
        return Completion([0] * 7, text.removesuffix("…"), "length" if text.endswith("…") else "stop")


class Fixed(StepLabeller):
    """Labels that are written down: the first letter of a step, r correct, w incorrect, ? unknown."""

    def identity(self):
        return {"labeller": "fixed"}

    @contextlib.asynccontextmanager
    async def labelling(self, stage):
        yield self.label

    async def label(self, solutions):
        for s in solutions:
            s.step_labels = [{"r": RIGHT, "w": WRONG, "?": None}[step[0]] for step in s.steps]

    def summary(self):
        return {"fixed": 1}


def run(folder, solutions, says, labeller=None, **options):
    write_records(folder / "in.jsonl", solutions)
    judge = says if isinstance(says, Judge) else Judge(says)
    label(folder / "in.jsonl", folder / "out", Consensus(labeller or Fixed(), judge, **{"template": PLAIN} | options))
    return {s.id: s.step_labels for s in read_records(folder / "out", Solution)}, judge


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


def test_the_question_is_asked_plainly_or_in_the_chat_template(tmp_path, tokenizer, characters, characters_bos):
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


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────


def test_consensus_by_hand(tmp_path):
    """Seven solutions, one for each thing that can come out; the words are the judge's three votes."""
    words = {
        "r1": ["none", "none", "2"], "w2": ["1", "1", "none"], "w3": ["none", "none", "1"],
        "r4": ["2", "2", "2"], "w5": ["2", "none", "2"], "w6": ["I do not know", "9", "1…"], "r7": ["none", "1", "2"],
    }  # fmt: skip
    rows = [solution(i, [first, "r"]) for i, first in enumerate(words)]
    found, judge = run(
        tmp_path,
        rows,
        lambda steps: [f"\\boxed{{{w}}}" if "…" not in w else f"\\boxed{{{w[:-1]}}}…" for w in words[steps[0]]],
        num_votes=3,
        sampling=SamplingOptions(temperature=1.0),
    )
    assert found == {
        "p/0#0": [RIGHT, RIGHT], "p/0#1": [WRONG, RIGHT], "p/0#2": None, "p/0#3": None, "p/0#4": None, "p/0#5": None,
        "p/0#6": None,
    }  # fmt: skip
    assert summary(tmp_path / "out")["consensus"] == {
        "agreed_on_none": 1, "agreed_on_a_step": 1, "error_by_labels_only": 1, "error_by_judge_only": 1,
        "different_steps": 1, "unparsable": 1, "undecided": 1,
    }  # fmt: skip
    expected = {"judged": 7, "unparsable_verdicts": 3, "judge_tokens": 7 * 3 * 7, "labelled_steps": 4, "fixed": 1}
    assert {key: summary(tmp_path / "out")[key] for key in expected} == expected
    assert summary(tmp_path / "out")["tokens_this_run"] == 7 * 3 * 7
    records = {j.id: j for j in read_records(tmp_path / "out" / "judge", Judgement)}
    assert [records[s.id].labelled for s in rows] == [0, 1, 1, 0, 1, 1, 0]
    assert records["p/0#5"].verdicts == [None, None, None]
    assert records["p/0#5"].finish == ["stop", "stop", "length"]
    assert records["p/0#1"].verdicts == [1, 1, 0]
    assert records["p/0#1"].texts == [r"\boxed{1}", r"\boxed{1}", r"\boxed{none}"]
    assert {n for _, n, _ in judge.asked} == {3}
    assert [records[s.id].seed for s in rows] == [seed for _, _, seed in judge.asked]
    assert len({seed for _, _, seed in judge.asked}) == 7


def test_each_distinct_solution_is_asked_about_once_and_those_without_labels_never(tmp_path):
    """Of seven solutions, two are alike, one was cut off, one has no step and one no label: three questions."""
    rows = [
        solution(0, ["r", "w"]), solution(1, ["r", "w"]), solution(2, ["r", "r"]), solution(3, []),
        solution(4, ["?", "?"]), solution(5, ["r", "w"], finish="length"), solution(0, ["r", "w"], "p/1"),
    ]  # fmt: skip
    found, judge = run(tmp_path, rows, lambda steps: [r"\boxed{2}"])
    both = [RIGHT, WRONG]
    assert found == {
        "p/0#0": both, "p/0#1": both, "p/0#2": None, "p/0#3": [], "p/0#4": [None, None], "p/0#5": both, "p/1#0": both,
    }  # fmt: skip
    assert [j.id for j in read_records(tmp_path / "out" / "judge", Judgement)] == ["p/0#0", "p/0#2", "p/0#5", "p/1#0"]
    assert len(judge.asked) == 4


def test_solutions_are_judged_while_others_are_labelled(tmp_path):
    """The judge has all of the first problem before any other problem is labelled."""
    judged = asyncio.Event()

    class Watched(Fixed):
        async def label(self, solutions):
            if solutions[0].problem_id != "p/0":
                await asyncio.wait_for(judged.wait(), 20)
            await super().label(solutions)

    def says(steps):
        judged.set()
        return [r"\boxed{none}"]

    found, judge = run(tmp_path, [solution(0, ["r"], f"p/{i}") for i in range(3)], says, Watched())
    assert len(judge.asked) == 3
    assert [*found.values()] == [[RIGHT]] * 3


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "{problem} {steps}"},
        {"seed": 1},
        {"num_votes": 3},
        {"template": Template(prompt="Q {problem}")},
        {"sampling.temperature": 0.5},
    ],
)
def test_another_judge_is_refused_by_name(tmp_path, changed):
    settled = {"sampling": SamplingOptions(temperature=1.0)}
    (tmp_path / "t.txt").write_text("{problem}\n{steps}")
    run(tmp_path, [solution(0, ["r"])], lambda steps: ["?"], prompt=tmp_path / "t.txt", **settled)
    key = next(iter(changed))
    if key == "prompt":
        (tmp_path / "t.txt").write_text(changed.pop(key))
    if key == "sampling.temperature":
        changed = {"sampling": SamplingOptions(temperature=changed[key])}
    with pytest.raises(InputError, match=rf"was made with config\.steps\.{key}"):
        run(tmp_path, [solution(0, ["r"])], list, prompt=tmp_path / "t.txt", **settled | changed)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_votes": 0}, "num_votes: expected >= 1, got 0"), ({"num_votes": 3}, "3 greedy answers are the same")],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        Consensus(Fixed(), Judge(list), **options)


# ── with rollouts, interrupted ────────────────────────────────────────────────────────────────────


def third_zero(steps):
    """The truth about the walk: the third zero makes a solution incorrect for good. Incorrect itself about every fifth."""
    zeros = [i for i, step in enumerate(steps[:LENGTH], start=1) if step == "0"]
    text = str(zeros[2]) if len(zeros) > 2 else "none"
    return [rf"\boxed{{{text}}}" if sum(map(int, steps[:LENGTH])) % 5 else "?"]


def test_rollouts_and_a_judge_interrupted_ten_times(tmp_path):
    """Ended after some more questions to either, again and again: the same labels, and nothing asked twice."""
    source, sampling = samples(tmp_path, problems=10), SamplingOptions(temperature=0.0)

    def once(output, walk, judge):
        rollouts = Rollouts(walk, Exhaustive(4), template=TEMPLATE)
        label(source, output, Consensus(rollouts, judge, sampling=sampling, template=PLAIN))

    once(tmp_path / "whole", Walk(), whole := Judge(third_zero))
    expected = summary(tmp_path / "whole")
    rng, asked, sampled = random.Random(1), Counter(), Counter()
    for i in range(11):
        limits = (rng.randint(1, expected["rollouts"] // 8), rng.randint(1, expected["judged"] // 8))
        walk, judge = Walk(stop_after=limits[0]), Judge(third_zero, stop_after=limits[1])
        if i == 10:
            walk, judge = Walk(), Judge(third_zero)
        with contextlib.suppress(KeyboardInterrupt):
            once(tmp_path / "out", walk, judge)
        asked.update(seed for _, _, seed in judge.asked)
        sampled += walk.asked
    assert asked == Counter(seed for _, _, seed in whole.asked)
    assert set(asked.values()) == {1}
    assert sampled.total() == expected["rollouts"]
    labels = [{s.id: s.step_labels for s in read_records(tmp_path / o, Solution)} for o in ("whole", "out")]
    assert labels[0] == labels[1]
    found = summary(tmp_path / "out")
    for key in ("consensus", "judged", "unparsable_verdicts", "rollouts", "judge_tokens", "labelled_steps"):
        assert found[key] == expected[key]
    ids = Counter(j.id for j in read_records(tmp_path / "out" / "judge", Judgement))
    assert set(ids.values()) == {1}
    # What is kept is correct: with a judge that knows the truth, the first error of what is left is it.
    texts = {s.id: s.steps for s in read_records(source, Solution)}
    kept = {name: first_incorrect(found) for name, found in labels[1].items() if found is not None}
    assert 0 < len(kept) < len(texts)
    assert all(third_zero(texts[name]) == [rf"\boxed{{{incorrect or 'none'}}}"] for name, incorrect in kept.items())


# ── through the program ───────────────────────────────────────────────────────────────────────────


def test_the_program_takes_a_consensus(tiny_model_dir, tmp_path, capsys):
    """A judge of random weights says nothing that can be read; without labels the solutions stay."""
    problems = list(Synthetic("test", 3).problems())
    write_records(tmp_path / "in.jsonl", [Solution.of(p, 0, p.steps, finish="stop") for p in problems])
    (tmp_path / "t.txt").write_text("{problem} {steps}")
    config = tmp_path / "label.yaml"
    config.write_text(f"""
input: {tmp_path}/in.jsonl
output: {tmp_path}/out
steps:
  class_path: sampling.labelling.Consensus
  init_args:
    labeller: {{ class_path: sampling.labelling.SyntheticOracle }}
    judge:
      class_path: sampling.engines.TransformersEngine
      init_args: {{ model: {tiny_model_dir}, device: cpu }}
    prompt: {tmp_path}/t.txt
    sampling: {{ temperature: 0.7, max_tokens: 5 }}
    num_votes: 3
    template: {{ prompt: "{{problem}}" }}
""")
    main(["label", "--config", str(config)])
    assert [s.step_labels for s in read_records(tmp_path / "out", Solution)] == [None] * 3
    assert summary(tmp_path / "out")["consensus"]["unparsable"] == 3
    assert summary(tmp_path / "out")["unparsable_verdicts"] == 9
    with pytest.raises(SystemExit):
        main(["label", "--config", str(config), "--steps.init_args.prompt", "none.txt"])
    assert "sampling label: prompt: none.txt: No such file" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "judge" / "manifest.json").read_text())["finished"]
