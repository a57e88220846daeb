"""The stages of every recipe on a handful of problems with tiny models, everything below one folder."""

from __future__ import annotations

import json
from pathlib import Path


def small_quickstart(out: Path, base: Path) -> list[list[str]]:
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
    here, problems = "lit_configs/gsm8k", str(write_gsm8k(out))
    engine = {"class_path": "sampling.engines.TransformersEngine", "init_args": {"model": f"{out}/generator/export"}}
    calculator = {"class_path": "sampling.engines.calculator.CalculatorEngine", "init_args": {"engine": engine}}
    template = '{"prompt": "Question: {problem}\\nAnswer:\\n", "step_tag": "<step>"}'
    fit = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    labelled = [f"--data.{part}.init_args.path={out}/labels_train" for part in ("train", "validation")]
    everything = [f"--data.{part}.init_args.fold=all" for part in ("train", "validation")]
    return [
        ["stepverify", "fit", "--config", f"{here}/01_generator.yaml", *fit, "--model.init_args.backbone.path", str(base),
         f"--model.init_args.template={template}", "--data.train.init_args.path", problems, "--data.train.init_args.limit", "8",
         "--data.validation.init_args.path", problems, "--data.validation.init_args.start", "8",
         "--trainer.callbacks.init_args.problems.init_args", f'{{"path": "{problems}", "start": 8}}',
         "--trainer.default_root_dir", f"{out}/generator"],
        *(["sampling", "generate", "--config", f"{here}/{name}.yaml", f"--engine={calculator}",
           f"--problems.init_args.path={problems}", "--problems.init_args.limit=4", "--num_samples", "2",
           "--sampling.max_tokens", "12", "--output", f"{out}/{name[3:]}"] for name in ("02_samples_train", "03_samples_test")),
        *(["sampling", "label", "--config", f"{here}/{name}.yaml", "--input", f"{out}/samples_{name[10:]}",
           "--output", f"{out}/{name[3:]}"] for name in ("04_labels_train", "05_labels_test")),
        ["stepverify", "fit", "--config", f"{here}/06_orm.yaml", *fit, *labelled, *everything,
         "--model.init_args.backbone.path", f"{out}/generator/export", "--data.lm.init_args.path", problems,
         "--trainer.default_root_dir", f"{out}/orm"],
        ["sampling", "score", "--config", f"{here}/07_scores.yaml", "--input", f"{out}/labels_test",
         "--verifiers", f'{{"orm": "{out}/orm/export"}}', "--output", f"{out}/scores_test"],
        ["sampling", "rank", "--config", f"{here}/08_rank.yaml", "--input", f"{out}/scores_test", "--output", f"{out}/rankings"],
        ["sampling", "report", "--config", f"{here}/09_report.yaml", "--input", f"{out}/rankings",
         "--scores", f"{out}/scores_test", "--output", f"{out}/report"],
    ]  # fmt: skip


def write_math(folder: Path) -> None:
    """What the MATH recipe reads: problems of addition, ratings of their solutions, and ProcessBench's kind of rows."""

    def write(name: str, rows: list[dict]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    numbers = range(24)
    write("math.jsonl", [
        {"problem": f"{i} + 1 ?", "solution": f"So \\boxed{{{i + 1}}}.", "unique_id": f"train/algebra/{i}.json"}
        for i in numbers
    ])  # fmt: skip
    steps = [[f"{i} + 1 = {i + 1}", f"Correct.\n\n# Answer\n\n{i + 1}"] for i in numbers]
    write("correct.jsonl", [
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
    """The MATH recipe with the transformers engine and an untrained tiny model, which is never correct.

    So the generator learns solutions that are written for it here, and what is selected has no answers.
    """
    here, problems = "lit_configs/math_prm800k", f"{out}/math.jsonl"
    write_math(out)

    def engine(model: Path | str) -> str:
        init = {"model": str(model)}
        return "--engine=" + json.dumps({"class_path": "sampling.engines.TransformersEngine", "init_args": init})

    def solutions(path: str) -> dict:
        return {"class_path": "stepverify.readers.Solutions", "init_args": {"path": f"{out}/{path}"}}

    examples = {"solutions": solutions("ratings.jsonl"), "limit": 2}
    excluded = [solutions("processbench"), {"class_path": "stepverify.readers.Worked", "init_args": examples}]
    template = json.dumps({"prompt": "Problem: {problem}\nSolution:\n", "step_tag": "<step>"})
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

    sampled = [f"--problems.init_args.path={problems}", "--problems.init_args.limit=4", "--num_samples=2",
             "--sampling.max_tokens=12"]  # fmt: skip
    own = ["--model.init_args.backbone.path", str(base), f"--model.init_args.template={template}"]
    exports = {name: f"{out}/{name}/export" for name in ("orm", "prm")}
    prm = json.dumps({"prm": exports["prm"]})
    return [
        ["sampling", "convert", "--config", f"{here}/01_processbench.yaml", "--input.init_args.path", f"{out}/bench.jsonl",
         "--output", f"{out}/processbench/gsm8k.jsonl"],
        ["sampling", "convert", "--config", f"{here}/02_ratings.yaml", f"--input.init_args.path={out}/phase.jsonl",
         f"--input.init_args.exclude={json.dumps(excluded[:1])}", "--output", f"{out}/ratings.jsonl"],
        stage("generate", "03_few_shot", engine(base), *sampled, f"--problems.init_args.exclude={json.dumps(excluded)}",
              f"--few_shot.init_args={json.dumps(examples)}", f"--template={template}"),
        stage("label", "04_few_shot_labels", "--input", f"{out}/few_shot"),
        verifier("05_generator", "correct.jsonl", None, *own),
        *(stage("generate", name, engine(f"{out}/generator/export"), *sampled,
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
        stage("select", "18_select", "--input", f"{out}/scores_train", "--unanswered", "incorrect"),
        stage("label", "19_step_labels", "--input", f"{out}/scores_train"),
        verifier("20_prm_large", "step_labels", "ratings.jsonl", *own),
    ]  # fmt: skip


def small_math_shepherd(out: Path, base: Path) -> list[list[str]]:
    """The Math-Shepherd recipe on made-up problems, with the transformers engine and an untrained tiny model."""
    here, problems = "lit_configs/math_shepherd", write_gsm8k(out)
    template = json.dumps({"prompt": "Question: {problem}\nAnswer:\n", "step_tag": "<step>"})
    engine = json.dumps({"class_path": "sampling.engines.TransformersEngine", "init_args": {"model": str(base)}})
    shots = [f"init_args.path={problems}", "init_args.start=0", "init_args.limit=2"]
    sampled = [
        "--engine",
        engine,
        "--template",
        template,
        "--sampling.max_tokens=12",
        *(f"--few_shot.{shot}" for shot in shots),
    ]
    chosen = [f"--problems.init_args.path={problems}", "--problems.init_args.start=2"]

    def stage(name: str, config: str, *options: str) -> list[str]:
        return ["sampling", name, "--config", f"{here}/{config}.yaml", *options, "--output", f"{out}/{config[3:]}"]

    bench = {"id": "gsm8k-0", "generator": "g", "problem": "1 + 1 ?", "steps": ["1 + 1 = 2", "#### 2"],
             "final_answer_correct": True, "label": -1}  # fmt: skip
    (out / "bench.jsonl").write_text(json.dumps(bench) + "\n")
    prm = json.dumps({"prm": f"{out}/prm/export"})
    return [
        stage("generate", "01_samples_train", *sampled, *chosen, "--problems.init_args.limit=4", "--num_samples=3"),
        stage("generate", "02_samples_test", *sampled, *chosen, "--problems.init_args.limit=2", "--num_samples=3"),
        stage("label", "03_labels_train", "--input", f"{out}/samples_train", "--steps.init_args.engine", engine,
              "--steps.init_args.template", template, "--steps.init_args.sampling.max_tokens=12",
              *(f"--steps.init_args.few_shot.{shot}" for shot in shots)),
        stage("label", "04_labels_test", "--input", f"{out}/samples_test"),
        ["stepverify", "fit", "--config", f"{here}/05_prm.yaml", "--trainer.max_epochs", "1",
         "--trainer.enable_progress_bar", "false", f"--model.init_args.template={template}",
         "--model.init_args.backbone.path", str(base), "--trainer.default_root_dir", f"{out}/prm",
         *(f"--data.{part}.init_args.{key}" for part in ("train", "validation")
           for key in (f"path={out}/labels_train", "fold=all"))],
        ["sampling", "score", "--config", f"{here}/06_scores.yaml", "--input", f"{out}/labels_test",
         "--verifiers", prm, "--output", f"{out}/scores_test"],
        ["sampling", "rank", "--config", f"{here}/07_rank.yaml", "--input", f"{out}/scores_test", "--output", f"{out}/rankings"],
        stage("report", "08_report", "--input", f"{out}/rankings", "--scores", f"{out}/scores_test"),
        ["sampling", "convert", "--config", f"{here}/09_processbench.yaml", "--input.init_args.path", f"{out}/bench.jsonl",
         "--output", f"{out}/processbench.jsonl"],
        stage("score", "10_processbench_scores", "--input", f"{out}/processbench.jsonl", "--verifiers", prm),
        stage("report", "11_processbench_report", "--scores", f"{out}/processbench_scores"),
    ]  # fmt: skip


def write_gsm8k(out: Path) -> Path:
    """Twelve problems in the format of GSM8K."""
    rows = [
        {"question": f"{i} + 1 ?", "answer": f"{i} + 1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(12)
    ]
    (out / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out / "gsm8k.jsonl"
