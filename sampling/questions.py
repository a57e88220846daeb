"""Answer questions, from a file of them to a report: ``sampling run``.

The stages are those of a recipe: their configurations and a ``pipeline.yaml`` are written into the output folder, and
run by :mod:`sampling.pipeline`. Imports neither torch nor an engine, unless the machine must be looked at.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sampling import pipeline
from stepverify import atomic
from stepverify.answers import Grader
from stepverify.data.encode import load_tokenizer
from stepverify.hub import is_hub_id, local_model
from stepverify.jsonl import read_records, write_lines, write_records
from stepverify.pipelines import PIPELINE
from stepverify.records import InputError, Problem, Solution
from stepverify.starting.rows import find_source, parse_columns, read_problems_of
from stepverify.template import Template, load_export

PROBLEMS, UNANSWERED, ANSWERS = "problems.jsonl", "unanswered.jsonl", "answers.jsonl"
FOLDER = "pipeline"  # of the stages' configurations, in the output folder
_ASKED = (
    "{problem}\n\nSolve the problem step by step. Leave an empty line after each step. "
    "End with the answer in \\boxed{}."
)
_NEXT = "\nQuestion:"  # with which a model without a chat template goes on after its answer


def main(args: Sequence[str]) -> int:
    """Run ``sampling run``; return the exit code of the first stage that fails, or 0.

    Raises:
        InputError: questions, a model or a verifier that cannot be read, before anything is sampled.
    """
    given = _parser().parse_args(args)
    for key in ("num_samples", "max_tokens", "limit"):
        if (number := getattr(given, key)) is not None and number < 1:
            raise InputError(f"--{key}: expected 1 or more, got {number}")
    out: Path = given.output
    atomic.refuse_others(out, folder=True)
    if given.verifier is not None and Path(given.verifier).is_dir() and load_export(given.verifier) is None:
        raise InputError(f"--verifier {given.verifier}: not an exported verifier (no stepverify.json)")
    columns = parse_columns(given.columns) or None
    source = find_source(given.problems, "problems", split=given.split, name=given.name, columns=columns)
    problems = read_problems_of(source, given.problems, given.limit)
    engine, why = choose_engine(given.engine, given.model)
    settings = {"engine": engine, **_asking(given.model, given.max_tokens)}
    answered = [p for p in problems if p.answer is not None]
    groups = {PROBLEMS: answered, UNANSWERED: [p for p in problems if p.answer is None]}
    print(f"{given.problems}: {len(problems):,} problems, {source.describe()}")
    if groups[UNANSWERED]:
        print(
            f"  {len(groups[UNANSWERED]):,} without a reference answer: samples and majority vote, and no accuracy "
            f"({out / ANSWERS})"
        )
    print(f"  engine: {engine['class_path']}: {why}")
    stages: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, some in groups.items():
        if some:
            file = _unchanged(out / name, some)
            stages |= _stages(out, file, settings, given, graded=name == PROBLEMS)
    _write(out / FOLDER, stages)
    if code := pipeline.main([str(out / FOLDER)]):
        return code
    if groups[UNANSWERED]:
        vote(out / "samples_unanswered", out / ANSWERS)
    return 0


def choose_engine(asked: str, model: str) -> tuple[dict[str, Any], str]:
    """Choose vLLM on a GPU if it is installed, otherwise transformers; return its configuration and the reason.

    On a CPU vLLM compiles for minutes before it samples a few questions.

    Args:
        asked: ``auto``, ``vllm`` or ``transformers``.
        model: folder or hub id.
    """
    installed, on_gpu = importlib.util.find_spec("vllm") is not None, _on_gpu()
    if asked == "vllm" and not installed:
        raise InputError("--engine vllm: it is not installed; pip install -e '.[vllm]', or --engine transformers")
    if asked == "vllm" or (asked == "auto" and installed and on_gpu):
        why = "as asked" if asked == "vllm" else "vLLM is installed"
        return {"class_path": "VllmEngine", "init_args": {"model": model}}, why
    if on_gpu:
        why = "vLLM is not installed, which is faster: pip install -e '.[vllm]'"
    else:
        why = "vLLM starts slowly on a CPU; --engine vllm" if installed else "there is no GPU"
    from stepverify.device import multiplies_in_bfloat16

    dtype = "auto" if on_gpu or multiplies_in_bfloat16() else "float32"
    found = {"class_path": "TransformersEngine", "init_args": {"model": model, "dtype": dtype}}
    return found, "as asked" if asked != "auto" else why


def vote(samples: Path, output: Path) -> None:
    """Answer each problem by the majority vote of its samples, without a reference answer.

    Writes lines ``{"id", "problem", "answer", "votes", "samples"}``. A solution that was cut off has no vote; of
    answers with as many votes the first counts.

    Args:
        samples: folder of solutions.
        output: the file to write.
    """
    by_problem: dict[str, list[Solution]] = {}
    for solution in read_records(samples, Solution):
        by_problem.setdefault(solution.problem_id, []).append(solution)
    silent = 0

    def lines(grader: Grader) -> Iterator[str]:
        nonlocal silent
        for name, some in by_problem.items():
            some.sort(key=lambda s: int(s.id.rpartition("#")[2]))
            read = [found.answer for found in grader.extract(s.text for s in some)]
            answers = [a if s.finish != "length" else None for s, a in zip(some, read, strict=True)]
            classes = grader.classes(answers)
            votes = Counter(c for c in classes if c is not None)
            first, number = votes.most_common(1)[0] if votes else (None, 0)
            silent += first is None
            answer = None if first is None else answers[classes.index(first)]
            row = {"id": name, "problem": some[0].problem, "answer": answer, "votes": number, "samples": len(some)}
            yield json.dumps(row, ensure_ascii=False) + "\n"

    with Grader() as grader:
        count = write_lines(output, lines(grader))
    none = f"; {silent:,} have no sample that states an answer" if silent else ""
    print(f"{output}: {count:,} problems answered by majority vote{none}")


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _asking(model: str, max_tokens: int) -> dict[str, Any]:
    """Return sampling options, and a template where the model was not exported with one."""
    folder = local_model(model, weights=False)
    if not is_hub_id(folder) and not Path(folder).is_dir():
        raise InputError(f"--model {model}: no such folder, and no id of a hub repository")
    sampling: dict[str, Any] = {"max_tokens": max_tokens}
    if load_export(folder) is not None:
        return {"sampling": sampling}
    tokenizer = load_tokenizer(folder)
    if getattr(tokenizer, "chat_template", None):
        chat = {"chat": True, "prompt": _ASKED, "step_separator": "\n\n"}
        try:
            Template(**chat).rendered_by(tokenizer)  # type: ignore[arg-type]
            return {"sampling": sampling, "template": chat}
        except InputError as reason:
            print(f"  plain prompts: {reason}")
    return {"sampling": sampling | {"stop": [_NEXT]}}


def _unchanged(file: Path, problems: Sequence[Problem]) -> Path:
    """Write problems; leave a file with the same ones, so that a finished stage finds its input."""
    if not (file.is_file() and [*read_records(file, Problem)] == [*problems]):
        write_records(file, problems)
    return file


def _stages(
    out: Path, problems: Path, settings: dict[str, Any], given: argparse.Namespace, *, graded: bool
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return name → command and configuration of the stages for problems with answers, or without."""
    end = "" if graded else "_unanswered"
    last = f"samples{end}"
    reader = {"class_path": "Problems", "init_args": {"path": str(problems)}}
    own = {"problems": reader, "num_samples": given.num_samples, "seed": given.seed, "output": str(out / last)}
    stages: dict[str, tuple[str, dict[str, Any]]] = {last: ("generate", settings | own)}
    if graded:
        stages["labels"], last = ("label", {"input": str(out / last), "output": str(out / "labels")}), "labels"
    if given.verifier is not None:
        name = f"scores{end}"
        scored = {"input": str(out / last), "verifiers": {"verifier": given.verifier}, "output": str(out / name)}
        stages[name], last = ("score", scored), name
    if graded:
        stages["rankings"] = "rank", {"input": str(out / last), "output": str(out / "rankings")}
        both = {"input": str(out / "rankings"), "scores": str(out / last)}
        stages["report"] = "report", both | {"output": str(out / "report")}
    return stages


def _write(folder: Path, stages: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """Write a configuration for each stage, and the pipeline of them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {f"{i:02}_{name}": stage for i, (name, stage) in enumerate(stages.items(), start=1)}
    for name, (_, config) in names.items():
        # JSON is YAML; one key a line.
        text = "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in config.items())
        atomic.write(folder / f"{name}.yaml", text.replace("${", "$${"))
    listed = "".join(f"  {name}: sampling {stage}\n" for name, (stage, _) in names.items())
    head = f"# Written by sampling run.\n#   sampling pipeline {folder}\n"
    atomic.write(folder / PIPELINE, f"{head}stages:\n{listed}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sampling run", allow_abbrev=False,
        description="Answer questions, from a file to a report: generate, label, score, rank, report. The same command "
        "goes on where it was stopped.",
    )  # fmt: skip
    parser.add_argument("--problems", required=True, help="file or hub data set of questions, as readers take them")
    parser.add_argument("--model", required=True, help="folder or hub id of the model that answers")
    parser.add_argument("--output", type=Path, default=Path("runs/answers"), help="folder; default: runs/answers")
    parser.add_argument("--num_samples", type=int, default=8, help="solutions of each problem; default: 8")
    parser.add_argument("--verifier", help="exported verifier that scores the solutions; adds best-of-N to the report")
    parser.add_argument("--limit", type=int, help="take the first problems alone")
    parser.add_argument("--columns", nargs="+", default=[], metavar="COLUMN=FIELD", help="question=problem gold=answer")
    parser.add_argument("--split", help="split of a hub data set")
    parser.add_argument("--name", help="configuration of a hub data set, if it has several")
    parser.add_argument("--max_tokens", type=int, default=1024, help="length of a solution at most; default: 1024")
    parser.add_argument("--engine", choices=["auto", "vllm", "transformers"], default="auto", help="default: auto")
    parser.add_argument("--seed", type=int, default=0, help="of the samples; default: 0")
    return parser
