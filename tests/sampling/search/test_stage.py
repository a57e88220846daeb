"""The search stage: the same records whatever disturbs it, nothing asked for twice, and clear errors."""

import contextlib
import json
import random
from collections import Counter

import pytest

from sampling.engines import SamplingOptions, TransformersEngine
from sampling.scorers import ExportedVerifier
from sampling.search import DVTS, MCTS, BeamSearch, BestOfN, Expansion, ParticleFiltering, SearchResult, Values
from sampling.stages.generate import generate
from sampling.stages.search import search
from stepverify.jsonl import read_records
from stepverify.readers import Synthetic
from stepverify.records import InputError, Solution
from stepverify.template import Template
from tests.helpers.labels import TEMPLATE
from tests.helpers.searches import Lawful, Valued, problems, searched


def lines(folder, kind):
    """Records by key, without what the clock says."""
    found = {}
    for record in read_records(folder, kind):
        if kind is SearchResult:
            record.seconds = 0.0
        found[getattr(record, "id", None) or record.problem_id] = record
    return found


def everything(folder):
    kinds = (
        (folder, Solution),
        (folder / "results", SearchResult),
        (folder / "expansions", Expansion),
        (folder / "values", Values),
    )
    return [lines(*pair) for pair in kinds]


SLOW = [BestOfN(4), ParticleFiltering(4)]  # two ways to ask stay fast: many nodes at once, and one after the other


@pytest.mark.parametrize(
    "strategy",
    [BeamSearch(8, 4), MCTS(6, 2), *(pytest.param(s, marks=pytest.mark.slow) for s in SLOW)],
    ids=lambda s: type(s).__name__,
)
def test_interrupted_ten_times_is_undisturbed(tmp_path, strategy):
    """Ended after some more requests, again and again: the same records, and what has come is not asked for again."""
    engine, scorer = Lawful(), Valued()
    searched(tmp_path / "whole", strategy, 8, engine, scorer)
    asked, rng = Counter(), random.Random(1)
    for _ in range(10):
        broken = Lawful(fails_after=rng.randint(1, max(2, len(engine.asked) // 6)))
        with contextlib.suppress(KeyboardInterrupt):
            searched(tmp_path / "out", strategy, 8, broken)
        asked.update(request.key for request in broken.asked)
    last = Lawful()
    searched(tmp_path / "out", strategy, 8, last)
    asked.update(request.key for request in last.asked)
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")
    assert asked.total() == len(engine.asked)


@pytest.mark.parametrize(
    "strategy", [BeamSearch(8, 4), ParticleFiltering(8), MCTS(6, 2)], ids=lambda s: type(s).__name__
)
def test_records_do_not_depend_on_concurrency(tmp_path, strategy):
    for window in (1, 50):
        searched(tmp_path / str(window), strategy, 8, max_problems=window)
    assert everything(tmp_path / "1") == everything(tmp_path / "50")


def test_a_verifier_reads_new_steps_only(process, tmp_path):
    """A real one, one problem at a time: it reads the tokens that costs count, and computes no more than these.

    It computes fewer: costs count whole steps, of which two may begin with the same token.
    """
    verifier = ExportedVerifier(process, device="cpu")
    searched(tmp_path / "out", BeamSearch(4, 2), 4, scorer=verifier, max_problems=1)
    summary = json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]
    computed, cached = summary["cost"]["verifier_tokens"], summary["cost"]["cached_verifier_tokens"]
    assert summary["verifier_tokens_this_run"] == computed + cached
    assert computed + cached - summary["cached_verifier_tokens_this_run"] <= computed < cached


def test_an_engine_reads_what_costs_count(tiny_model_dir, tmp_path, capsys):
    """With its prefix cache: each prompt once, and the last token before each further request, of which one or two are
    for steps that go on after an empty line. Without room for it the difference is said."""
    given, shortest = Synthetic("test", 3, worked=False), Valued(lambda steps: 1 / (1 + len("".join(steps))))
    template = Template(prompt="{problem}\n", step_tag="<step>")
    for gib in (1, 1e-6):
        engine = TransformersEngine(str(tiny_model_dir), device="cpu", prefix_cache_gib=gib)
        options = SamplingOptions(temperature=1.0, max_tokens=40)
        search(engine, given, shortest, tmp_path / str(gib), BeamSearch(4, 2), template=template, sampling=options)
        summary = json.loads((tmp_path / str(gib) / "manifest.json").read_text())["summary"]
        counted = summary["cost"]["prompt_tokens"] + summary["cost"]["engine_calls"] - 3
        computed = summary["prompt_tokens_this_run"] - summary["cached_tokens_this_run"]
        said = [line for line in capsys.readouterr().out.splitlines() if "tokens were read by the engine" in line]
        assert counted <= computed <= counted + 2 if gib == 1 else computed > 2 * counted
        assert len(said) == (gib != 1)
    assert everything(tmp_path / "1") == everything(tmp_path / "1e-06")


def test_problems_are_not_searched_in_lockstep(tmp_path):
    """Two are open at the same time; a problem is finished, and the third begun, before the other one has ended."""
    engine = Lawful()
    searched(tmp_path / "out", BeamSearch(4, 2), 4, engine, max_problems=2)
    order = [request.key.partition("@")[0] for request in engine.asked]
    first = {problem: order.index(problem) for problem in order}
    last = {problem: len(order) - order[::-1].index(problem) for problem in order}
    assert first["p/2"] < max(last["p/0"], last["p/1"]) or last["p/0"] != last["p/1"]
    assert all(sum(first[p] <= i < last[p] for p in first) <= 2 for i in range(len(order)))


def test_another_budget_reuses_what_is_there(tmp_path):
    """Of the 8 first steps of the larger search 4 are those of the smaller one: they are neither sampled nor scored
    again. Values of another verifier are not taken over, what was sampled is."""
    searched(tmp_path / "small", BeamSearch(4, 2), 6)
    runs = {}
    for name, options in (("alone", {}), ("fed", {"reuse_from": [tmp_path / "small"]})):
        runs[name] = Lawful(), Valued()
        searched(tmp_path / name, BeamSearch(8, 4), 6, *runs[name], **options)
    assert everything(tmp_path / "fed") == everything(tmp_path / "alone")
    asked = {name: sum(r.n for r in engine.asked) for name, (engine, _) in runs.items()}
    read = {name: len(scorer.read) for name, (_, scorer) in runs.items()}
    assert asked["fed"] <= asked["alone"] - 6 * 4
    assert read["fed"] <= read["alone"] - 6 * 4
    other = Valued(lambda s: 0.5, name="other")
    searched(tmp_path / "other", BeamSearch(4, 2), 6, engine := Lawful(), other, reuse_from=[tmp_path / "small"])
    assert len(other.read) == sum(1 for _ in read_records(tmp_path / "other" / "values", Values))
    assert min(r.n for r in engine.asked) >= 1


def test_reuse_of_another_law_is_refused(tmp_path):
    searched(tmp_path / "small", BeamSearch(4, 2), 2)
    with pytest.raises(InputError, match=r"small/expansions was sampled with seed = 0, this run has 1"):
        searched(tmp_path / "out", BeamSearch(4, 2), 2, reuse_from=[tmp_path / "small"], seed=1)


def test_best_of_n_has_the_samples_of_generate(tmp_path):
    sampling = SamplingOptions(max_tokens=100)
    generate(Lawful(), problems(3), tmp_path / "samples", num_samples=4, sampling=sampling, template=TEMPLATE)
    results, solutions = searched(tmp_path / "out", BestOfN(4), 3, sampling=sampling)
    texts = [
        [s.text for s in read_records(tmp_path / "samples", Solution) if s.problem_id == f"p/{i}"] for i in range(3)
    ]
    assert [[s.text for s in solutions[f"p/{i}"]] for i in range(3)] == texts
    assert results["p/0"].sizes == [1, 2, 4]


def test_results_hold_every_rule(tmp_path):
    """Solutions are graded and scored; the choices are ids of them; accuracy follows from the choices."""
    results, solutions = searched(tmp_path / "out", BeamSearch(8, 4), 6)
    for problem, result in results.items():
        mine = {s.id: s for s in solutions[problem]}
        assert result.num_finished == len(mine)
        chosen = mine[result.choices["prm/best_of_n"]]
        assert chosen.scores["prm"][-1] == max(s.scores["prm"][-1] for s in mine.values())
        assert result.curves["prm/best_of_n"] == [float(chosen.correct)]
        assert {"majority", "prm/weighted_vote", "oracle"} <= result.choices.keys()
    summary = json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]
    accuracy = sum(r.curves["prm/best_of_n"][0] for r in results.values()) / 6
    assert summary["accuracy"]["prm/best_of_n"] == pytest.approx(accuracy)
    assert summary["cost"]["generated_tokens"] == sum(r.cost.generated_tokens for r in results.values())


def test_problems_without_answers_are_searched_all_the_same(tmp_path):
    given = problems(2, answer=None)
    search(Lawful(), given, Valued(), tmp_path / "out", DVTS(4, 2), template=TEMPLATE)
    found = lines(tmp_path / "out" / "results", SearchResult)
    assert all(not r.curves and r.choices["prm/best_of_n"] for r in found.values())


def test_nothing_finished_is_counted_as_incorrect(tmp_path, capsys):
    """A limit of 2 tokens cuts every solution off: none is chosen, none votes, and it is said."""
    results, solutions = searched(tmp_path / "out", BeamSearch(4, 2), 2, sampling=SamplingOptions(max_tokens=2))
    assert all(r.num_finished == 0 and set(r.choices.values()) == {None} for r in results.values())
    assert all(curve == [0.0] for r in results.values() for curve in r.curves.values())
    assert {s.finish for group in solutions.values() for s in group} == {"length"}
    assert "2 problems without a finished solution: they count as incorrect" in capsys.readouterr().out


class Short(Lawful):
    async def complete(self, request, options):
        return (await super().complete(request, options))[:-1]


def outcome():
    scorer = Valued()
    scorer.objective = "outcome"
    return scorer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_depth": 0}, "max_depth: expected >= 1, got 0"),
        ({"max_tokens": 0}, "max_tokens: expected >= 1, got 0"),
        ({"scorer": outcome()}, "BeamSearch needs the values of steps, and verifier prm is an outcome verifier"),
        ({"engine": Short()}, "4 completions were asked for, the engine returned 3"),
        ({"template": Template(prompt="Q{problem}\n", step_separator={"regex": "\n(?=x)"})}, "cannot be stopped at"),
        ({"few_shot": problems(1)}, "few_shot: example p/0 is also one of the problems"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_clear_line(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        searched(tmp_path / "out", BeamSearch(4, 2), 2, **change)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() or change.keys() & {"engine", "template"}


def test_an_outcome_verifier_guides_best_of_n(tmp_path):
    results, _ = searched(tmp_path / "out", BestOfN(2), 2, scorer=outcome())
    assert len(results) == 2


def test_other_steps_than_the_verifier_was_trained_on_are_refused(tmp_path):
    Template(prompt="{problem}", step_separator="\n\n").save(tmp_path, objective="process")
    scorer = Valued()
    scorer.export = str(tmp_path)
    with pytest.raises(InputError, match=r"verifier prm: was trained on steps that end with '\\n\\n'"):
        searched(tmp_path / "out", BeamSearch(4, 2), 2, scorer=scorer)
