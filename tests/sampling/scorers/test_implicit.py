"""Implicit reward models as scorers: both models, values that say how they become a score, and what is refused."""

import asyncio
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from sampling.scorers import CrossFitted, ExportedVerifier, PoolingVerifier
from sampling.search import BeamSearch
from sampling.selection.aggregation import default_aggregation
from sampling.selection.pool import read_pool
from sampling.stages.calibrate import calibrate
from sampling.stages.rank import rank
from sampling.stages.score import score
from stepverify.jsonl import read_records, write_records
from stepverify.records import InputError, Solution
from stepverify.training_problems import write_training_problems
from stepverify.verifier import Verifier
from tests.helpers.exports import SOLUTIONS, many
from tests.helpers.implicit import other_weights, write_implicit
from tests.helpers.searches import searched


@pytest.fixture(scope="module")
def folders(tiny_model_dir, tmp_path_factory):
    """An export, and its reference."""
    root = tmp_path_factory.mktemp("implicit")
    reference = other_weights(tiny_model_dir, root / "reference")
    return write_implicit(tiny_model_dir, reference, root / "export"), reference


def graded(path):
    """Eight problems of six samples each."""
    records = [replace(s, predicted="1", correct=i % 3 == 0) for i, s in enumerate(many(8, 6))]
    write_records(path, records)
    return path


def test_scores_say_how_they_are_ranked(folders, tmp_path, capsys):
    """By the last value, which is that of the whole solution; by the smallest of steps' own rewards. Also after a
    stage in between, and in ``calibrate``; a configured aggregation goes first."""
    given, export = graded(tmp_path / "in.jsonl"), folders[0]
    score(given, tmp_path / "a", {"whole": export})
    score(tmp_path / "a", tmp_path / "b", {"own": ExportedVerifier(export, rewards="step")})
    found = list(read_records(tmp_path / "b", Solution))
    verifier = Verifier.from_pretrained(export, device="cpu")
    assert [s.scores["whole"] for s in found] == verifier.score_solutions(list(read_records(given, Solution)))
    rank(tmp_path / "b", tmp_path / "ranking")
    assert "aggregation: own min (default), whole last (default)" in capsys.readouterr().out
    rank(tmp_path / "b", tmp_path / "prod", aggregation={"whole": "prod"})
    assert "own min (default), whole prod (configured)" in capsys.readouterr().out
    calibrate(tmp_path / "b", tmp_path / "calibration.json", num_folds=2, method="isotonic")
    made = json.loads((tmp_path / "calibration.json").read_text())["verifiers"]
    assert {name: one["aggregation"] for name, one in made.items()} == {"own": "min", "whole": "last"}
    samples = [sample for group in read_pool(tmp_path / "b").values() for sample in group]
    assert default_aggregation(samples, "whole", None) == "prod"  # scores without a manifest
    assert ExportedVerifier(export, per_token=True, rewards="step").identity()["aggregation"] == "last"
    write_training_problems(Path(export), set())
    parts = CrossFitted([ExportedVerifier(export, rewards="step")] * 2)
    assert (parts.objective, parts.identity()["aggregation"]) == ("implicit", "min")


def test_it_costs_two_models(folders, tiny_model_dir):
    """163,008 parameters each; the prompt has 13 tokens, the steps 8 and 3, and the end of the sequence one."""
    scorer = ExportedVerifier(folders[0])
    assert (scorer.objective, scorer.num_parameters) == ("implicit", 2 * 163_008)
    assert scorer.count_tokens(SOLUTIONS[0]) == 13 + 8 + 3 + 1
    assert ExportedVerifier(folders[0], per_token=True).token_texts(SOLUTIONS[0])[-1] == "<eos>"
    assert scorer.identity()["export"] != ExportedVerifier(str(folders[0])).identity()["rewards"] == "cumulative"


def test_a_search_reads_prefixes_again_and_says_so(folders, tmp_path, capsys):
    """It values steps, so it guides a beam search; a size of the cache is refused when the model is loaded."""
    scorer = ExportedVerifier(folders[0], device="cpu")
    results, _ = searched(tmp_path / "out", BeamSearch(2, 2), 2, scorer=scorer)
    assert len(results) == 2
    assert not scorer.caches_prefixes
    assert "prefixes are read again in every call: an implicit reward model keeps none" in capsys.readouterr().out
    cached = ExportedVerifier(folders[0], device="cpu", prefix_cache_gib=1.0)
    with pytest.raises(InputError, match=r"cannot be kept \(an implicit reward model reads.*set prefix_cache_gib: 0"):
        asyncio.run(cached.score(SOLUTIONS[:1]))


def test_what_it_cannot_be_read_by_is_said(folders, tiny_model_dir):
    with pytest.raises(InputError, match="has no token classifier, which vLLM reads; score with ExportedVerifier"):
        _ = PoolingVerifier(folders[0]).weights
    wrong = ExportedVerifier(folders[0], device="cpu", reference=str(tiny_model_dir))
    with pytest.raises(InputError, match="has other weights than in training"):
        asyncio.run(wrong.score(SOLUTIONS[:1]))
