"""Every shipped YAML is parsed under the very command that its header gives, and every recipe is run in small."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")

from sampling import pipeline
from stepverify import pipelines
from stepverify.jsonl import read_records
from stepverify.monitoring import SolutionText
from stepverify.records import Solution
from stepverify.training_problems import read_training_problems
from tests.helpers import recipes
from tests.helpers.parsing import parse

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "lit_configs"
YAMLS = sorted(p for p in CONFIGS.rglob("*.yaml") if p.parent.name != "cluster")  # those are run by test_cluster.py
VARIABLES = [p for p in YAMLS if p.name == "vars.yaml"]
PIPELINES = [p for p in YAMLS if p.name == "pipeline.yaml" or p == CONFIGS / "math_shepherd/strategies/recorded.yaml"]
OVERLAYS = [p for p in YAMLS if p.parent.name == "overlays"]
ABLATIONS = [p for p in YAMLS if p.parent.name == "ablations"]
STAGES = [p for p in YAMLS if p not in VARIABLES + PIPELINES + OVERLAYS + ABLATIONS]


def named(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def header(path: Path) -> list[str]:
    """The first command of a YAML's header."""
    found = re.search(r"^#   (?:PYTHONPATH=\. )?((?:sampling|stepverify) .*)$", path.read_text(), re.MULTILINE)
    assert found, "the header gives no command"
    return shlex.split(found[1])


def stages_of(path: Path) -> list[pipelines.Stage]:
    return pipelines.read_pipeline(path.relative_to(ROOT))[0]


def configs(command: list[str]) -> list[str]:
    return [word for before, word in pairwise(command) if before == "--config"]


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_there_are_configurations():
    assert (len(VARIABLES), len(PIPELINES), len(OVERLAYS), len(ABLATIONS)) == (9, 19, 5, 36)
    assert len(STAGES) == 120
    assert {p.parent.name for p in CONFIGS.rglob("*.sh")} == {"cluster"}


@pytest.mark.parametrize("path", STAGES, ids=named)
def test_stage_parses_under_the_command_in_its_header(path: Path, capsys):
    command = header(path)
    assert str(path.relative_to(ROOT)) in configs(command)
    parsed = parse(command, capsys)
    for key in re.findall(r"^(\w+):", path.read_text(), re.MULTILINE):
        assert f"{key}:" in parsed
    assert "${" not in parsed


@pytest.mark.parametrize("path", PIPELINES, ids=named)
def test_pipeline_runs_the_commands_of_its_stages_headers(path: Path):
    """Program, stage and configurations are those of the header; a fit's header may add an overlay."""
    for stage in stages_of(path):
        own = [config for config in stage.configs if config != pipelines.OVERLAYS]
        command = header(ROOT / own[-1])
        assert command[:2] == stage.run.split()
        if Path(own[-1]).stem[:2].isdigit():  # the others are of several stages
            assert configs(command)[: len(own)] == own


def test_every_numbered_yaml_is_a_stage_of_its_pipeline():
    used = {ROOT / config for path in PIPELINES for stage in stages_of(path) for config in stage.configs}
    assert used - {ROOT / pipelines.OVERLAYS, *OVERLAYS, *ABLATIONS} == {*STAGES}


def test_no_class_is_written_with_a_path_that_its_name_would_do_for():
    longer = {found for path in YAMLS for found in re.findall(r"class_path: (\S+\.\S+)", path.read_text())}
    # Parts of neither program.
    assert longer == {"sampling.sample_accuracy.SampleAccuracy", "tests.benchmarks.peers.shifted.ShiftedRewardModel"}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda p: p.name)
def test_overlay_goes_over_a_recipe(overlay: Path, capsys):
    recipe = "lit_configs/quickstart/07_prm.yaml"
    plain = parse(["stepverify", "fit", "--config", recipe], capsys)
    laid_over = parse(["stepverify", "fit", "--config", recipe, "--config", str(overlay)], capsys)
    assert plain != laid_over
    assert "ProcessRewardModel" in laid_over


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda p: p.name)
def test_ablation_changes_what_its_header_says(ablation: Path, capsys):
    """The command in the header parses; beside its own keys nothing differs from the recipe but the run's folder."""
    command = header(ablation)
    assert str(ablation.relative_to(ROOT)) == command[-1]
    full, changed = (yaml.safe_load(parse(c, capsys)) for c in (command[:-2], command))
    wanted = leaves(yaml.safe_load(ablation.read_text()))
    before, after = leaves(full), leaves(changed)
    for key in wanted:
        assert key not in before or before[key] != after[key] or "${" in str(wanted[key]), key
    siblings = {key.rpartition(".")[0] for key in wanted}  # a template of its own brings its defaults
    for key in before.keys() & after.keys():
        assert before[key] == after[key] or key.rpartition(".")[0] in siblings, key
    (folder,) = wanted.keys() & {"trainer.default_root_dir", "output"}
    assert before[folder] != after[folder]


def leaves(tree: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@pytest.fixture
def ascii_model_dir(base, tmp_path: Path) -> Path:
    """An untrained model that can write whatever GSM8K contains: a token for each character."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    characters = ["<pad>", "<eos>", "\n", *map(chr, range(32, 127))]
    inner = Tokenizer(WordLevel({c: i for i, c in enumerate(characters)}, unk_token="<pad>"))
    inner.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    inner.add_tokens([AddedToken("<step>", normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    one_layer = {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
    config = AutoConfig.from_pretrained(str(base), vocab_size=128, eos_token_id=1, pad_token_id=0, **one_layer)
    AutoModelForCausalLM.from_config(config).save_pretrained(str(tmp_path / "ascii"))
    tokenizer.save_pretrained(str(tmp_path / "ascii"))
    return tmp_path / "ascii"


def in_process(command: list[str]) -> int:
    """Run a stage here: to import torch once more for each would take most of the time."""
    from sampling.__main__ import main as sampling
    from stepverify.cli import main as stepverify

    program, *args = command
    try:
        {"sampling": sampling, "stepverify": stepverify}[program](args)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.mark.parametrize(
    ("recipe", "verifiers"),
    [
        ("gsm8k", ["orm"]),
        ("gsm8k_chat", ["prm"]),
        ("math_shepherd", ["prm"]),
        pytest.param("math_prm800k", ["orm", "prm"], marks=pytest.mark.slow),
    ],
)  # the quickstart is run by test_run_folder.py, and by `make quickstart`
def test_recipe_runs_in_small(recipe, verifiers, tmp_path, monkeypatch, ascii_model_dir, capsys):
    """``sampling pipeline`` runs every stage of the recipe; each finds what the one before has written."""
    monkeypatch.setattr(pipeline, "run_process", in_process)
    # Four texts of 128 tokens would take most of the time of a generator's fit.
    monkeypatch.setattr(SolutionText.__init__, "__defaults__", (1, 4))
    assert pipeline.main(getattr(recipes, recipe)(tmp_path, ascii_model_dir)) == 0, capsys.readouterr().err[-2000:]
    ran = re.findall(r"^── (\w+): ", capsys.readouterr().out, re.MULTILINE)
    assert ran == [stage.name for stage in stages_of(CONFIGS / recipe / "pipeline.yaml")]
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    rules = {f"{v}/{rule}" for v in verifiers for rule in ("best_of_n", "weighted_vote")}
    assert summary["accuracy"].keys() >= {"pass@1", "majority", "oracle"} | rules
    assert (tmp_path / "report" / "accuracy.png").stat().st_size > 10_000
    for manifest in tmp_path.rglob("manifest.json"):  # values, not the names of variables
        assert "${" not in manifest.read_text()
    assert len([*tmp_path.rglob("manifest.json")]) >= 8


def test_generative_verifier_runs_in_small(tmp_path, monkeypatch, ascii_model_dir, capsys):
    """Of 26 solutions a critique each; the verifier's two critiques know what is correct, so it chooses that."""
    monkeypatch.setattr(pipeline, "run_process", in_process)
    monkeypatch.setattr(SolutionText.__init__, "__defaults__", (1, 4))
    words = recipes.generative_verifier(tmp_path / "runs", ascii_model_dir)
    assert pipeline.main(words) == 0, capsys.readouterr().err[-2000:]
    summary = json.loads((tmp_path / "runs" / "report" / "summary.json").read_text())
    assert summary["accuracy"].keys() >= {"pass@1", "genrm/best_of_n", "genrm/weighted_vote"}
    manifest = json.loads((tmp_path / "runs" / "scores_test" / "manifest.json").read_text())
    assert manifest["summary"]["critiques"]["genrm"] == {"critiques": 52, "without_verdict": 0, "forced_verdicts": 0}
    assert manifest["config"]["verifiers"]["genrm"]["template"]["prompt"] == "{problem}\n", "that of the export"


@pytest.mark.slow
def test_distillation_runs_in_small(tmp_path, monkeypatch, ascii_model_dir, capsys):
    """Every problem has scores of the students that were trained on the other half: no problem counts as trained on."""
    monkeypatch.setattr(pipeline, "run_process", in_process)
    words = recipes.distillation(tmp_path, ascii_model_dir)
    assert pipeline.main(words) == 0, capsys.readouterr().err[-2000:]
    labels = next(iter(read_records(tmp_path / "labels", Solution))).step_labels
    assert [label.value for label in labels] == pytest.approx([0.8, 0.7])
    halves = [{*read_training_problems(tmp_path / f"prm_{half}" / "export")} for half in ("train", "validation")]
    assert (len(halves[0] | halves[1]), halves[0] & halves[1]) == (24, set())
    summary = json.loads((tmp_path / "scores" / "manifest.json").read_text())["summary"]
    assert summary["trained_on"] == {name: {"problems": 0, "of": 24, "first": None} for name in ("prm", "orm")}
    report = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert {f"{name}/weighted_vote" for name in ("prm", "orm", "one", "two")} <= report["accuracy"].keys()
    maps = json.loads((tmp_path / "calibration.json").read_text())["verifiers"]
    assert {one["target"] for one in maps.values()} == {"solutions"}

    objectives = ["lit_configs/distillation/objectives", *words[1:]]
    assert pipeline.main(objectives) == 0, capsys.readouterr().err[-2000:]
    report = json.loads((tmp_path / "objectives" / "report" / "summary.json").read_text())
    names = {"prm", "orm", "prm_ranking", "orm_ranking", "implicit"}
    assert {f"{name}/best_of_n" for name in names | {"one", "two"}} <= report["accuracy"].keys()
    bench = next(iter(read_records(tmp_path / "objectives" / "scores_processbench", Solution)))
    assert bench.scores.keys() == {"prm", "prm_ranking", "implicit"}


@pytest.mark.slow
def test_objectives_on_ratings_run_in_small(tmp_path, monkeypatch, ascii_model_dir, capsys):
    """Both objectives are scored, calibrated on held-out steps, and judged on ProcessBench before and after."""
    monkeypatch.setattr(pipeline, "run_process", in_process)
    words = recipes.math_prm800k(tmp_path, ascii_model_dir)
    assert pipeline.main(["lit_configs/math_prm800k/objectives", *words[1:]]) == 0, capsys.readouterr().err[-2000:]
    names = {"prm", "prm_ranking"}
    maps = json.loads((tmp_path / "calibration.json").read_text())["verifiers"]
    assert {name: one["target"] for name, one in maps.items()} == dict.fromkeys(names, "steps")
    for folder in ("held_out", "processbench", "calibrated"):
        assert json.loads((tmp_path / f"report_{folder}" / "summary.json").read_text())["steps"].keys() == names
    plain, mapped = (
        json.loads((tmp_path / f"report_{folder}" / "summary.json").read_text())["steps"]
        for folder in ("processbench", "calibrated")
    )
    assert plain != mapped


@pytest.mark.slow
def test_rounds_of_expert_iteration_run_in_small(tmp_path, monkeypatch, tiny_model_dir, capsys):
    """32 problems, of which one is held out of the fit; half of the solutions are correct in each round."""
    monkeypatch.setattr(pipeline, "run_process", in_process)
    assert pipeline.main(recipes.expert_iteration(tmp_path, tiny_model_dir)) == 0, capsys.readouterr().err[-2000:]
    for number in (1, 2):
        graded = [*read_records(tmp_path / f"labels_test_{number}", Solution)]
        assert (len(graded), sum(bool(s.correct) for s in graded)) == (8, 4)
        assert (tmp_path / f"rankings_{number}" / "manifest.json").is_file()
    sampled = json.loads((tmp_path / "samples_train_2" / "manifest.json").read_text())
    assert str(tmp_path / "generator_1" / "export") in json.dumps(sampled["config"])


@pytest.mark.slow
def test_searches_of_math_shepherd_run_in_small(tmp_path, monkeypatch, tiny_model_dir, capsys):
    """Every strategy, and their report."""
    monkeypatch.setattr(pipeline, "run_process", in_process)
    assert pipeline.main(recipes.math_shepherd_search(tmp_path, tiny_model_dir)) == 0, capsys.readouterr().err[-2000:]
    summary = json.loads((tmp_path / "searches" / "report" / "summary.json").read_text())
    assert summary["searches"]["curves"].keys() == {"best_of_n", "beam_search", "dvts", "rebase"}


@pytest.mark.slow
def test_searches_of_the_quickstart_run_in_small(tmp_path, monkeypatch, tiny_model_dir, capsys):
    """Every strategy at every budget, their report, and their policy."""
    monkeypatch.setattr(pipeline, "run_process", in_process)
    words = recipes.quickstart_search(tmp_path, tiny_model_dir)
    given = ["--set", f"runs={tmp_path}", "--set", "num_test_problems=20", "--set", "num_test_samples=2"]
    for stage in ("03_samples_test", "05_labels_test"):
        assert pipeline.main(["lit_configs/quickstart", *given, "--only", stage]) == 0
    assert pipeline.main(words) == 0, capsys.readouterr().err[-2000:]
    summary = json.loads((tmp_path / "searches" / "report" / "summary.json").read_text())
    assert "searches" in summary
    assert (tmp_path / "searches" / "report" / "budget.png").stat().st_size > 10_000
    assert [plan["budget"] for plan in json.loads((tmp_path / "searches" / "policy.json").read_text())["plans"]] == [
        400,
        800,
        1600,
        3200,
    ]
