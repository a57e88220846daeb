"""Every shipped YAML is parsed under the very command that its header gives, and every recipe is run in small."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

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
    assert len(OVERLAYS) == 4
    assert len(ABLATIONS) == 14


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
    command = re.search(r"^#   (stepverify .*)$", ablation.read_text(), re.MULTILINE)[1].split()
    assert str(ablation.relative_to(ROOT)) == command[-1]
    full, changed = (yaml.safe_load(parse(c, capsys)) for c in (command[:-2], command))
    wanted = leaves(yaml.safe_load(ablation.read_text()))
    before, after = leaves(full), leaves(changed)
    for key in wanted:
        assert key not in before or before[key] != after[key], key
    siblings = {key.rpartition(".")[0] for key in wanted}  # a layout of its own brings its defaults
    for key in before.keys() & after.keys():
        assert before[key] == after[key] or key.rpartition(".")[0] in siblings, key
    assert "trainer.default_root_dir" in wanted


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


def small_quickstart(out: Path) -> list[list[str]]:
    """The quickstart's stages on a handful of problems, everything below ``out``."""
    here = "lit_configs/quickstart"
    generator, fit = f"{out}/generator/export", ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    labelled = [f"--data.{part}.init_args.path={out}/labels_train" for part in ("train", "validation")]
    everything = [f"--data.{part}.init_args.fold=all" for part in ("train", "validation")]
    verifiers = f'{{"orm": "{out}/orm/export", "prm": "{out}/prm/export"}}'
    return [
        ["stepverify", "fit", "--config", f"{here}/01_generator.yaml", *fit, "--trainer.check_val_every_n_epoch", "1",
         "--data.train.init_args.num_problems", "64", "--trainer.default_root_dir", f"{out}/generator"],
        ["sampling", "generate", "--config", f"{here}/02_samples_train.yaml", "--engine.init_args.model", generator,
         "--problems.init_args.num_problems", "20", "--num_samples", "3", "--output", f"{out}/samples_train"],
        ["sampling", "generate", "--config", f"{here}/03_samples_test.yaml", "--engine.init_args.model", generator,
         "--problems.init_args.num_problems", "5", "--num_samples", "4", "--output", f"{out}/samples_test"],
        ["sampling", "label", "--config", f"{here}/04_labels_train.yaml", "--steps.init_args.engine.init_args.model", generator,
         "--input", f"{out}/samples_train", "--output", f"{out}/labels_train"],
        ["sampling", "label", "--config", f"{here}/05_labels_test.yaml", "--input", f"{out}/samples_test",
         "--output", f"{out}/labels_test"],
        *(["stepverify", "fit", "--config", f"{here}/{name}.yaml", *fit, "--model.init_args.backbone.path", generator,
           *labelled, *everything, "--trainer.default_root_dir", f"{out}/{name[3:]}"] for name in ("06_orm", "07_prm")),
        ["sampling", "score", "--config", f"{here}/08_scores.yaml", "--input", f"{out}/labels_test",
         "--verifiers", verifiers, "--output", f"{out}/scores_test"],
        ["sampling", "rank", "--config", f"{here}/09_rank.yaml", "--input", f"{out}/scores_test", "--output", f"{out}/rankings"],
        ["sampling", "report", "--config", f"{here}/10_report.yaml", "--input", f"{out}/rankings",
         "--scores", f"{out}/scores_test", "--output", f"{out}/report"],
    ]  # fmt: skip


def small_gsm8k(out: Path, base: Path) -> list[list[str]]:
    """The GSM8K recipe on twelve made-up problems, with the transformers engine and an untrained tiny model."""
    here, problems = "lit_configs/gsm8k", f"{out}/gsm8k.jsonl"
    engine = {"class_path": "sampling.engine.TransformersEngine", "init_args": {"model": f"{out}/generator/export"}}
    calculator = {"class_path": "sampling.calculator.CalculatorEngine", "init_args": {"engine": engine}}
    layout = '{"prompt": "Question: {problem}\\nAnswer:\\n", "tag": "<step>"}'
    fit = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    labelled = [f"--data.{part}.init_args.path={out}/labels_train" for part in ("train", "validation")]
    everything = [f"--data.{part}.init_args.fold=all" for part in ("train", "validation")]
    return [
        ["stepverify", "fit", "--config", f"{here}/01_generator.yaml", *fit, "--model.init_args.backbone.path", str(base),
         f"--model.init_args.layout={layout}", "--data.train.init_args.path", problems, "--data.train.init_args.limit", "8",
         "--data.validation.init_args.path", problems, "--data.validation.init_args.start", "8",
         "--trainer.callbacks.init_args.problems.init_args", f'{{"path": "{problems}", "start": 8}}',
         "--trainer.default_root_dir", f"{out}/generator"],
        *(["sampling", "generate", "--config", f"{here}/{name}.yaml", f"--engine={calculator}",
           f"--problems.init_args.path={problems}", "--problems.init_args.limit=4", "--num_samples", "2",
           "--sampling.max_tokens", "12", "--output", f"{out}/{name[3:]}"] for name in ("02_samples_train", "03_samples_test")),
        *(["sampling", "label", "--config", f"{here}/{name}.yaml", "--input", f"{out}/samples_{name[10:]}",
           "--output", f"{out}/{name[3:]}"] for name in ("04_labels_train", "05_labels_test")),
        ["stepverify", "fit", "--config", f"{here}/06_orm.yaml", *fit, *labelled, *everything,
         "--model.init_args.backbone.path", f"{out}/generator/export", "--data.language.init_args.path", problems,
         "--trainer.default_root_dir", f"{out}/orm"],
        ["sampling", "score", "--config", f"{here}/07_scores.yaml", "--input", f"{out}/labels_test",
         "--verifiers", f'{{"orm": "{out}/orm/export"}}', "--output", f"{out}/scores_test"],
        ["sampling", "rank", "--config", f"{here}/08_rank.yaml", "--input", f"{out}/scores_test", "--output", f"{out}/rankings"],
        ["sampling", "report", "--config", f"{here}/09_report.yaml", "--input", f"{out}/rankings",
         "--scores", f"{out}/scores_test", "--output", f"{out}/report"],
    ]  # fmt: skip


def write_math(folder: Path) -> None:
    """What the MATH recipe reads: problems of addition, ratings of their solutions, and ProcessBench's kind of rows."""
    import json

    def write(name: str, rows: list[dict]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    numbers = range(24)
    write("math.jsonl", [
        {"problem": f"{i} + 1 ?", "solution": f"So \\boxed{{{i + 1}}}.", "unique_id": f"train/algebra/{i}.json"}
        for i in numbers
    ])  # fmt: skip
    steps = [[f"{i} + 1 = {i + 1}", f"Right.\n\n# Answer\n\n{i + 1}"] for i in numbers]
    write("right.jsonl", [
        {"id": f"p{i}#0", "problem_id": f"p{i}", "problem": f"{i} + 1 ?", "steps": s, "correct": True}
        for i, s in zip(numbers, steps, strict=True)
    ])  # fmt: skip
    write("phase.jsonl", [
        {"generation": None, "is_quality_control_question": False, "is_initial_screening_question": False,
         "question": {"problem": f"{i} + 1 ?", "ground_truth_answer": str(i + 1)},
         "label": {"finish_reason": "solution", "steps": [
             {"completions": [{"text": text, "rating": 1}, {"text": "So 0.", "rating": -1}], "chosen_completion": 0}
             for text in s
         ]}}
        for i, s in zip(numbers, steps, strict=True)
    ])  # fmt: skip
    write("bench.jsonl", [
        {"id": f"gsm8k-{i}", "generator": "m", "problem": f"{i + 20} + 1 ?", "steps": ["a", "b"], "label": i % 2 - 1,
         "final_answer_correct": i % 2 == 0}
        for i in range(4)
    ])  # fmt: skip


def small_math_prm800k(out: Path, base: Path) -> list[list[str]]:
    """The MATH recipe with the transformers engine and an untrained tiny model, which is never right.

    So the generator learns solutions that are written for it here, and what is selected has no answers.
    """
    import json

    here, problems = "lit_configs/math_prm800k", f"{out}/math.jsonl"
    write_math(out)

    def engine(model: Path | str) -> str:
        init = {"model": str(model)}
        return "--engine=" + json.dumps({"class_path": "sampling.engine.TransformersEngine", "init_args": init})

    def solutions(path: str) -> dict:
        return {"class_path": "stepverify.readers.Solutions", "init_args": {"path": f"{out}/{path}"}}

    examples = {"solutions": solutions("ratings.jsonl"), "limit": 2}
    excluded = [solutions("processbench"), {"class_path": "stepverify.readers.Worked", "init_args": examples}]
    layout = json.dumps({"prompt": "Problem: {problem}\nSolution:\n", "tag": "<step>"})
    fit = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]

    def verifier(number_and_name: str, train: str, validation: str | None = None, *options: str) -> list[str]:
        paths = [f"--data.{part}.init_args.path={out}/{path}"
                 for part, path in (("train", train), ("validation", validation or train))]  # fmt: skip
        return ["stepverify", "fit", "--config", f"{here}/{number_and_name}.yaml", *fit, *paths,
                *(f"--data.{part}.init_args.fold=all" for part in ("train", "validation")),
                *(options or ("--model.init_args.backbone.path", f"{out}/generator/export")),
                "--trainer.default_root_dir", f"{out}/{number_and_name[3:]}"]  # fmt: skip

    def stage(name: str, config: str, *options: str) -> list[str]:
        return ["sampling", name, "--config", f"{here}/{config}.yaml", *options, "--output", f"{out}/{config[3:]}"]

    drawn = [f"--problems.init_args.path={problems}", "--problems.init_args.limit=4", "--num_samples=2",
             "--sampling.max_tokens=12"]  # fmt: skip
    own = ["--model.init_args.backbone.path", str(base), f"--model.init_args.layout={layout}"]
    exports = {name: f"{out}/{name}/export" for name in ("orm", "prm")}
    prm = json.dumps({"prm": exports["prm"]})
    return [
        ["sampling", "convert", "--config", f"{here}/01_processbench.yaml", "--input.init_args.path", f"{out}/bench.jsonl",
         "--output", f"{out}/processbench/gsm8k.jsonl"],
        ["sampling", "convert", "--config", f"{here}/02_ratings.yaml", f"--input.init_args.path={out}/phase.jsonl",
         f"--input.init_args.exclude={json.dumps(excluded[:1])}", "--output", f"{out}/ratings.jsonl"],
        stage("generate", "03_few_shot", engine(base), *drawn, f"--problems.init_args.exclude={json.dumps(excluded)}",
              f"--few_shot.init_args={json.dumps(examples)}", f"--layout={layout}"),
        stage("label", "04_few_shot_labels", "--input", f"{out}/few_shot"),
        verifier("05_generator", "right.jsonl", None, *own),
        *(stage("generate", name, engine(f"{out}/generator/export"), *drawn,
                *([f"--problems.init_args.exclude={json.dumps(excluded[:1])}"] if "train" in name else []))
          for name in ("06_samples_train", "07_samples_test")),
        *(stage("label", name, "--input", f"{out}/samples_{name[10:]}") for name in ("08_labels_train", "09_labels_test")),
        verifier("10_prm", "ratings.jsonl"),
        verifier("11_orm", "labels_train"),
        ["sampling", "score", "--config", f"{here}/12_scores.yaml", "--input", f"{out}/labels_test",
         "--verifiers", json.dumps(exports), "--output", f"{out}/scores_test"],
        ["sampling", "rank", "--config", f"{here}/13_rank.yaml", "--input", f"{out}/scores_test", "--output", f"{out}/rankings"],
        stage("report", "14_report", "--input", f"{out}/rankings", "--scores", f"{out}/scores_test"),
        stage("score", "15_processbench_scores", "--input", f"{out}/processbench", "--verifiers", prm),
        stage("report", "16_processbench_report", "--scores", f"{out}/processbench_scores"),
        stage("score", "17_scores_train", "--input", f"{out}/labels_train", "--verifiers", prm),
        stage("select", "18_select", "--input", f"{out}/scores_train", "--unanswered", "wrong"),
        stage("label", "19_step_labels", "--input", f"{out}/scores_train"),
        verifier("20_prm_large", "step_labels", "ratings.jsonl", *own),
    ]  # fmt: skip


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
    ("recipe", "verifiers"), [("quickstart", ["orm", "prm"]), ("gsm8k", ["orm"]), ("math_prm800k", ["orm", "prm"])]
)
def test_recipe_runs_in_small(recipe: str, verifiers: list[str], tmp_path: Path, monkeypatch, ascii_model_dir: Path):
    """Every stage of the recipe, one after the other; each finds what the one before has written."""
    import json

    from sampling.__main__ import main as sampling
    from stepverify.cli import main as stepverify

    monkeypatch.chdir(ROOT)
    if recipe == "quickstart":
        commands = small_quickstart(tmp_path)
    elif recipe == "math_prm800k":
        commands = small_math_prm800k(tmp_path, ascii_model_dir)
    else:
        rows = [
            {"question": f"{i} + 1 ?", "answer": f"{i} + 1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(12)
        ]
        (tmp_path / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        commands = small_gsm8k(tmp_path, ascii_model_dir)
    run = {"sampling": sampling, "stepverify": stepverify}
    stages = [re.search(r"\w+\.yaml", " ".join(c))[0] for c in commands]
    assert stages == sorted(p.name for p in (CONFIGS / recipe).glob("*.yaml"))
    for program, *args in commands:
        run[program](args)
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    rules = {f"{v}/{rule}" for v in verifiers for rule in ("best_of_n", "weighted")}
    assert summary["accuracy"].keys() >= {"pass@1", "majority", "oracle"} | rules
    assert (tmp_path / "report" / "accuracy.png").stat().st_size > 10_000


@pytest.mark.parametrize("script", sorted(CONFIGS.glob("*/run.sh")), ids=lambda p: p.parent.name)
def test_run_script_is_sound_shell_and_names_files_that_exist(script: Path):
    subprocess.run(["bash", "-n", str(script)], check=True)
    named = re.findall(r"\$here/(\S+\.yaml)", script.read_text())
    assert named
    assert all((script.parent / name).is_file() for name in named)
    assert os.access(script, os.R_OK)
