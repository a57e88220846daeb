"""A generative verifier in the stages: records with critiques, counts, kills, and searches with their costs."""

import asyncio
import contextlib
import json
import random
import re

import pytest

from sampling.scorers import GenerativeScorer, Scorer, run
from sampling.search import BeamSearch, BestOfN, SearchResult, Values
from sampling.stages.rank import rank
from sampling.stages.score import score
from stepverify.critique import Critique
from stepverify.data.encode import SolutionEncoder
from stepverify.jsonl import read_records, write_records
from stepverify.readers import Critiques, Solutions
from stepverify.records import InputError, Ranking, Solution
from stepverify.template import Template
from stepverify.verification import Verification
from tests.helpers.chats import chat_tokenizer
from tests.helpers.critics import PLAIN, Critic, probabilities
from tests.helpers.labels import solution
from tests.helpers.searches import Lawful, searched, value

LINES = [["2 + 3 = 5", "#### 5"], ["2 + 3 = 6", "#### 6"], ["?", "#### 7"], []]


def summary(folder):
    return json.loads((folder / "manifest.json").read_text())["summary"]


def says(question):
    """Two critiques; of the solution that begins with a question mark there is no verdict."""
    return ["Hm."] * 2 if "Step 1: ?" in question else ["Sound.\nVerdict: Yes", "Hm."]


def top(prompt):
    return probabilities(0.9, 0.1) if "= 5" in prompt else probabilities(0.2, 0.8)


def scorer_of(engine, **options):
    return GenerativeScorer(engine, **{"num_critiques": 2, "template": PLAIN} | options)


@pytest.fixture
def given(tmp_path):
    """Three problems with four solutions each: correct, incorrect, one without a verdict, and one without a step."""
    write_records(
        tmp_path / "in.jsonl",
        [
            solution(i, steps, f"p/{p}", predicted=steps[-1][5:] if steps else None, correct=i == 0)
            for p in range(3) for i, steps in enumerate(LINES)
        ],
    )  # fmt: skip
    return tmp_path / "in.jsonl"


def test_records_hold_scores_and_critiques(given, tmp_path, capsys):
    """Per problem 6 critiques, of which one of each judged solution has a verdict."""
    score(given, tmp_path / "o", {"genrm": scorer_of(Critic(says, top))})
    found = list(read_records(tmp_path / "o", Solution))
    assert [s.scores["genrm"] for s in found] == [[0.9], [0.2], [], []] * 3
    assert found[0].critiques == {"genrm": [Critique(text="Sound.", value=0.9), Critique(text="Hm.")]}
    assert found[2].critiques == {"genrm": [Critique(text="Hm.")] * 2}
    assert found[3].critiques == {}
    assert summary(tmp_path / "o")["critiques"] == {
        "genrm": {"critiques": 18, "without_verdict": 12, "forced_verdicts": 0}
    }
    said = capsys.readouterr().out
    assert "genrm: 6 solutions without a score (no step, or too long to be read, or no verdict); they rank last" in said
    assert "genrm: 18 critiques; 12 have no verdict, and count nowhere; the verdict of 0 was forced" in said
    rank(tmp_path / "o", tmp_path / "r")
    for ranking in read_records(tmp_path / "r", Ranking):
        assert ranking.choices["genrm/best_of_n"] == f"{ranking.problem_id}#0"
        assert ranking.auroc_by_rule["genrm/best_of_n"] == 1.0


def test_two_verifiers_and_an_earlier_one(given, tmp_path):
    """The critiques of each go with its scores, those of an earlier run stay."""
    score(given, tmp_path / "a", {"first": scorer_of(Critic(says, top))})
    verifiers: dict[str, Scorer] = {
        "direct": scorer_of(Critic(top=top), num_critiques=0), "second": scorer_of(Critic(says, top), seed=1),
    }  # fmt: skip
    score(tmp_path / "a", tmp_path / "b", verifiers)
    one = next(iter(read_records(tmp_path / "b", Solution)))
    assert one.scores == {"first": [0.9], "direct": [0.9], "second": [0.9]}
    assert {name: [c.text for c in written] for name, written in one.critiques.items()} == {
        "first": ["Sound.", "Hm."], "direct": [""], "second": ["Sound.", "Hm."],
    }  # fmt: skip


def test_a_killed_run_goes_on(given, tmp_path, monkeypatch):
    """One problem a chunk: killed in each, it asks again for that of the kill alone."""
    monkeypatch.setattr(run, "CHUNK", 1)
    monkeypatch.setattr(GenerativeScorer, "concurrency", 1)
    whole = Critic(says, top)
    score(given, tmp_path / "whole", {"genrm": scorer_of(whole)})
    asked = []
    for stop_after in (2, 7, None):
        engine = Critic(says, top, stop_after=stop_after)
        with contextlib.suppress(KeyboardInterrupt):
            score(given, tmp_path / "o", {"genrm": scorer_of(engine)})
        asked.append(len(engine.asked))
    assert list(read_records(tmp_path / "o", Solution)) == list(read_records(tmp_path / "whole", Solution))
    assert summary(tmp_path / "o")["critiques"] == summary(tmp_path / "whole")["critiques"]
    assert asked[2] == len(whole.asked) - 3, "the first problem was kept"


@pytest.mark.parametrize(
    "changed",
    [{"num_critiques": 3}, {"seed": 1}, {"force_verdict": True}, {"verification": Verification(verdict="So:")}],
)
def test_another_question_is_another_verifier(given, tmp_path, changed):
    score(given, tmp_path / "o", {"genrm": scorer_of(Critic(says, top))})
    with pytest.raises(InputError, match=r"was made with config\.verifiers\.genrm\."):
        score(given, tmp_path / "o", {"genrm": scorer_of(Critic(says, top), **changed)})


def test_weights_are_part_of_the_identity(tiny_model_dir, tmp_path):
    """A folder that was written by another training is another verifier."""
    engine = Critic()
    before = scorer_of(engine).identity()
    engine.model = str(tiny_model_dir)
    assert before["model"] is None
    assert re.fullmatch(r"[0-9a-f]{16}( [0-9a-f]{16})+", scorer_of(engine).identity()["model"])
    assert before["question"]["correct"] == "Verdict: Yes"
    assert json.loads(json.dumps(before)) == before


@pytest.mark.parametrize("template", [PLAIN, Template(chat=True)], ids=["plain", "chat"])
@pytest.mark.parametrize("teacher", [None, "teacher"])
def test_the_position_that_is_trained_is_the_one_that_is_read(teacher, template, tmp_path):
    """Of what the reader gives, the generator's loss is at the token before the word, after the ids that the scorer asks
    with: for a verifier that writes the critique it was trained on, and for one without critiques."""
    words = Verification(correct="Y", incorrect="N")
    written = {"teacher": [Critique(text="I add: 5.", value=0.9)]} if teacher else {}
    one = solution(0, LINES[0], correct=True, critiques=written)
    write_records(tmp_path / "in.jsonl", [one])
    (record,) = Critiques(Solutions(str(tmp_path / "in.jsonl")), teacher, verification=words).solutions()
    tokenizer = chat_tokenizer("chatml")
    example = SolutionEncoder(tokenizer, template, 4096).next_token(record)
    engine = Critic(lambda question: ["I add: 5.\nVerdict: Y"], lambda prompt: {"Y": -0.5}, tokenizer=lambda: tokenizer)
    scorer = scorer_of(engine, num_critiques=int(bool(teacher)), verification=words, template=template)

    async def scored():
        return await scorer.score([one])

    assert asyncio.run(scored()) == [[1.0]]
    read = engine.verdict_ids
    assert example.input_ids[: len(read)] == read
    at = example.positions.index(len(read) - 1)
    assert example.targets[at] == tokenizer.convert_tokens_to_ids("Y")


# ── searches ──────────────────────────────────────────────────────────────────────────────────────


def known(prompt):
    """The probability that the answer is 1 after the steps in a prompt, as the law of the generator has it."""
    steps = tuple(re.findall(r"^Step \d+: (.*)$", prompt, re.MULTILINE))
    return probabilities(max(1e-6, value(steps)), max(1e-6, 1 - value(steps)))


def of_steps(engine, target="steps"):
    return scorer_of(engine, num_critiques=1, verification=Verification(target=target))


def everything(folder):
    results = {r.problem_id: r for r in read_records(folder / "results", SearchResult)}
    for result in results.values():
        result.seconds = 0.0
    solutions = {s.id: s for s in read_records(folder, Solution)}
    return results, solutions, {v.id: v for v in read_records(folder / "values", Values)}


@pytest.mark.parametrize(
    ("strategy", "target"), [(BeamSearch(4, 2), "steps"), (BestOfN(4), "solutions")], ids=["beam", "best_of_n"]
)
def test_a_search_counts_what_the_verifier_read_and_sampled(strategy, target, tmp_path):
    """Each distinct prefix once: its question, and the critique of 5 tokens with the word."""
    critic = Critic(top=known)
    results, _ = searched(tmp_path / "o", strategy, 4, scorer=of_steps(critic, target))
    counted = sum(r.cost.verifier_tokens for r in results.values())
    assert counted == sum(len(critic.tokenizer.encode(question)) + 5 + 1 for question, _, _ in critic.asked)
    assert len({*critic.asked}) == len(critic.asked)
    assert all(r.cost.verifier_flops == 2.0 * 10 * r.cost.verifier_tokens for r in results.values())
    assert summary(tmp_path / "o")["critiques_this_run"] == len(critic.asked)


def test_an_interrupted_search_is_undisturbed(tmp_path):
    """Also its costs: the tokens of values from earlier runs are kept with them."""
    whole, rng = Critic(top=known), random.Random(1)
    searched(tmp_path / "whole", BeamSearch(4, 2), 4, scorer=of_steps(whole))
    for _ in range(6):
        critic = Critic(top=known, stop_after=rng.randint(1, len(whole.asked) // 2))
        with contextlib.suppress(KeyboardInterrupt):
            searched(tmp_path / "o", BeamSearch(4, 2), 4, Lawful(), of_steps(critic))
    searched(tmp_path / "o", BeamSearch(4, 2), 4, Lawful(), of_steps(Critic(top=known)))
    assert everything(tmp_path / "o") == everything(tmp_path / "whole")


def test_it_guides_steps_alone_where_it_judges_them(tmp_path):
    with pytest.raises(InputError, match="BeamSearch needs the values of steps, and verifier prm is an outcome"):
        searched(tmp_path / "o", BeamSearch(4, 2), 1, scorer=of_steps(Critic(), "solutions"))
