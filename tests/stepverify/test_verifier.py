"""The Python API: values by hand, prefixes, lists, the best of several candidates, incorrect input."""

import ast
import math
import re

import pytest

import stepverify
from sampling.stages.score import score
from stepverify import Verifier
from stepverify.jsonl import read_records, write_records
from stepverify.records import InputError, Solution
from tests.helpers.exports import EMPTY, LONG, SOLUTIONS, many, outcome_by_hand, process_by_hand, solution


@pytest.fixture(scope="module")
def orm(outcome):
    return Verifier.from_pretrained(outcome, device="cpu")


@pytest.fixture(scope="module")
def prm(process):
    return Verifier.from_pretrained(process, device="cpu")


def test_outcome_values_equal_a_hand_run(orm, outcome):
    """Six digits are kept."""
    found = orm.score_solutions(SOLUTIONS)
    for values, s in zip(found, SOLUTIONS, strict=True):
        assert values == pytest.approx(outcome_by_hand(outcome, s), abs=2e-6)
        assert all(value == round(value, 6) for value in values)
    assert len({value for values in found for value in values}) == len(SOLUTIONS)
    along = orm.score_solutions(SOLUTIONS, per_token=True)
    for values, s in zip(along, SOLUTIONS, strict=True):
        assert values == pytest.approx(outcome_by_hand(outcome, s, per_token=True), abs=2e-6)
        assert len(orm.token_texts(s)) == len(values)
    assert [values[-1:] for values in along] == found


def test_process_values_equal_a_hand_run(prm, process):
    found = prm.score_solutions(SOLUTIONS)
    assert [len(values) for values in found] == [2, 4, 1, 1, 3]
    for values, s in zip(found, SOLUTIONS, strict=True):
        assert values == pytest.approx(process_by_hand(process, s), abs=2e-6)
    # The same step after another prefix has another value.
    assert found[4][0] != found[4][1]


@pytest.mark.parametrize("pack_tokens", [1, 40])
def test_values_do_not_depend_on_batch_or_order(orm, prm, pack_tokens):
    for verifier in (orm, prm):
        whole = verifier.score_solutions(SOLUTIONS)
        other = Verifier.from_pretrained(verifier.path, device="cpu", pack_tokens=pack_tokens)
        parts = other.score_solutions(SOLUTIONS[::-1])[::-1]
        for values, again in zip(whole, parts, strict=True):
            assert again == pytest.approx(values, abs=2e-6)


def test_a_prefix_has_the_values_of_its_steps(prm):
    """Nothing after a step reaches its tag: of every prefix, the first values of the whole, to the bit if read together."""
    for s in many(5, 3) + SOLUTIONS:
        prefixes = [s.steps[:end] for end in range(1, len(s.steps) + 1)]
        *parts, whole = prm.score([s.problem] * (len(prefixes) + 1), [*prefixes, s.steps], complete=False)
        assert parts == [whole[: len(p)] for p in prefixes]
        assert prm.score(s.problem, s.steps) == pytest.approx(whole, abs=2e-6)
        assert prm.score(s.problem, prefixes[0], complete=False) == pytest.approx(whole[:1], abs=2e-6)


def test_a_prefix_of_an_outcome_verifier_is_read_at_its_last_token(orm, outcome):
    """One that ends after step k has the value at step k's last token of every solution that begins so."""
    s = SOLUTIONS[1]
    along = orm.score(s.problem, s.steps, per_token=True)
    texts = orm.token_texts(s)
    ends = [i for i, text in enumerate(texts) if text == "\n"]
    assert len(ends) == len(s.steps)
    for k, end in enumerate(ends, start=1):
        (value,) = orm.score(s.problem, s.steps[:k], complete=False)
        assert value == pytest.approx(along[end], abs=2e-6)
    assert orm.score(s.problem, s.steps) == pytest.approx(outcome_by_hand(outcome, s), abs=2e-6)
    assert orm.score(s.problem, s.steps) != orm.score(s.problem, s.steps, complete=False)


def test_values_are_those_of_the_stage(orm, prm, outcome, process, tmp_path):
    """To the last digit, for lists of problems in a chunk of their own."""
    given = [s for s in many(20, 5) if s.finish != "length"]
    write_records(tmp_path / "in.jsonl", given)
    score(tmp_path / "in.jsonl", tmp_path / "o", {"orm": outcome, "prm": process})
    problems, steps = [s.problem for s in given], [s.steps for s in given]
    for name, verifier in (("orm", orm), ("prm", prm)):
        assert verifier.score(problems, steps) == [s.scores[name] for s in read_records(tmp_path / "o", Solution)]


def test_what_cannot_be_read_whole_has_no_value(orm, prm):
    """It is longer than 40 tokens, or has no step; that is counted and said."""
    for verifier in (orm, prm):
        found = verifier.score_solutions([LONG, SOLUTIONS[0], EMPTY])
        assert found[0] == found[2] == []
        assert found[1] == pytest.approx(verifier.score_solutions(SOLUTIONS[:1])[0], abs=2e-6)
        assert verifier.score_solutions([EMPTY, LONG]) == [[], []]
        with pytest.warns(UserWarning, match="have no score") as said:
            assert verifier.score([s.problem for s in (LONG, EMPTY, LONG)], [LONG.steps, [], LONG.steps]) == [[]] * 3
        assert sorted(str(w.message) for w in said) == [
            "1 of 3 solutions have no score: without a step",
            "2 of 3 solutions have no score: longer than max_length = 40 tokens",
        ]


def test_best_of_takes_texts_and_steps(orm, prm, process):
    """An outcome verifier's last value; a process reward model's sum of logarithms, or what is asked for."""
    problem = SOLUTIONS[1].problem
    steps = [["b = 1 + 1 = 2", "#### 2"], ["b = 1 + 1 = 3", "c = 3", "#### 3"], ["#### 2"]]
    values = prm.score([problem] * 3, steps)
    index, scores = prm.best_of(problem, steps)
    assert scores == pytest.approx([sum(map(math.log, along)) for along in values])
    assert index == scores.index(max(scores))
    assert prm.best_of(problem, ["\n".join(own) + "\n" for own in steps]).scores == scores
    assert prm.best_of(problem, steps, aggregation="min").scores == [min(along) for along in values]
    assert orm.best_of(problem, steps).scores == [along[-1] for along in orm.score([problem] * 3, steps)]
    other = SOLUTIONS[0].problem
    pairs = prm.best_of([problem, other], [steps, steps[1:]], aggregation="last")
    assert [pair.scores for pair in pairs] == [
        pytest.approx([along[-1] for along in values], abs=2e-6),
        pytest.approx([along[-1] for along in prm.score([other] * 2, steps[1:])], abs=2e-6),
    ]
    with pytest.warns(UserWarning, match="1 of 2 solutions have no score"):
        assert prm.best_of(problem, [[], steps[0]]).index == 1


def test_incorrect_calls_and_exports_are_named(prm, tmp_path, base):
    with pytest.raises(InputError, match=r"template\.split\(text\) gives its steps"):
        prm.score("a ?", "b = 1")
    with pytest.raises(InputError, match="steps: expected a list for each of 2 problems, got 1"):
        prm.score(["a ?", "b ?"], [["b = 1"]])
    with pytest.raises(InputError, match="candidates: expected a list for each of 2 problems, got 1"):
        prm.best_of(["a ?", "b ?"], [["b = 1"]])
    with (
        pytest.warns(UserWarning, match="have no score"),
        pytest.raises(InputError, match=r"none of 1 has a score, of the problem 'a \?'"),
    ):
        prm.best_of("a ?", [""])
    with pytest.raises(InputError, match="none of 0 has a score"):
        prm.best_of("a ?", [])
    with pytest.raises(InputError, match="not an exported verifier"):
        Verifier.from_pretrained(base)
    with pytest.raises(InputError, match=r"no-one/nothing: no such folder, and it is not in the Hub's cache"):
        Verifier.from_pretrained("no-one/nothing")
    with pytest.raises(InputError, match="pack_tokens: expected 1 or more, got 0"):
        Verifier.from_pretrained(prm.path, device="cpu", pack_tokens=0)
    with pytest.raises(InputError, match=r"^device: gpu: "):
        Verifier.from_pretrained(prm.path, device="gpu")


def test_prefixes_of_what_learned_whole_solutions_are_warned_of(outcome, tmp_path):
    """An export that says ``per_token: false`` was never trained at the end of a prefix."""
    import json
    import shutil

    folder = shutil.copytree(outcome, tmp_path / "last")
    facts = json.loads((folder / "stepverify.json").read_text())
    (folder / "stepverify.json").write_text(json.dumps(facts | {"per_token": False}))
    verifier = Verifier.from_pretrained(folder, device="cpu")
    with pytest.warns(UserWarning, match=r"trained on the final token of solutions only \(per_token: false\)"):
        verifier.score("a ?", ["b = 1"], complete=False)
    assert verifier.score("a ?", ["b = 1"]) != []


def test_a_repository_of_the_hub_is_read_from_its_cache(process, tmp_path, monkeypatch):
    """As ``snapshot_download`` lays it out."""
    import shutil

    import huggingface_hub

    snapshot = tmp_path / "models--someone--prm" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(process, snapshot)
    (tmp_path / "models--someone--prm" / "refs").mkdir()
    (tmp_path / "models--someone--prm" / "refs" / "main").write_text(snapshot.name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = Verifier.from_pretrained("someone/prm", device="cpu")
    assert found.score(SOLUTIONS[0].problem, SOLUTIONS[0].steps) == pytest.approx(
        process_by_hand(process, SOLUTIONS[0]), abs=2e-6
    )


def test_it_says_what_it_is(prm, process):
    assert repr(prm).startswith(f"Verifier('{process}', objective='process', ")
    assert repr(prm).endswith("M parameters, float32, cpu)")
    assert prm.template.split("b = 1\n\n#### 1\n") == ["b = 1", "#### 1"]


def test_the_package_has_it():
    """Without loading it before it is asked for: test_imports.py imports the package without torch."""
    assert stepverify.Verifier is Verifier


def test_an_end_that_was_not_written_is_not_read(orm):
    """A solution that was cut off has no end-of-sequence token, so its value is another one."""
    cut, ended = solution(3, ["b = 3 + 1"], "length"), solution(3, ["b = 3 + 1"])
    (first,), (second,) = orm.score_solutions([cut, ended])
    assert first != second


def test_the_readmes_code_runs(root, process, capsys, monkeypatch):
    """Word by word, with another export; the values of the first solution stand in the list of two."""
    text = (root / "stepverify" / "README.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names = {}
    exec(compile(code.replace("runs/quickstart/prm/export", process), "README.md", "exec"), names)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("Verifier(")
    values = names["verifier"].score(names["problem"], names["steps"])
    assert shown[1] == str(values)
    assert len(values) == 3
    assert ast.literal_eval(shown[3]) == pytest.approx(values[:1], abs=2e-6)
    assert shown[4].startswith(f"{names['index']} [-")
    named = set(re.findall(r"`(\w+)[(`=:,]", text.partition("| | |")[2]))
    assert {"score", "best_of", "score_solutions", "from_pretrained", "objective", "device"} <= named


def test_out_of_memory_is_one_line(outcome, monkeypatch):
    """A petabyte is asked for; another error stays what it is."""
    import torch

    verifier = Verifier.from_pretrained(outcome, device="cpu", pack_tokens=99)
    monkeypatch.setattr(verifier.model, "score", lambda batch: torch.empty(1 << 50))
    with pytest.raises(
        InputError, match=r"out of memory on cpu: .*lower pack_tokens \(99 now\), then set dtype: bfloat16"
    ):
        verifier.score_solutions(SOLUTIONS)
    monkeypatch.setattr(verifier.model, "score", lambda batch: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        verifier.score_solutions(SOLUTIONS)
