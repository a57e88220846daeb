"""The score stage: exported verifiers against a hand-run of the model that they hold."""

import json

import pytest
import torch

from sampling.__main__ import main
from sampling.stages.score import ExportedVerifier, score
from stepverify.data.encode import load_tokenizer
from stepverify.jsonl import read_records, write_records
from stepverify.layout import Layout
from stepverify.models import Backbone, GeneratorModel, OutcomeModel, ProcessModel
from stepverify.records import InputError, Solution

LAYOUT = Layout(prompt="{problem}\n")
MAX_LENGTH = 40


def export(model, tokenizer, folder, **facts):
    """As stepverify.callbacks.export does."""
    folder.mkdir()
    model.export(folder, model.state_dict())
    tokenizer.save_pretrained(str(folder))
    LAYOUT.save(folder, objective=model.objective, max_length=MAX_LENGTH, **facts)
    return str(folder)


@pytest.fixture(scope="module")
def backbone(tiny_model_dir):
    return Backbone(path=str(tiny_model_dir)).load()


@pytest.fixture(scope="module")
def own_tokenizer(tiny_model_dir):
    return load_tokenizer(str(tiny_model_dir))


@pytest.fixture(scope="module")
def outcome(backbone, own_tokenizer, tmp_path_factory):
    model = OutcomeModel(backbone)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.nn.init.normal_(model.value_head.weight)
        torch.nn.init.normal_(model.value_head.bias)
    return export(model, own_tokenizer, tmp_path_factory.mktemp("exports") / "outcome")


@pytest.fixture(scope="module")
def process(backbone, own_tokenizer, tmp_path_factory):
    tag, negative, positive = ids_of(own_tokenizer)
    model = ProcessModel(backbone, (negative, positive))
    ids = {"tag": tag, "negative": negative, "positive": positive}
    return export(model, own_tokenizer, tmp_path_factory.mktemp("exports") / "process", ids=ids)


def ids_of(tokenizer):
    return [tokenizer.encode(text)[0] for text in (LAYOUT.tag, LAYOUT.negative, LAYOUT.positive)]


def solution(number, steps, finish="stop"):
    return Solution(
        id=f"p/{number}#0", problem_id=f"p/{number}", problem=f"a = {number} ; b = a + 1 ; b ?", steps=steps,
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


def encoded(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


@torch.no_grad()
def outcome_by_hand(folder, s, every_token=False):
    """Transformers' own token classifier over prompt, steps and the end of the sequence; no code of ours."""
    from transformers import AutoModelForTokenClassification

    tokenizer = load_tokenizer(folder)
    prompt = encoded(tokenizer, s.problem + "\n")
    ids = prompt + [i for step in s.steps for i in encoded(tokenizer, step + "\n")]
    ids += [tokenizer.eos_token_id] * (s.finish != "length")
    logits = AutoModelForTokenClassification.from_pretrained(folder)(torch.tensor([ids])).logits
    values = logits[0, :, 0].sigmoid().tolist()
    return values[len(prompt) :] if every_token else values[-1:]


@torch.no_grad()
def process_by_hand(folder, s):
    """Transformers' own language model; at every tag the softmax of two logits."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(folder)
    tag, negative, positive = ids_of(tokenizer)
    ids, at = encoded(tokenizer, s.problem + "\n"), []
    for step in s.steps:
        ids += [*encoded(tokenizer, step + "\n"), tag]
        at.append(len(ids) - 1)
    logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0, at]
    return logits[:, [negative, positive]].softmax(-1)[:, 1].tolist()


# ── values ────────────────────────────────────────────────────────────────────────────────────────


def test_outcome_values_equal_a_hand_run(outcome):
    """Six digits are kept."""
    found = ExportedVerifier(outcome, device="cpu").score(SOLUTIONS)
    for values, s in zip(found, SOLUTIONS, strict=True):
        assert values == pytest.approx(outcome_by_hand(outcome, s), abs=2e-6)
        assert all(value == round(value, 6) for value in values)
    assert len({value for values in found for value in values}) == len(SOLUTIONS)
    along = ExportedVerifier(outcome, device="cpu", every_token=True).score(SOLUTIONS)
    for values, s in zip(along, SOLUTIONS, strict=True):
        assert values == pytest.approx(outcome_by_hand(outcome, s, every_token=True), abs=2e-6)
    assert [values[-1:] for values in along] == found


def test_process_values_equal_a_hand_run(process):
    found = ExportedVerifier(process, device="cpu").score(SOLUTIONS)
    assert [len(values) for values in found] == [2, 4, 1, 1, 3]
    for values, s in zip(found, SOLUTIONS, strict=True):
        assert values == pytest.approx(process_by_hand(process, s), abs=2e-6)
    # The same step behind another prefix has another value.
    assert found[4][0] != found[4][1]


def test_an_end_that_was_not_written_is_not_read(outcome):
    """A solution that was cut off has no end-of-sequence token, so its value is another one."""
    cut, ended = solution(3, ["b = 3 + 1"], "length"), solution(3, ["b = 3 + 1"])
    (first,), (second,) = ExportedVerifier(outcome, device="cpu").score([cut, ended])
    assert first != second


@pytest.mark.parametrize("pack_tokens", [1, 40, 8192])
def test_values_do_not_depend_on_batch_or_order(outcome, process, pack_tokens):
    for path in (outcome, process):
        whole = ExportedVerifier(path, device="cpu").score(SOLUTIONS)
        parts = ExportedVerifier(path, device="cpu", pack_tokens=pack_tokens).score(SOLUTIONS[::-1])[::-1]
        for values, again in zip(whole, parts, strict=True):
            assert again == pytest.approx(values, abs=2e-6)


def test_what_cannot_be_read_whole_has_no_value(outcome, process):
    for path in (outcome, process):
        verifier = ExportedVerifier(path, device="cpu")
        found = verifier.score([LONG, SOLUTIONS[0], EMPTY])
        assert found[0] == found[2] == []
        assert found[1] == pytest.approx(verifier.score(SOLUTIONS[:1])[0], abs=2e-6)
        assert verifier.score([EMPTY, LONG]) == [[], []]


# ── the stage ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def given(tmp_path):
    write_records(tmp_path / "in.jsonl", [*SOLUTIONS, LONG, EMPTY])
    return tmp_path / "in.jsonl"


def summary(folder):
    return json.loads((folder / "manifest.json").read_text())["summary"]


def test_two_verifiers_score_side_by_side(given, tmp_path, outcome, process, capsys):
    score(given, tmp_path / "o", {"orm": outcome, "prm": process})
    found = list(read_records(tmp_path / "o", Solution))
    orm, prm = (ExportedVerifier(path, device="cpu").score([*SOLUTIONS, LONG, EMPTY]) for path in (outcome, process))
    for s, before, o, p in zip(found, [*SOLUTIONS, LONG, EMPTY], orm, prm, strict=True):
        assert s.scores == {"orm": o, "prm": p}
        s.scores = {}
        assert s == before
    assert summary(tmp_path / "o")["without_scores"] == {"orm": 2, "prm": 2}
    assert "orm: 2 solutions without a step or too long to be read" in capsys.readouterr().out


def test_values_of_tokens_come_with_their_texts(given, tmp_path, outcome, process):
    score(given, tmp_path / "o", {"orm": outcome, "prm": process}, every_token=True)
    found = {s.id: s for s in read_records(tmp_path / "o", Solution)}
    first = found["p/0#0"]
    assert first.pieces == {"orm": ["b", " =", " 0", " +", " 1", " =", " 1", "\n", "####", " 1", "\n", "<eos>"]}
    assert first.scores["orm"] == pytest.approx(outcome_by_hand(outcome, SOLUTIONS[0], every_token=True), abs=2e-6)
    for s in SOLUTIONS:
        assert len(found[s.id].pieces["orm"]) == len(found[s.id].scores["orm"])
    assert found[LONG.id].pieces == found[EMPTY.id].pieces == {}


def test_earlier_scores_stay(given, tmp_path, outcome, process):
    score(given, tmp_path / "a", {"orm": outcome})
    score(tmp_path / "a", tmp_path / "b", {"prm": process})
    both = [s.scores for s in read_records(tmp_path / "b", Solution)]
    first = [s.scores for s in read_records(tmp_path / "a", Solution)]
    assert [set(scores) for scores in both] == [{"orm", "prm"}] * 7
    assert [{"orm": scores["orm"]} for scores in both] == first


def test_resume_scores_what_is_missing_and_counts_all(given, tmp_path, outcome, monkeypatch):
    """Of 7 solutions, the last 2 without a score, the kill left the last 4: 3 are scored, 2 are counted."""
    score(given, tmp_path / "o", {"orm": outcome})
    whole = {s.id: s for s in read_records(tmp_path / "o", Solution)}
    shard, manifest = (tmp_path / "o" / name for name in ("part-00000.jsonl", "manifest.json"))
    shard.write_text("".join(shard.read_text().splitlines(keepends=True)[3:]) + '{"id": "to')
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": False, "summary": {}}))
    asked, plain = [], ExportedVerifier.score
    monkeypatch.setattr(ExportedVerifier, "score", lambda self, s: asked.extend(x.id for x in s) or plain(self, s))
    score(given, tmp_path / "o", {"orm": outcome})
    assert asked == ["p/0#0", "p/1#0", "p/2#0"]
    found = list(read_records(tmp_path / "o", Solution))
    assert len(found) == 7
    assert {s.id: s.scores["orm"] for s in found} == {
        key: pytest.approx(s.scores["orm"], abs=2e-6) for key, s in whole.items()
    }
    assert summary(tmp_path / "o")["without_scores"] == {"orm": 2}
    assert summary(tmp_path / "o")["items_this_run"] == 3
    asked.clear()
    score(given, tmp_path / "o", {"orm": outcome})
    assert asked == []


def test_out_of_memory_is_one_line(given, tmp_path, outcome, monkeypatch):
    """A petabyte is asked for; another error stays what it is; the same command then finishes."""
    with monkeypatch.context() as patched:
        patched.setattr(ExportedVerifier, "score", lambda self, s: torch.empty(1 << 50))
        with pytest.raises(
            InputError, match=r"orm: out of memory on cpu: .*lower pack_tokens \(99 now\), then set dtype"
        ):
            score(given, tmp_path / "o", {"orm": outcome}, pack_tokens=99)
        patched.setattr(ExportedVerifier, "score", lambda self, s: torch.ones(2) @ torch.ones(3))
        with pytest.raises(RuntimeError, match="size"):
            score(given, tmp_path / "o", {"orm": outcome}, pack_tokens=99)
    score(given, tmp_path / "o", {"orm": outcome}, pack_tokens=99)
    assert len(list(read_records(tmp_path / "o", Solution))) == 7


@pytest.mark.parametrize("changed", ["weights", "stepverify.json", "tokenizer.json", "every_token", "name"])
def test_another_verifier_is_refused(given, tmp_path, outcome, changed):
    import shutil

    mine = shutil.copytree(outcome, tmp_path / "mine")
    score(given, tmp_path / "o", {"orm": str(mine)})
    name = "other" if changed == "name" else "orm"
    options = {"every_token": True} if changed == "every_token" else {}
    if changed == "weights":
        file = mine / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    elif changed.endswith(".json"):
        file = mine / changed
        file.write_text(file.read_text() + "\n")
    key = r"config\.every_token" if changed == "every_token" else r"config\.verifiers\.orm"
    with pytest.raises(InputError, match=f"was made with {key}"):
        score(given, tmp_path / "o", {name: str(mine)}, **options)


# ── wrong input ───────────────────────────────────────────────────────────────────────────────────


def test_no_verifier_and_wrong_paths(given, tmp_path, base, backbone, own_tokenizer):
    generator = export(GeneratorModel(backbone), own_tokenizer, tmp_path / "generator")
    (tmp_path / "plain").mkdir()
    backbone.save_pretrained(str(tmp_path / "plain"))
    for verifiers, message in (
        ({}, "verifiers: expected at least one"),
        ({"orm": str(tmp_path / "nowhere")}, "nowhere: not an exported verifier"),
        ({"orm": str(base)}, "base: not an exported verifier"),
        ({"orm": str(tmp_path / "plain")}, "plain: not an exported verifier"),
        ({"orm": generator}, "generator: not an exported verifier"),
    ):
        with pytest.raises(InputError, match=message):
            score(given, tmp_path / f"o{len(message)}", verifiers)


def test_ids_that_the_tokenizer_no_longer_gives_are_refused(given, tmp_path, process):
    """The export says that + is 9; a tokenizer that swaps + and - would turn every value around."""
    import shutil

    changed = shutil.copytree(process, tmp_path / "changed")
    stored = (changed / "stepverify.json").read_text()
    facts = json.loads(stored)
    ids = facts["ids"]
    facts["ids"] = ids | {"negative": ids["positive"], "positive": ids["negative"]}
    (changed / "stepverify.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"trained with ids .*, but its tokenizer now gives"):
        score(given, tmp_path / "a", {"prm": str(changed)})
    (changed / "stepverify.json").write_text(stored)
    tokenizer = json.loads((changed / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["+"], words["-"] = words["-"], words["+"]
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match=r"trained with ids .*, but its tokenizer now gives"):
        score(given, tmp_path / "b", {"prm": str(changed)})


def test_the_program_takes_a_yaml(given, tmp_path, outcome, capsys):
    (tmp_path / "s.yaml").write_text(f"input: {given}\nverifiers: {{ orm: {outcome} }}\noutput: {tmp_path / 'o'}\n")
    main(["score", "--config", str(tmp_path / "s.yaml"), "--pack_tokens", "20"])
    assert len(list(read_records(tmp_path / "o", Solution))) == 7
    with pytest.raises(SystemExit) as stopped:
        main(["score", "--config", str(tmp_path / "s.yaml"), "--verifiers", f"{{orm: {tmp_path}}}"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"sampling score: {tmp_path}: not an exported verifier")
