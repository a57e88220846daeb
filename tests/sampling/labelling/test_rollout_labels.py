"""Step labels by rollouts over distinct prefixes, by the label stage."""

import asyncio
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.engines import SamplingOptions
from sampling.labelling import Exhaustive, Rollouts
from sampling.labelling.step_tree import build
from sampling.runtime.scheduler import PriorityLimit
from sampling.runtime.seeds import derive_seed
from sampling.stages.label import label
from stepverify.jsonl import read_records
from stepverify.records import InputError, Solution
from stepverify.template import Template
from tests.helpers.labels import RIGHT, TEMPLATE, WRONG, KnownRollouts, counted, labelled, solution
from tests.helpers.problems import Given, problem

# ── the trie ──────────────────────────────────────────────────────────────────────────────────────


def test_prefixes_by_hand():
    """a → b → c, a → b, a → d: five paths in all with a and a, b shared, a parent before its children."""
    root = build([("x", ["a", "b", "c"]), ("y", ["a", "b"]), ("z", ["a", "d"]), ("none", [])])
    assert [n.steps() for n in root.nodes()] == [("a",), ("a", "b"), ("a", "b", "c"), ("a", "d")]
    assert root.solutions == ["x", "y", "z", "none"]
    assert root.children["a"].children["b"].solutions == ["x", "y"]


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=5), max_size=8))
def test_prefixes_are_the_distinct_ones_parents_first(paths):
    found = [n.steps() for n in build((str(i), path) for i, path in enumerate(paths)).nodes()]
    assert len(found) == len(set(found))
    assert set(found) == {tuple(path[:end]) for path in paths for end in range(1, len(path) + 1)}
    assert all(prefix[:-1] in found[:at] for at, prefix in enumerate(found) if len(prefix) > 1)


# ── rollouts ──────────────────────────────────────────────────────────────────────────────────────


def test_the_prefixes_of_problems_take_turns(tmp_path, monkeypatch):
    """p/0 has the prefixes a and ab, p/1 c only, p/2 d, de and def: first prefixes first, so longer ones hit the cache.

    One at a time; the first comes back when all six wait.
    """
    waiting, hold, everybody = [], PriorityLimit.hold, asyncio.Event()

    def watched(limit, amount, key):
        waiting.append(key)
        if len(waiting) == 6:
            everybody.set()
        return hold(limit, amount, key)

    class OneAtATime(KnownRollouts):
        capacity = 1

        async def complete(self, request, options):
            await asyncio.wait_for(everybody.wait(), 20)
            return await super().complete(request, options)

    monkeypatch.setattr(PriorityLimit, "hold", watched)
    engine = OneAtATime({})
    paths = {"p/0": ["a", "b", "#### 5"], "p/1": ["c", "#### 5"], "p/2": ["d", "e", "f", "#### 5"]}
    labelled(
        tmp_path,
        [solution(0, steps, name) for name, steps in paths.items()],
        Rollouts(engine, Exhaustive(1), template=TEMPLATE),
    )
    asked = ["".join(path.splitlines()[1:]) for path, _, _ in engine.asked]
    assert asked == ["a", "c", "d", "ab", "de", "def"]


def test_rollouts_by_hand(tmp_path):
    """Four solutions of one problem; A is shared by three of them, A B by two.

    Rolled: A (3 of 4 correct), A B (0 of 4: one incorrect, one without an answer, one cut off, one incorrect), A B C (4 of 4),
    A D (2 of 4), E (1 of 4). The last step of a solution that ended by itself is labelled by its grade; one that
    was cut off (E) has no such step, so its last one is rolled too.
    """
    engine = KnownRollouts({
        "A": ["go\n#### 5", "#### 5.0", "#### 5", "#### 7"],
        "B": ["#### 6", "who knows", "#### 5…", "#### 7"],
        "C": ["#### 5"],
        "D": ["#### 5", "#### 4"],
        "E": ["#### 5", "x", "y", "z"],
    })  # fmt: skip
    found = labelled(
        tmp_path,
        [
            solution(0, ["A", "B", "C", "#### 5"]),
            solution(1, ["A", "B", "#### 6"]),
            solution(2, ["A", "D", "the end"]),
            solution(3, ["E"], finish="length"),
        ],
        Rollouts(engine, strategy=Exhaustive(4), template=TEMPLATE),
    )
    a, b = counted(3, 4), counted(0, 4)
    assert [found[f"p/0#{i}"].step_labels for i in range(4)] == [
        [a, b, counted(4, 4), RIGHT],
        [a, b, WRONG],
        [a, counted(2, 4), WRONG],
        [counted(1, 4)],
    ]
    # Each distinct prefix once, as the prompt and the steps so far, with a seed of its own; shared ones first.
    problem = "Qof p/0\n"
    assert [path for path, _, _ in engine.asked] == [
        f"{problem}A\n", f"{problem}A\nB\n", f"{problem}E\n", f"{problem}A\nD\n", f"{problem}A\nB\nC\n",
    ]  # fmt: skip
    assert {n for _, n, _ in engine.asked} == {4}
    assert engine.asked[1][2] == derive_seed(0, "p/0", "A", "B")
    assert len({seed for _, _, seed in engine.asked}) == 5
    summary = json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]
    # Labels are counted with every solution, 8 counted and 3 graded ones; completions once.
    expected = {"labelled_steps": 11, "prefixes_completed": 5, "rollouts": 5 * 4, "correct_rollouts": 3 + 0 + 4 + 2 + 1}
    assert {key: summary[key] for key in expected} == expected
    assert summary["tokens_this_run"] == 5 * 4 * 3


def test_a_rollout_is_judged_together_with_its_prefix(tmp_path):
    """The prefix states the answer and every rollout ends at once: as solutions they are correct."""
    engine = KnownRollouts({"#### 5": [""], "check: 5": ["#### 6", ""]})
    found = labelled(
        tmp_path,
        [solution(0, ["A", "#### 5", "check: 5", "done"])],
        Rollouts(engine, strategy=Exhaustive(2), template=TEMPLATE),
    )
    assert found["p/0#0"].step_labels == [counted(0, 2), counted(2, 2), counted(1, 2), RIGHT]


def test_problems_are_apart_and_those_without_a_prefix_need_no_rollout(tmp_path):
    """p/1 has single-step solutions, p/2 an empty one, p/3 shares the text of its step with p/0."""
    engine = KnownRollouts({"A": ["#### 5"]})
    found = labelled(
        tmp_path,
        [
            solution(0, ["#### 5"], "p/1"),
            solution(0, ["A", "#### 5"], "p/0"),
            solution(1, ["#### 4"], "p/1"),
            solution(0, [], "p/2"),
            solution(0, ["A", "x"], "p/3", answer="6"),
            solution(1, [], "p/2", finish="length"),
        ],
        Rollouts(engine, strategy=Exhaustive(3), template=TEMPLATE),
    )
    assert {key: s.step_labels for key, s in found.items()} == {
        "p/1#0": [RIGHT], "p/1#1": [WRONG], "p/0#0": [counted(3, 3), RIGHT], "p/2#0": [], "p/2#1": [],
        "p/3#0": [counted(0, 3), WRONG],
    }  # fmt: skip
    assert [path for path, _, _ in engine.asked] == ["Qof p/0\nA\n", "Qof p/3\nA\n"]
    assert len({seed for _, _, seed in engine.asked}) == 2


def test_max_solutions_labels_the_first_ones_only(tmp_path):
    """With two a problem: B of the third solution of p/0 is never rolled, nor is the third of p/1 labelled."""
    engine = KnownRollouts({})
    solutions = [solution(i, [step, "#### 1"]) for i, step in enumerate("AAB")]
    solutions += [solution(i, ["#### 5"], "p/1") for i in range(3)]
    found = labelled(tmp_path, solutions, Rollouts(engine, strategy=Exhaustive(1), template=TEMPLATE, max_solutions=2))
    assert [path for path, _, _ in engine.asked] == ["Qof p/0\nA\n"]
    assert {key: s.step_labels for key, s in found.items()} == {
        "p/0#0": [counted(0, 1), WRONG], "p/0#1": [counted(0, 1), WRONG], "p/0#2": None,
        "p/1#0": [RIGHT], "p/1#1": [RIGHT], "p/1#2": None,
    }  # fmt: skip
    assert [s.correct for s in found.values()].count(True) == 3


@pytest.mark.parametrize(("key", "value"), [("max_solutions", 0), ("max_solutions", -1)])
def test_bad_counts(key, value):
    with pytest.raises(InputError, match=f"{key}: expected >= 1.*, got {value}"):
        Rollouts(KnownRollouts({}), template=TEMPLATE, **{key: value})


@given(st.lists(st.tuples(st.lists(st.sampled_from("abc"), max_size=4), st.booleans()), min_size=1, max_size=6))
@settings(deadline=None, max_examples=25)
def test_every_distinct_prefix_is_asked_once_and_every_step_is_labelled(tmp_path_factory, sampled):
    solutions = [solution(i, path, finish="length" if cut else "stop") for i, (path, cut) in enumerate(sampled)]
    engine = KnownRollouts({"a": ["#### 5"], "b": ["#### 5", "#### 4"], "c": ["none"]})
    found = labelled(
        tmp_path_factory.mktemp("law"), solutions, Rollouts(engine, strategy=Exhaustive(2), template=TEMPLATE)
    )
    rolled = {tuple(path[: len(path) - (not cut)][:end]) for path, cut in sampled for end in range(1, len(path) + 1)}
    asked = Counter(path for path, _, _ in engine.asked)
    assert asked == Counter("Qof p/0\n" + "".join(f"{step}\n" for step in prefix) for prefix in rolled - {()})
    correct = {"a": 2, "b": 1, "c": 0}
    for s, (path, cut) in zip(found.values(), sampled, strict=True):
        by_rollouts = path if cut else path[:-1]
        expected = [counted(correct[step], 2) for step in by_rollouts] + [WRONG] * (len(path) - len(by_rollouts))
        assert s.step_labels == expected


def test_few_shot_examples_stand_in_front_of_every_prefix(tmp_path):
    shots = Given(problem(9, steps=["9 is 9"]))
    engine = KnownRollouts({})
    labelled(tmp_path, [solution(0, ["A", "#### 5"])], Rollouts(engine, template=TEMPLATE, few_shot=shots))
    assert [path for path, _, _ in engine.asked] == ["QWhat is 9?\n9 is 9\n\nQof p/0\nA\n"]
    with pytest.raises(InputError, match=r"was made with config\.steps\.few_shot"):
        label(tmp_path / "in.jsonl", tmp_path / "out", Rollouts(engine, template=TEMPLATE))


@pytest.mark.parametrize(
    "changed", [{"strategy": Exhaustive(3)}, {"seed": 1}, {"max_solutions": 9}, {"template": Template()}]
)
def test_another_labeller_is_refused_by_name(tmp_path, changed):
    settled = {"strategy": Exhaustive(2), "template": TEMPLATE}
    labelled(tmp_path, [solution(0, ["A", "#### 5"])], Rollouts(KnownRollouts({}), **settled))
    with pytest.raises(InputError, match=rf"was made with config\.steps\.{next(iter(changed))}"):
        label(tmp_path / "in.jsonl", tmp_path / "out", Rollouts(KnownRollouts({}), **settled | changed))


def test_resume_asks_for_what_is_not_on_record(tmp_path):
    """A kill left 3 of 6 lines and a torn one, and the completions of p/0 and p/1: those of p/2 are sampled again."""
    solutions = [solution(i, ["A", f"#### {5 + i}"], p) for p in ("p/0", "p/1", "p/2") for i in range(2)]
    steps = Rollouts(KnownRollouts({"A": ["#### 5", "#### 6"]}), strategy=Exhaustive(4), template=TEMPLATE)
    whole = labelled(tmp_path, solutions, steps)
    for folder, kept in (
        (tmp_path / "out", ("p/0#0", "p/0#1", "p/1#0")),
        (tmp_path / "out" / "rollouts", ("p/0@", "p/1@")),
    ):
        shard, manifest = folder / "part-00000.jsonl", folder / "manifest.json"
        lines = shard.read_text().splitlines(keepends=True)  # in the order in which they were graded
        shard.write_text(
            "".join(x for x in lines if x.startswith(tuple(f'{{"id":"{k}' for k in kept))) + '{"id": "torn'
        )
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": False, "summary": {}}))
    again = Rollouts(KnownRollouts({"A": ["#### 5", "#### 6"]}), strategy=Exhaustive(4), template=TEMPLATE)
    label(tmp_path / "in.jsonl", tmp_path / "out", again)
    assert [path for path, _, _ in again.engine.asked] == ["Qof p/2\nA\n"]
    found = list(read_records(tmp_path / "out", Solution))
    assert len(found) == 6
    assert {s.id: s for s in found} == whole
    summary = json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]
    assert {key: summary[key] for key in ("prefixes_completed", "rollouts", "correct_rollouts")} == {
        "prefixes_completed": 3, "rollouts": 12, "correct_rollouts": 6,
    }  # fmt: skip


# ── killed ────────────────────────────────────────────────────────────────────────────────────────


def test_sampling_options_reach_the_engine(tmp_path):
    class Spy(KnownRollouts):
        async def complete(self, request, options):
            self.options = options
            return await super().complete(request, options)

    engine, options = Spy({}), SamplingOptions(temperature=0.2, max_tokens=5)
    labelled(tmp_path, [solution(0, ["A", "B"])], Rollouts(engine, sampling=options, template=TEMPLATE))
    assert engine.options == options
    assert engine.asked[0][1] == 8
