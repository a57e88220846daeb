"""The score stage: what it writes, resumes, counts and refuses."""

import json
import shutil

import pytest

from sampling.__main__ import main
from sampling.scorers import ExportedVerifier, PoolingVerifier
from sampling.stages.score import score
from stepverify.data.encode import load_tokenizer
from stepverify.jsonl import read_records, write_records
from stepverify.models import Backbone, GeneratorModel
from stepverify.records import InputError, Solution
from stepverify.verifier import Verifier
from tests.helpers.exports import EMPTY, LONG, SOLUTIONS, many, outcome_by_hand, solution, write_export


@pytest.fixture
def given(tmp_path):
    write_records(tmp_path / "in.jsonl", [*SOLUTIONS, LONG, EMPTY])
    return tmp_path / "in.jsonl"


def summary(folder):
    return json.loads((folder / "manifest.json").read_text())["summary"]


def test_two_verifiers_score_side_by_side(given, tmp_path, outcome, process, capsys):
    score(given, tmp_path / "o", {"orm": outcome, "prm": process})
    found = list(read_records(tmp_path / "o", Solution))
    orm, prm = (
        Verifier.from_pretrained(path, device="cpu").score_solutions([*SOLUTIONS, LONG, EMPTY])
        for path in (outcome, process)
    )
    for s, before, o, p in zip(found, [*SOLUTIONS, LONG, EMPTY], orm, prm, strict=True):
        assert s.scores == {"orm": o, "prm": p}
        s.scores = {}
        assert s == before
    assert summary(tmp_path / "o")["without_scores"] == {"orm": 2, "prm": 2}
    read = sum(map(ExportedVerifier(process).count_tokens, [*SOLUTIONS, LONG, EMPTY]))
    assert summary(tmp_path / "o")["prompt_tokens_this_run"] == read, "of the verifier that scored last"
    assert "orm: 2 solutions without a score (no step, or too long to be read)" in capsys.readouterr().out


def test_values_of_tokens_come_with_their_texts(given, tmp_path, outcome, process):
    score(given, tmp_path / "o", {"orm": outcome, "prm": process}, per_token=True)
    found = {s.id: s for s in read_records(tmp_path / "o", Solution)}
    first = found["p/0#0"]
    assert first.token_texts == {"orm": ["b", " =", " 0", " +", " 1", " =", " 1", "\n", "####", " 1", "\n", "<eos>"]}
    assert first.scores["orm"] == pytest.approx(outcome_by_hand(outcome, SOLUTIONS[0], per_token=True), abs=2e-6)
    for s in SOLUTIONS:
        assert len(found[s.id].token_texts["orm"]) == len(found[s.id].scores["orm"])
    assert found[LONG.id].token_texts == found[EMPTY.id].token_texts == {}


def test_earlier_scores_stay(given, tmp_path, outcome, process):
    score(given, tmp_path / "a", {"orm": outcome})
    score(tmp_path / "a", tmp_path / "b", {"prm": process})
    both = [s.scores for s in read_records(tmp_path / "b", Solution)]
    first = [s.scores for s in read_records(tmp_path / "a", Solution)]
    assert [set(scores) for scores in both] == [{"orm", "prm"}] * 7
    assert [{"orm": scores["orm"]} for scores in both] == first


def test_resume_gives_the_same_values_and_counts_all(tmp_path, outcome, process, monkeypatch):
    """Of 150 solutions in two chunks (15 problems of 9, and 15 solutions) with two verifiers, the kill left the first 100.

    The PRM's scores are read again from a new pass, the ORM's from its subfolder; the chunk of the kill is scored whole,
    so that what is packed together, and each bit, is that of the uninterrupted run.
    """
    given, out = tmp_path / "in.jsonl", tmp_path / "o"
    others = [solution(20 + i, s.steps, s.finish) for i, s in enumerate([*SOLUTIONS[:4], LONG, EMPTY])]
    write_records(given, [*many(16, 9), *others])
    score(given, tmp_path / "whole", {"orm": outcome, "prm": process})
    whole = list(read_records(tmp_path / "whole", Solution))
    calls, plain = [], ExportedVerifier.score

    async def spied(self, solutions):
        calls.append((self.path, len(solutions)))
        if self.path == process and len(calls) == 4:
            raise KeyboardInterrupt
        return await plain(self, solutions)

    monkeypatch.setattr(ExportedVerifier, "score", spied)
    with pytest.raises(KeyboardInterrupt):
        score(given, out, {"orm": outcome, "prm": process})
    assert calls == [(outcome, 135), (outcome, 15), (process, 135), (process, 15)]
    assert (out / "unmerged" / "orm" / "manifest.json").is_file()
    shard = out / "part-00000.jsonl"
    lines = (tmp_path / "whole" / "part-00000.jsonl").read_text().splitlines(keepends=True)
    shard.write_text("".join(lines[:100]) + lines[100][:30])
    calls.clear()
    score(given, out, {"orm": outcome, "prm": process})
    assert calls == [(process, 135), (process, 15)]
    assert list(read_records(out, Solution)) == whole
    assert summary(out)["without_scores"] == {"orm": 2, "prm": 2}
    assert summary(out)["items_this_run"] == 50
    assert not (out / "unmerged").exists()
    score(given, out, {"orm": outcome, "prm": process})
    assert len(calls) == 2


def test_one_model_is_loaded_at_a_time(given, tmp_path, outcome, process, monkeypatch):
    """Before the second verifier scores, the first one is closed."""
    events = []
    for name in ("score", "aclose"):
        plain = getattr(ExportedVerifier, name)

        async def spied(self, *args, plain=plain, name=name):
            events.append((name, self.path))
            return await plain(self, *args)

        monkeypatch.setattr(ExportedVerifier, name, spied)
    score(given, tmp_path / "o", {"orm": outcome, "prm": process})
    assert events == [("score", outcome), ("aclose", outcome), ("score", process), ("aclose", process)]


def test_texts_of_tokens_go_with_the_scores_that_they_belong_to(given, tmp_path, outcome):
    """Scored anew at the last token alone, a solution has no texts of tokens left."""
    score(given, tmp_path / "a", {"orm": outcome}, per_token=True)
    score(tmp_path / "a", tmp_path / "b", {"orm": outcome})
    assert any(s.token_texts for s in read_records(tmp_path / "a", Solution))
    assert not any(s.token_texts for s in read_records(tmp_path / "b", Solution))


@pytest.mark.parametrize("changed", ["weights", "stepverify.json", "tokenizer.json", "per_token", "name"])
def test_another_verifier_is_refused(given, tmp_path, outcome, changed):
    mine = shutil.copytree(outcome, tmp_path / "mine")
    score(given, tmp_path / "o", {"orm": str(mine)})
    name = "other" if changed == "name" else "orm"
    options = {"per_token": True} if changed == "per_token" else {}
    if changed == "weights":
        file = mine / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    elif changed.endswith(".json"):
        file = mine / changed
        file.write_text(file.read_text() + "\n")
    key = r"config\.verifiers\.orm" + (r"\.per_token" if changed == "per_token" else "")
    with pytest.raises(InputError, match=f"was made with {key}"):
        score(given, tmp_path / "o", {name: str(mine)}, **options)


def test_no_verifier_and_incorrect_paths(given, tmp_path, base, tiny_model_dir):
    backbone = Backbone(path=str(tiny_model_dir)).load()
    generator = write_export(GeneratorModel(backbone), load_tokenizer(str(tiny_model_dir)), tmp_path / "generator")
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
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["score", "--config", str(tmp_path / "s.yaml"), "--verifiers", f"{{orm: {tmp_path}}}"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"sampling score: {tmp_path}: not an exported verifier")


def test_a_path_and_a_class_path_are_the_same_verifier(given, tmp_path, outcome, capsys):
    """One identity: the folder of the first run is finished for the second. Short names of classes do."""
    (tmp_path / "s.yaml").write_text(f"input: {given}\noutput: {tmp_path / 'o'}\n")
    arguments = f"{{class_path: ExportedVerifier, init_args: {{path: {outcome}, per_token: true, devices: 1}}}}"
    main(["score", "--config", str(tmp_path / "s.yaml"), "--verifiers", f"{{orm: {outcome}}}", "--per_token", "true"])
    capsys.readouterr()
    main(["score", "--config", str(tmp_path / "s.yaml"), "--verifiers", f"{{orm: {arguments}}}"])
    assert capsys.readouterr().out == f"{tmp_path / 'o'}: already finished, 7 solutions\n"


@pytest.mark.parametrize(
    ("given_as", "options", "message"),
    [
        (
            "{class_path: ExportedVerifier, init_args: {paht: x}}",
            (),
            "--verifiers.a.init_args.paht: 'x': no such key of ExportedVerifier; did you mean path?",
        ),
        ("{class_path: ExportVerifier, init_args: {path: x}}", (), "ExportVerifier"),
        (
            "{class_path: ExportedVerifier, init_args: {path: x, devices: 0}}",
            (),
            "devices: expected auto, or 1 or more",
        ),
        (
            "{class_path: ExportedVerifier, init_args: {path: x}}",
            ("--per_token", "true"),
            "no verifier is given as a",
        ),
        ("x/y/z", (), "x/y/z: not an exported verifier (no such folder)"),
        ("x/y", (), "x/y: no such folder, and it is not in the Hub's cache, and HF_HUB_OFFLINE is set"),
    ],
)
def test_incorrect_scorers_are_named(given_as, options, message, given, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "score",
                "--input",
                str(given),
                "--output",
                str(tmp_path / "o"),
                "--verifiers",
                f"{{a: {given_as}}}",
                *options,
            ]
        )
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_help_lists_the_scorers(capsys):
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in (
        "ExportedVerifier",
        "GenerativeScorer",
        "PoolingVerifier",
        "QwenPRM",
        "MathShepherdPRM",
        "RLHFlowPRM",
        "SkyworkPRM",
        "TRLPRM",
    ):
        assert f"sampling.scorers.{name}" in text
    assert "ReleasedPRM" not in text  # it is none itself


def test_without_a_token_classifier_vllm_is_not_asked(process, tmp_path, given):
    """What it reads is there for neither a bare causal export nor what is no export: said before anything starts."""
    for path, message in ((process, "has no token classifier, which vLLM reads"), (str(tmp_path), "not an exported")):
        with pytest.raises(InputError, match=message):
            score(given, tmp_path / "o", {"prm": PoolingVerifier(path)})
