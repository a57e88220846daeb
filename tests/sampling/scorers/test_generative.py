"""A generative verifier: what it is asked, how verdicts become values, and what is kept, counted and refused."""

import asyncio
import math
import pickle
import re

import pytest

from sampling.engines import SamplingOptions
from sampling.engines.base import Usage
from sampling.scorers import GenerativeScorer
from stepverify.critique import Critique
from stepverify.records import InputError
from stepverify.template import Template
from stepverify.verification import Verification
from tests.helpers.critics import PLAIN, Critic, Vocabulary, probabilities
from tests.helpers.engines import CodePoints, FakeEngine
from tests.helpers.labels import solution

STEPS = Verification(target="steps")


def scorer_of(engine, num_critiques=2, **options):
    return GenerativeScorer(engine, num_critiques=num_critiques, **{"template": PLAIN} | options)


def scored(scorer, *solutions):
    async def run():
        async with scorer:
            return await scorer.score(solutions)

    return asyncio.run(run())


def by_word(**words):
    """Probabilities at the verdict by the last word of the critique before it."""
    return lambda prompt: words[re.findall(r"(\w+)\.\s*Verdict:$", prompt)[-1]]


# ── values ────────────────────────────────────────────────────────────────────────────────────────


def test_a_value_is_the_mean_of_the_verdicts():
    """0.6 and 0.1 of Yes beside 0.2 of No, and 0.1 beside 0.3: (0.7 / 0.9 + 0.1 / 0.4) / 2 = 0.513889."""
    top = by_word(
        good=probabilities(0.6, 0.2) | {"Yes": math.log(0.1), " yes": math.log(0.05)}, bad=probabilities(0.1, 0.3)
    )
    engine = Critic(lambda question: ["It is good.\nVerdict: No", "It is bad.\nVerdict: Yes"], top)
    scorer = scorer_of(engine)
    one = solution(0, ["2 + 3 = 5", "#### 5"])
    assert scored(scorer, one) == [[0.513889]]
    assert scorer.critiques(one) == [
        Critique(text="It is good.", value=0.777778), Critique(text="It is bad.", value=0.25),
    ]  # fmt: skip
    assert scorer.critiques(one) == [], "taken once"
    ((question, n, _),) = engine.asked
    assert n == 2
    assert "Problem:\nof p/0\n\nSolution:\nStep 1: 2 + 3 = 5\nStep 2: #### 5\n\n" in question
    assert question.endswith('says only "Verdict: Yes" or "Verdict: No".\n')
    assert engine.verdicts == [f"{question}It is {word}.\nVerdict:" for word in ("good", "bad")]


@pytest.mark.parametrize(
    ("top", "value"),
    [
        (probabilities(0.25, 0.75), 0.25),
        ({" Yes": math.log(0.4), " Maybe": math.log(0.6)}, 1.0),
        ({"No": -3.0}, 0.0),
        ({" Maybe": -0.1}, None),
        ({" Yes": -9999.0, " No": -9999.0}, None),
    ],
)
def test_probabilities_are_those_of_the_two_words(top, value):
    """A word that is not among the likely tokens counts 0; without both there is no verdict."""
    assert Verification().value(top.items()) == (value if value is None else pytest.approx(value))
    assert scored(scorer_of(Critic(top=lambda prompt: top), 1), solution(0, ["a"])) == (
        [[]] if value is None else [[value]]
    )


def test_critiques_without_a_verdict_are_left_out_and_counted():
    """Of three critiques one ends by itself, one is cut off: the value is that of the third, 0.75. Without any, none."""
    texts = {"a": ["I like it", "On and on…", "Fine.\nVerdict: Yes"], "b": ["", "…", "Verdict of none"]}
    engine = Critic(lambda question: texts[re.findall(r"Step 1: (\w)", question)[0]])
    scorer, given = scorer_of(engine, 3), [solution(0, ["a"]), solution(1, ["b"])]
    assert scored(scorer, *given) == [[0.75], []]
    assert scorer.counted() == {"critiques_this_run": 6, "without_verdict_this_run": 5, "forced_verdicts_this_run": 0}
    assert scorer.status() == "6 critiques, 5 without verdict"
    assert [c.value for c in scorer.critiques(given[0])] == [None, None, 0.75]
    assert [c.text for c in scorer.critiques(given[1])] == ["", "", "Verdict of none"]
    assert len(engine.verdicts) == 1


def test_a_verdict_can_be_forced():
    """Written on a new line after a critique that was cut off, or ended: without the token that ended it."""
    engine = Critic(lambda question: ["On and on…", "Done"])
    scorer, one = scorer_of(engine, force_verdict=True), solution(0, ["a"])
    assert scored(scorer, one) == [[0.75]]
    assert [prompt[-len(end) :] for prompt, end in zip(engine.verdicts, ENDS, strict=True)] == ENDS
    assert [c.forced for c in scorer.critiques(one)] == [True, True]
    assert scorer.counted()["forced_verdicts_this_run"] == 2


ENDS = ["\nOn and on\nVerdict:", "\nDone\nVerdict:"]


def test_a_verdict_without_a_critique():
    engine = Critic()
    scorer = scorer_of(engine, 0)
    assert scored(scorer, solution(0, ["a"])) == [[0.75]]
    assert engine.asked == []
    assert engine.verdicts[0].endswith('Answer only "Verdict: Yes" or "Verdict: No".\nVerdict:')
    engine = Critic()
    assert scored(scorer_of(engine, 0, verification=Verification(verdict="")), solution(0, ["a"])) == [[0.75]]
    assert engine.verdicts[0].endswith('Answer only "Yes" or "No".\n')


def test_a_server_without_log_probabilities_samples_verdicts():
    """Yes, No, and a word that is neither: a half."""
    words = iter([" Yes", "No.", " Maybe"])

    class Words(Critic):
        def word(self):
            return next(words)

    engine = Words(lambda question: ["Fine.\nVerdict:"] * 3, lambda prompt: None)
    scorer = scorer_of(engine, 3, readout="sampled")
    assert scored(scorer, solution(0, ["a"])) == [[0.5]]
    assert scorer.counted()["without_verdict_this_run"] == 1
    with pytest.raises(InputError, match="critic: gives no log-probabilities of tokens; set readout: sampled"):
        scored(scorer_of(Critic(top=lambda prompt: None), 1), solution(0, ["a"]))


def test_a_chat_without_a_tokenizer_is_continued():
    """The assistant's turn begins with the critique, or with the text before the verdict."""
    template = Template(chat=True)
    engine = Critic(tokenizer=None)
    assert scored(scorer_of(engine, 1, template=template), solution(0, ["a"])) == [[0.75]]
    assert engine.verdicts[0].endswith('or "Verdict: No".Fine.\nVerdict:')
    assert scored(scorer_of(engine, 0, template=template), solution(0, ["a"])) == [[0.75]]
    assert engine.verdicts[1].endswith('or "Verdict: No".Verdict:')


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────


def by_steps(prompt):
    """After n steps of which the last one is w: 1 / (n + 1), otherwise 1 - 1 / (n + 1)."""
    steps = re.findall(r"^Step \d+: (.*)$", prompt, re.MULTILINE)
    low = 1 / (len(steps) + 1)
    return probabilities(low, 1 - low) if steps[-1].startswith("w") else probabilities(1 - low, low)


def test_steps_are_judged_with_those_before_them_each_once():
    """Two solutions that share two steps: four questions, and equal values of what they share."""
    engine = Critic(top=by_steps)
    scorer = scorer_of(engine, 1, verification=STEPS)
    assert scorer.objective == "process"
    given = [solution(0, ["r1", "w2", "r3"]), solution(1, ["r1", "w2", "w4"]), solution(2, [])]
    assert scored(scorer, *given) == [[0.5, 0.333333, 0.75], [0.5, 0.333333, 0.25], []]
    asked = [re.findall(r"Step \d+: (\w+)|step (\d)", question) for question, _, _ in engine.asked]
    assert [[step for step, _ in found if step] for found in asked] == [
        ["r1"], ["r1", "w2"], ["r1", "w2", "r3"], ["r1", "w2", "w4"],
    ]  # fmt: skip
    assert [next(number for _, number in found if number) for found in asked] == ["1", "2", "3", "3"]
    assert [c.step for c in scorer.critiques(given[0])] == [1, 2, 3]


def test_values_and_seeds_do_not_depend_on_what_else_is_scored():
    """Prefixes one by one, in any order: the seeds and values of whole solutions."""
    whole, parts = Critic(top=by_steps), Critic(top=by_steps)
    given = solution(0, ["r1", "w2", "r3"])
    (values,) = scored(scorer_of(whole, 1, verification=STEPS), given)
    scorer = scorer_of(parts, 1, verification=STEPS)
    for end in (2, 1, 3):
        assert scored(scorer, solution(7, given.steps[:end], finish="length")) == [values[:end]]
    seeds = {question: seed for question, _, seed in whole.asked}
    assert {question: seed for question, _, seed in parts.asked} == seeds
    assert len({*seeds.values()}) == 3
    other = Critic(top=by_steps)
    scored(scorer_of(other, 1, verification=STEPS, seed=1), given)
    assert {seed for _, _, seed in other.asked}.isdisjoint(seeds.values())


def test_tokens_are_counted(monkeypatch):
    """The question has q tokens, a critique ``Fine.⏎Verdict:`` 5, of which all are read again without a prefix cache.

    With a cache 2 critiques and their words cost q + 2 · (5 + 1) tokens, without q + 2 · (5 + q + 5 + 1). The usage is
    that of the engine, which read q twice and q + 5 twice, and the 12 sampled tokens.
    """
    for caches in (True, False):
        engine = Critic(lambda question: ["Fine.\nVerdict: Yes"] * 2)
        monkeypatch.setattr(Critic, "caches_prefixes", caches)
        scorer, one = scorer_of(engine), solution(0, ["a"])
        scorer.keep_prefixes()
        scored(scorer, one)
        q = len(engine.tokenizer.encode(engine.asked[0][0]))
        assert scorer.count_tokens(one) == q + 2 * (5 + 1) + (0 if caches else 2 * (q + 5))
        assert scorer.sampled_tokens(one) == [scorer.count_tokens(one)]
        assert scorer.usage == Usage(prompt_tokens=2 * q + 2 * (q + 5) + 2 * (5 + 1), cached_tokens=q)
        assert scorer.num_parameters == 10
        assert scorer.count_tokens(solution(1, ["b"])) == 0


def test_a_copy_for_another_process_holds_the_arguments_alone():
    """As a replica's; a scorer in use can be copied too."""
    scorer = scorer_of(FakeEngine())
    identity, _, _ = scorer.identity(), scorer.asking._prompts, scorer.asking._limit
    copied = pickle.loads(pickle.dumps(scorer))
    assert not {"_prompts", "_limit", "template"} & vars(copied.asking).keys()
    assert copied.identity() == identity


def test_fewer_critiques_than_asked_for_are_refused():
    with pytest.raises(InputError, match=r"critic: p/0@\w+: 2 critiques were asked for, the engine returned 1"):
        scored(scorer_of(Critic()), solution(0, ["a"]))


def test_a_search_asks_for_nothing_twice():
    engine = Critic(top=by_steps)
    scorer = scorer_of(engine, 1, verification=STEPS)
    assert not scorer.caches_prefixes
    scorer.keep_prefixes()
    assert scorer.caches_prefixes
    given = solution(0, ["r1", "w2"])
    assert scored(scorer, solution(0, ["r1"])) == [[0.5]]
    assert scored(scorer, given) == [[0.5, 0.333333]]
    assert len(engine.asked) == 2
    assert scorer.critiques(given) == []


# ── refused ───────────────────────────────────────────────────────────────────────────────────────


def test_words_that_are_not_one_token_are_refused_before_anything_is_asked():
    """Single characters have the space in common; a token for each word holds it."""
    assert Verification().spacing(Vocabulary()) == []
    assert Verification(correct="Y", incorrect="N").spacing(CodePoints()) == [ord(" ")]
    engine = Critic(tokenizer=CodePoints)
    message = r"verification.correct: 'Yes' is not one token of its own after 'Verdict:' in code points, which reads"
    with pytest.raises(InputError, match=message):
        scored(scorer_of(engine), solution(0, ["a"]))
    assert engine.asked == engine.verdicts == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_critiques": -1}, "num_critiques: expected >= 0, got -1"),
        ({"sampling": SamplingOptions(temperature=0)}, "2 greedy critiques are the same"),
        ({"verification": Verification(verdict="")}, "verification.verdict: empty"),
        ({"readout": "votes"}, "readout: expected probability or sampled, got 'votes'"),
        ({"num_critiques": 0, "readout": "sampled"}, "readout: sampled: is a share of critiques"),
        ({"max_length": 0}, "max_length: expected >= 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        scorer_of(Critic(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tokens"}, "verification.target: expected solutions or steps, got 'tokens'"),
        ({"verdict": "Verdict: "}, "verification.verdict: expected no blank space around it, got 'Verdict: '"),
        (
            {"correct": "Right", "incorrect": "Righty"},
            "with which the other one, 'Righty', does not begin, got 'Right'",
        ),
        ({"incorrect": "Not so"}, "verification.incorrect: expected a word .* got 'Not so'"),
    ],
)
def test_questions_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Verification(**options)


def test_a_question_of_ones_own(tmp_path):
    """Braces in a problem are text; a file without a placeholder, and one that is not there, are refused."""
    file = tmp_path / "q.txt"
    file.write_text("{problem} | {steps} | {number} | {correct} | {incorrect}")
    asked = Verification(prompt=file, verdict="So:", correct="true", incorrect="false")
    assert (
        asked.question("{steps} ", ["a", "b"], critique=True)
        == "{steps} | Step 1: a\nStep 2: b | 2 | So: true | So: false"
    )
    assert asked.question("p", ["a\nb", "c"], critique=False).startswith("p | Step 1: a\nb\n\nStep 2: c | ")
    file.write_text("{problem}")
    for path, reason in ((file, r"has no placeholder \{steps\}"), (tmp_path / "none", "No such file")):
        with pytest.raises(InputError, match=reason):
            Verification(prompt=path)


def test_long_questions_have_no_score():
    engine = Critic()
    scorer = scorer_of(engine, 1, max_length=100)
    assert scored(scorer, solution(0, ["a"]), solution(1, ["a " * 60])) == [[0.75], []]
    assert len(engine.asked) == 1
