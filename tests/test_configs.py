"""Every shipped YAML is parsed under the very command that its header gives, and every recipe is run in small."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests import recipes

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "lit_configs"
YAMLS = sorted(CONFIGS.rglob("*.yaml"))
OVERLAYS = [p for p in YAMLS if p.parent.name == "overlays"]
ABLATIONS = [p for p in YAMLS if p.parent.name == "ablations"]
RECIPES = [p for p in YAMLS if p not in OVERLAYS + ABLATIONS]


def parse(command: list[str], capsys: pytest.CaptureFixture) -> str:
    """Parse and type-check a command line without running it; gives back the full configuration."""
    from sampling.__main__ import main as sampling
    from stepverify.cli import main as stepverify

    program, *args = command
    with pytest.raises(SystemExit) as stopped:
        {"sampling": sampling, "stepverify": stepverify}[program]([*args, "--print_config"])
    output = capsys.readouterr()
    assert stopped.value.code == 0, output.err
    return output.out


def test_there_are_configurations():
    assert len(RECIPES) >= 43
    assert len(OVERLAYS) == 5
    assert len(ABLATIONS) == 24


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_recipe_parses_under_the_command_in_its_header(path: Path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text()
    command = re.search(r"^#   ((?:sampling|stepverify) .*)$", text, re.MULTILINE)
    assert command, "the header gives no command"
    assert f"--config {path.relative_to(ROOT)}" in command[1]
    parsed = parse(command[1].split(), capsys)
    for key in re.findall(r"^(\w+):", text, re.MULTILINE):
        assert f"{key}:" in parsed


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda p: p.name)
def test_overlay_goes_over_a_recipe(overlay: Path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = "lit_configs/quickstart/07_prm.yaml"
    plain = parse(["stepverify", "fit", "--config", recipe], capsys)
    laid_over = parse(["stepverify", "fit", "--config", recipe, "--config", str(overlay)], capsys)
    assert plain != laid_over
    assert "ProcessRewardModel" in laid_over


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda p: p.name)
def test_ablation_changes_what_its_header_says(ablation: Path, capsys, monkeypatch):
    """The command in the header parses; beside its own keys nothing differs from the recipe but the run's folder."""
    monkeypatch.chdir(ROOT)
    command = re.search(r"^#   ((?:sampling|stepverify) .*)$", ablation.read_text(), re.MULTILINE)[1].split()
    assert str(ablation.relative_to(ROOT)) == command[-1]
    full, changed = (yaml.safe_load(parse(c, capsys)) for c in (command[:-2], command))
    wanted = leaves(yaml.safe_load(ablation.read_text()))
    before, after = leaves(full), leaves(changed)
    for key in wanted:
        assert key not in before or before[key] != after[key], key
    siblings = {key.rpartition(".")[0] for key in wanted}  # a template of its own brings its defaults
    for key in before.keys() & after.keys():
        assert before[key] == after[key] or key.rpartition(".")[0] in siblings, key
    assert wanted.keys() & {"trainer.default_root_dir", "output"}


def leaves(tree: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_recipe_is_a_stage_of_its_run_script(path: Path):
    assert path.name in (path.parent / "run.sh").read_text()


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
    config = AutoConfig.from_pretrained(str(base), vocab_size=128, eos_token_id=1, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(str(tmp_path / "ascii"))
    tokenizer.save_pretrained(str(tmp_path / "ascii"))
    return tmp_path / "ascii"


@pytest.mark.parametrize(
    ("recipe", "verifiers"),
    [("quickstart", ["orm", "prm"]), ("gsm8k", ["orm"]), ("math_prm800k", ["orm", "prm"]), ("math_shepherd", ["prm"])],
)
def test_recipe_runs_in_small(recipe: str, verifiers: list[str], tmp_path: Path, monkeypatch, ascii_model_dir: Path):
    """Every stage of the recipe, one after the other; each finds what the one before has written."""
    from sampling.__main__ import main as sampling
    from stepverify.cli import main as stepverify

    monkeypatch.chdir(ROOT)
    commands = getattr(recipes, f"small_{recipe}")(tmp_path, ascii_model_dir)
    run = {"sampling": sampling, "stepverify": stepverify}
    stages = [re.search(r"\w+\.yaml", " ".join(c))[0] for c in commands]
    assert stages == sorted(p.name for p in (CONFIGS / recipe).glob("*.yaml"))
    for program, *args in commands:
        run[program](args)
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    rules = {f"{v}/{rule}" for v in verifiers for rule in ("best_of_n", "weighted_vote")}
    assert summary["accuracy"].keys() >= {"pass@1", "majority", "oracle"} | rules
    assert (tmp_path / "report" / "accuracy.png").stat().st_size > 10_000


@pytest.mark.parametrize("script", sorted(CONFIGS.rglob("*.sh")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_script_is_sound_shell_and_names_files_that_exist(script: Path):
    subprocess.run(["bash", "-n", str(script)], check=True)
    named = re.findall(r"\$here/([\w/]+\.yaml)", script.read_text())
    assert named
    assert all((CONFIGS / script.relative_to(CONFIGS).parts[0] / name).is_file() for name in named)
    assert os.access(script, os.R_OK)
