"""Rollouts through an engine: strategies, reuse, budgets, what is kept, and that interruptions change nothing."""

import asyncio
import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from sampling.engines import Completion, SamplingOptions
from sampling.labelling import BinarySearch, Budget, EarlyStop, Exhaustive, Rollouts
from sampling.labelling.base import Stage
from sampling.stages.label import label
from stepverify.jsonl import read_records
from stepverify.records import InputError, Problem, Rollout, Solution, StepLabel
from tests.helpers.problems import Given
from tests.helpers.walks import LENGTH, TEMPLATE, Walk, run, samples, summary


def hard(labels):
    return {
        name: [x and (x.rating or (1 if x.num_correct else -1)) for x in found] for name, found in labels.items()
    }  # fmt: skip


# ── strategies ────────────────────────────────────────────────────────────────────────────────────


def test_early_stop_gives_the_labels_of_exhaustive_for_less(tmp_path):
    source = samples(tmp_path)
    whole, _ = run(source, tmp_path / "a", Exhaustive(8))
    early, _ = run(source, tmp_path / "b", EarlyStop(max_rollouts=8, round_size=1))
    assert hard(early) == hard(whole)
    assert summary(tmp_path / "b")["rollout_tokens"] < summary(tmp_path / "a")["rollout_tokens"] / 2
    assert summary(tmp_path / "b")["prefixes_completed"] == summary(tmp_path / "a")["prefixes_completed"]
    # What early stopping drew is what exhaustive drew first.
    first = {(r.problem_id, *r.steps): r.completions for r in read_records(tmp_path / "a" / "rollouts", Rollout)}
    for r in read_records(tmp_path / "b" / "rollouts", Rollout):
        at = int(r.id.rpartition("+")[2])
        assert r.completions == first[r.problem_id, *r.steps][at : at + len(r.completions)]


def test_binary_search_needs_least(tmp_path):
    """Three zeros make a solution incorrect for good: the first error is the third zero, whatever follows."""
    source = samples(tmp_path)
    found, _ = run(source, tmp_path / "a", BinarySearch(num_rollouts=16, round_size=4))
    run(source, tmp_path / "b", EarlyStop(max_rollouts=16, round_size=4))
    assert summary(tmp_path / "a")["rollouts"] < summary(tmp_path / "b")["rollouts"]
    for s in read_records(source, Solution):
        zeros = [s.steps[: i + 1].count("0") for i in range(LENGTH)]
        assert hard(found)[s.id] == [*(1 if z <= 2 else -1 for z in zeros), 1 if zeros[-1] <= 2 else -1]


# ── reuse ─────────────────────────────────────────────────────────────────────────────────────────


def test_samples_and_passing_completions_are_counted(tmp_path):
    """With 8 samples, prefixes that 8 pass through need nothing more; the others are filled up to 8 at least."""
    source = samples(tmp_path)
    plain, _ = run(source, tmp_path / "a", Exhaustive(8))
    saved, _ = run(source, tmp_path / "b", Exhaustive(8), reuse_samples=True, reuse_rollouts=True)
    assert summary(tmp_path / "b")["rollouts"] < 0.6 * summary(tmp_path / "a")["rollouts"]
    by_prefix = {}
    sampled = list(read_records(source, Solution))
    for s in sampled:
        for i in range(LENGTH):
            label_ = saved[s.id][i]
            assert by_prefix.setdefault((s.problem_id, *s.steps[: i + 1]), label_) == label_
            assert label_.num_rollouts >= 8
    # By hand: own draws, samples that pass, and the records of shorter prefixes that pass.
    records = list(read_records(tmp_path / "b" / "rollouts", Rollout))
    correct_of = {s.id: "".join(s.steps[:LENGTH]).count("0") <= 2 for s in sampled}
    for (problem, *steps), found in by_prefix.items():
        ends = [correct_of[s.id] for s in sampled if s.problem_id == problem and s.steps[: len(steps)] == steps]
        for r in records:
            if r.problem_id == problem and r.steps == steps[: len(r.steps)]:
                paths = [[*r.steps, *text.split("\n")] for text in r.completions]
                ends += [ok for path, ok in zip(paths, r.correct, strict=True) if path[: len(steps)] == steps]
        assert found == StepLabel(num_correct=sum(ends), num_rollouts=len(ends))
    values = [x.num_correct / x.num_rollouts for labels in saved.values() for x in labels[:LENGTH]]
    others = [x.num_correct / x.num_rollouts for labels in plain.values() for x in labels[:LENGTH]]
    assert abs(sum(values) - sum(others)) / len(values) < 0.08


def test_a_cut_off_completion_passes_through_whole_steps_only(tmp_path):
    """Of ``1`` it draws ``1``, ``1`` and is cut off: the second might have become ``10``."""

    class Cut(Walk):
        def _draw(self, steps, seed):
            return Completion([1, 2], "1\n1", "length")

    (tmp_path / "in.jsonl").write_text("")
    solution = Solution(
        id="p/0#0", problem_id="p/0", problem="0", answer="5", steps=["1", "1", "1", "x"], finish="stop"
    )
    (tmp_path / "in.jsonl").write_text(json.dumps({
        "id": solution.id, "problem_id": "p/0", "problem": "0", "answer": "5", "steps": solution.steps, "finish": "stop",
    }))  # fmt: skip
    found, _ = run(tmp_path / "in.jsonl", tmp_path / "out", Exhaustive(2), Cut(), reuse_rollouts=True)
    assert [x.num_rollouts for x in found["p/0#0"][:3]] == [2, 2, 2]
    assert [r.steps for r in read_records(tmp_path / "out" / "rollouts", Rollout)] == [["1"], ["1", "1", "1"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": Walk(0.7)}, r"sampled with engine\.probability = 0\.6, rollouts with 0\.7"),
        ({"sampling": SamplingOptions(temperature=1.0)}, r"sampled with sampling\.temperature = 0\.7"),
        ({"few_shot": Given(Problem(id="shot", problem="1", answer="5", steps=["1"]))}, "other few-shot examples"),
    ],
)
def test_samples_of_another_law_are_no_completions(tmp_path, change, message):
    source = samples(tmp_path, 1)
    options = {"engine": Walk(), "strategy": Exhaustive(2), "template": TEMPLATE, "reuse_samples": True} | change
    with pytest.raises(InputError, match=message):
        label(source, tmp_path / "out", Rollouts(**options))


def test_reuse_knows_the_origin_through_a_label_stage_and_not_without_one(tmp_path):
    source = samples(tmp_path, 1)
    label(source, tmp_path / "graded")
    run(tmp_path / "graded", tmp_path / "out", Exhaustive(2), reuse_samples=True)
    (shard,) = source.glob("part-*.jsonl")
    with pytest.raises(InputError, match="no manifest of `sampling generate` says how"):
        run(shard, tmp_path / "other", Exhaustive(2), reuse_samples=True)


# ── budgets ───────────────────────────────────────────────────────────────────────────────────────


def test_a_budget_of_rollouts_goes_to_the_most_informative_prefixes(tmp_path):
    source = samples(tmp_path, problems=3)
    found, _ = run(source, tmp_path / "out", Exhaustive(8), budget=Budget(rollouts=20))
    records = list(read_records(tmp_path / "out" / "rollouts", Rollout))
    for problem in ("p/0", "p/1", "p/2"):
        mine = [r for r in records if r.problem_id == problem]
        assert sum(len(r.correct) for r in mine) == 20
        shared = Counter(
            tuple(s.steps[:n]) for s in read_records(source, Solution) if s.problem_id == problem for n in range(1, 6)
        )
        sampled = {tuple(r.steps) for r in mine}
        assert min(shared[p] for p in sampled) >= max(n for p, n in shared.items() if p not in sampled)
    assert any(x is None for labels in found.values() for x in labels)
    assert all(labels[-1].rating for labels in found.values())


def test_a_budget_of_tokens_ends_with_the_round(tmp_path):
    source = samples(tmp_path, problems=3)
    run(source, tmp_path / "out", EarlyStop(max_rollouts=64, threshold=0.5, round_size=1), budget=Budget(tokens=100))
    spent = Counter()
    for r in read_records(tmp_path / "out" / "rollouts", Rollout):
        spent[r.problem_id] += r.tokens
    assert all(100 <= tokens < 1000 for tokens in spent.values())


def test_no_time_left_ends_with_what_is_known(tmp_path):
    found, _ = run(samples(tmp_path, problems=200), tmp_path / "out", Exhaustive(8), budget=Budget(seconds=1e-9))
    assert len(found) == 1600
    assert all(labels[-1].rating for labels in found.values())
    with pytest.raises(InputError, match=r"budget\.seconds: expected above 0"):
        Budget(seconds=0.0)


# ── completions sampled before ──────────────────────────────────────────────────────────────────────


def test_what_another_strategy_drew_is_not_drawn_again(tmp_path):
    """Early stopping in twos, then eight of every prefix: the engine draws the difference, labels are those of eight."""
    source = samples(tmp_path)
    alone, _ = run(source, tmp_path / "alone", Exhaustive(8))
    run(source, tmp_path / "early", EarlyStop(max_rollouts=8, round_size=2))
    engine = Walk()
    after, _ = run(source, tmp_path / "after", Exhaustive(8), engine, reuse_from=[tmp_path / "early"])
    assert after == alone
    sampled, early = summary(tmp_path / "after"), summary(tmp_path / "early")
    assert sampled["rollouts"] == summary(tmp_path / "alone")["rollouts"]
    assert sampled["rollout_tokens"] == summary(tmp_path / "alone")["rollout_tokens"]
    assert sampled["rollouts_reused"] == early["rollouts"]
    assert engine.asked.total() == sampled["rollouts"] - early["rollouts"] > 0


def test_bisection_after_early_stopping_asks_the_engine_nothing(tmp_path):
    """It tries some of the same prefixes in the same rounds; only these count as sampled for it."""
    source = samples(tmp_path)
    strategy = BinarySearch(num_rollouts=8, round_size=2)
    alone, _ = run(source, tmp_path / "alone", strategy)
    run(source, tmp_path / "early", EarlyStop(max_rollouts=8, round_size=2))
    engine = Walk()
    after, _ = run(source, tmp_path / "after", strategy, engine, reuse_from=[tmp_path / "early"])
    assert after == alone
    assert not engine.asked
    sampled = summary(tmp_path / "after")
    assert sampled["rollouts_reused"] == sampled["rollouts"] == summary(tmp_path / "alone")["rollouts"]


def test_completions_drawn_more_at_a_time_than_asked_for_are_not_taken(tmp_path):
    source = samples(tmp_path)
    run(source, tmp_path / "eight", Exhaustive(8))
    alone, _ = run(source, tmp_path / "alone", EarlyStop(max_rollouts=8, round_size=2))
    engine = Walk()
    after, _ = run(
        source, tmp_path / "after", EarlyStop(max_rollouts=8, round_size=2), engine, reuse_from=[tmp_path / "eight"]
    )
    assert after == alone
    assert engine.asked.total() == summary(tmp_path / "after")["rollouts"]
    assert "rollouts_reused" not in summary(tmp_path / "after")


def test_completions_of_another_law_are_refused(tmp_path):
    source = samples(tmp_path)
    run(source, tmp_path / "early", EarlyStop())
    with pytest.raises(InputError, match=r"reuse_from: .*early/rollouts was sampled with seed = 0, this run has 1"):
        run(source, tmp_path / "after", Exhaustive(8), seed=1, reuse_from=[tmp_path / "early"])
    with pytest.raises(InputError, match=r"reuse_from: .*sampled/rollouts: not the output of stage rollouts"):
        run(source, tmp_path / "other", Exhaustive(8), reuse_from=[tmp_path / "sampled"])


# ── throughput ────────────────────────────────────────────────────────────────────────────────────


def test_the_engine_samples_on_while_answers_are_graded(tmp_path, monkeypatch):
    """The first answers are held back until the engine was asked for all that is known to be wanted."""
    held, graded = threading.Event(), Stage.grade

    async def slow(stage, pairs):
        assert await asyncio.to_thread(held.wait, 20)
        return await graded(stage, pairs)

    monkeypatch.setattr(Stage, "grade", slow)
    source = samples(tmp_path, problems=1, number=3)  # fewer prefixes than may wait
    prefixes = {(s.problem_id, *s.steps[: i + 1]) for s in read_records(source, Solution) for i in range(LENGTH)}

    class Watched(Walk):
        async def complete(self, request, options):
            completions = await super().complete(request, options)
            if self.asked.total() == 2 * len(prefixes):
                held.set()
            return completions

    run(source, tmp_path / "out", Exhaustive(2), engine := Watched())
    assert engine.asked.total() == 2 * len(prefixes)


def test_what_is_kept_of_a_completion(tmp_path):
    run(samples(tmp_path, 1, 1), Path(tmp_path / "out"), Exhaustive(2))
    (first, *_) = read_records(tmp_path / "out" / "rollouts", Rollout)
    assert first.problem_id == "p/0"
    assert first.id.endswith("+0")
    assert [len(x) for x in (first.completions, first.finish, first.answers, first.correct)] == [2] * 4
    assert first.tokens == sum(map(len, first.completions))
    assert [a == "5" for a in first.answers] == first.correct
    again = Walk()._draw(first.steps, first.seed + 1)
    assert first.completions[1] == again.text
