"""Small valid documents of every format that the programs read, and what reads each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampling.__main__ import main as sampling
from sampling.runtime.inputs import read_problems
from sampling.stages.convert import convert
from sampling.stages.generate import generate
from stepverify import readers
from stepverify.jsonl import dump_line, read_records, write_records
from stepverify.readers import Reader
from stepverify.records import Judgement, Problem, RatingSheet, Rollout, Solution
from tests.campaign import stages
from tests.campaign.stages import STAGES, HashEngine


@dataclass(frozen=True)
class Format:
    """One format of file.

    Attributes:
        documents: valid ones, a line of the file each.
        read: reads the file, in a folder with the inputs of all stages.
        file: its name there.
        whole: the file is one document, not lines.
        weight: share of the trials, for formats that are slow to read less.
    """

    documents: list[Any]
    read: Callable[[Path], object]
    file: str = "mutated.jsonl"
    whole: bool = False
    weight: float = 1.0


def _plain(records: list[Any]) -> list[Any]:
    return [json.loads(dump_line(record)) for record in records]


def _reader(make: Callable[[str], Reader], documents: list[Any]) -> Format:
    """A format whose solutions are converted, so that what was read is written again."""

    def read(folder: Path) -> None:
        reader = make(str(folder / "mutated.jsonl"))
        convert(reader, folder / "converted.jsonl")
        list(read_records(folder / "converted.jsonl", Solution))

    return Format(documents, read)


def _problem_reader(make: Callable[[str], Reader], documents: list[Any]) -> Format:
    def read(folder: Path) -> None:
        write_records(folder / "converted.jsonl", read_problems(make(str(folder / "mutated.jsonl"))))
        list(read_records(folder / "converted.jsonl", Problem))

    return Format(documents, read)


def _stage(name: str, file: str, documents: list[Any], weight: float = 1.0) -> Format:
    def read(folder: Path) -> None:
        STAGES[name](folder, folder / "out")

    return Format(documents, read, file, weight=weight)


def _resumed(name: str, file: str, whole: bool, documents: list[Any]) -> Format:
    """A file of an unfinished folder of a stage, which goes on."""

    def read(folder: Path) -> None:
        STAGES[name](folder, folder / "out")

    return Format(documents, read, f"out/{file}", whole=whole, weight=0.5)


def _configured(stage: str, tree: dict[str, Any], file: str = "config.yaml", more: tuple[str, ...] = ()) -> Format:
    def read(folder: Path) -> None:
        if file != "config.yaml":
            (folder / "config.yaml").write_text(
                json.dumps({"input": "${here}/scored.jsonl", "output": "${here}/out", "sizes": "${sizes}"})
            )
        sampling([stage, *(("--config", str(folder / "config.yaml")) if not more else (str(folder), *more))])

    return Format([tree], read, file, whole=True, weight=0.5)


def _export(folder: Path) -> None:
    engine = HashEngine()
    engine.model = str(folder)  # type: ignore[misc]
    generate(engine, readers.Problems(str(folder / "problems.jsonl")), folder / "out", num_samples=1)


RELEASED: dict[str, tuple[Callable[[str], Reader], list[Any]]] = {
    "MathShepherd": (readers.MathShepherd, [{
        "input": "What is 1? Step 1: It is 1. ки\nStep 2: #### 1 ки", "label": "What is 1? Step 1: It is 1. +\nStep 2: #### 1 -", "task": "GSM8K",
    }]),
    "OmegaPRM": (readers.OmegaPRM, [{
        "question": "What is 1?", "final_answer": "1",
        "reasoning_steps": [{"solution_prefix": "What is 1?", "mc_value": 0.5}, {"solution_prefix": "What is 1? a", "mc_value": 1}],
    }, {
        "question": "What is 2?", "final_answer": "2",
        "reasoning_steps": {"text": "What is 2?", "mc_value": 0.5, "children": [{"text": "b", "mc_value": 1.0, "children": []}]},
    }]),
    "OpenR": (readers.OpenR, [{"question": "What is 1?", "process": "Step 1: a\n\n\n\n\nStep 2: b\n\n\n\n\n", "label": ["+", "-"]}]),
    "OpenRLHF": (readers.OpenRLHF, [{"input": "What is 1? Step 1: a ки\nStep 2: b ки", "value": ["+", 0.5]}]),
    "PRM800K": (readers.PRM800K, [{
        "labeler": "x", "generation": 1, "is_quality_control_question": False, "is_initial_screening_question": False,
        "question": {"problem": "What is 1?", "ground_truth_answer": "1"},
        "label": {"finish_reason": "solution", "steps": [
            {"completions": [{"text": "a", "rating": 1, "flagged": None}, {"text": "c", "rating": -1}], "human_completion": None, "chosen_completion": 0},
            {"completions": [{"text": "d", "rating": -1}], "human_completion": {"text": "b"}, "chosen_completion": None},
        ]},
    }]),
    "ProcessBench": (readers.ProcessBench, [{
        "id": "math-0", "generator": "g", "problem": "What is 1?", "steps": ["a", "b"], "final_answer_correct": False, "label": 1,
    }]),
    "RLHFlow": (readers.RLHFlow, [{"conversations": [
        {"role": "user", "content": "What is 1? Step 1: a"}, {"role": "assistant", "content": "+"},
        {"role": "user", "content": "Step 2: b"}, {"role": "assistant", "content": "-"},
    ]}]),
    "Stepwise": (readers.Stepwise, [{"prompt": "What is 1?", "completions": ["a", "b"], "labels": [True, 0.25]}]),
    "OpenAISolutions": (readers.OpenAISolutions, [{
        "question": "What is 1?", "ground_truth": "It is 1.\nA: 1",
        **{name: {"solution": "a\nA: 1", "is_correct": True} for name in
           ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")},
    }]),
    "HumanRatings": (readers.HumanRatings, [{
        "id": "p/1#0", "problem_id": "p/1", "problem": "What is 1?", "answer": "1", "steps": ["a", "b"], "ratings": [1, None], "scores": [0.5, 0.1],
    }]),
}  # fmt: skip


def formats() -> dict[str, Format]:
    """Every format by name."""
    scored, plain = _plain(stages.solutions()[:6]), _plain([_unlabelled(s) for s in stages.solutions()[:6]])
    found = {f"rows of {name}": _reader(make, documents) for name, (make, documents) in RELEASED.items()}
    found |= {
        "rows of GSM8K": _problem_reader(readers.GSM8K, [{"question": "What is 1?", "answer": "It is <<1=1>>1.\n#### 1"}]),
        "rows of MATH": _problem_reader(readers.MATH, [{
            "problem": "What is 1?", "solution": "It is $\\boxed{1}$.", "answer": "1", "level": "Level 3", "subject": "x", "unique_id": "test/1.json",
        }]),
        "problems: generate": _stage("generate", "problems.jsonl", _plain(stages.problems()[:3])),
        "solutions: label": _stage("label", "solutions.jsonl", plain),
        "solutions: label, rollouts": _stage("label, rollouts", "solutions.jsonl", plain, weight=0.5),
        "solutions: score": _stage("score", "solutions.jsonl", scored),
        "solutions: select": _stage("select", "scored.jsonl", scored),
        "solutions: rank": _stage("rank", "scored.jsonl", scored),
        "solutions: compare": _stage("compare", "scored.jsonl", scored),
        "solutions: convert": _stage("convert", "scored.jsonl", scored),
        "solutions: report": _stage("report", "scored.jsonl", scored, weight=0.3),
        "rankings: report": _stage("report", "rankings.jsonl", _plain(stages.rankings()[:3]), weight=0.3),
        "pairs: grade": _stage("grade", "pairs.jsonl", [{"id": "a", "gold": "1", "pred": "2"}, {"id": "b", "gold": "x", "pred": None}]),
        "rollouts: label goes on": _resumed("label, rollouts", "rollouts/part-00000.jsonl", False, _plain([Rollout(
            id="p/0@123+0", problem_id="p/0", steps=["a"], seed=1, completions=["b", "#### 0"], finish=["stop", "length"],
            answers=[None, "0"], correct=[False, True], tokens=4,
        )])),
        "judgements: label goes on": _resumed("label, judge", "judge/part-00000.jsonl", False, _plain([Judgement(
            id="p/0#0", labelled=1, seed=1, texts=["\\boxed{1}"], finish=["stop"], verdicts=[1], tokens=2,
        )])),
        "records: score goes on": _resumed("score", "part-00000.jsonl", False, scored[:2]),
        "sheets: select goes on": _resumed("select", "part-00000.jsonl", False, _plain([RatingSheet(
            id="p/0#0", problem_id="p/0", problem="What is 0?", steps=["a"], ratings=[None],
        )])),
        "stepverify.json": Format([{
            "format": 1, "template": {"prompt": "Q {problem}", "step_separator": "\n", "step_tag": "<s>", "positive": "+", "negative": "-"},
            "objective": "process",
        }], _export, "stepverify.json", whole=True),
        "config.yaml: rank": _configured("rank", {
            "input": "scored.jsonl", "output": "out", "sizes": [1, 2], "num_subsets": 5, "aggregation": {"prm": "min"}, "simulated": [0.7],
            "rules": None, "top_k": [2],
        }),
        "config.yaml: generate": _configured("generate", {
            "engine": {"class_path": "tests.campaign.stages.HashEngine", "init_args": {"style": "solve"}},
            "problems": {"class_path": "Problems", "init_args": {"path": "problems.jsonl"}},
            "sampling": {"temperature": 0.5, "stop": ["x"]}, "template": {"prompt": "{problem}"}, "output": "out", "num_samples": 2,
        }),
        "vars.yaml": _configured("rank", {"sizes": [1, 2], "name": "x", "nested": "${name}/y"}, "vars.yaml"),
        "pipeline.yaml": _configured("pipeline", {"set": {}, "stages": {
            "rank": "sampling rank", "score": {"run": "sampling score", "config": ["rank.yaml"], "set": {}, "when": []},
        }}, "pipeline.yaml", ("--dry-run",)),
    }  # fmt: skip
    for name, file in (("rank", "scored"), ("report", "rankings")):
        found[f"manifest of the input: {name}"] = _described(name, file)
    for name in ("generate", "label", "score", "select", "rank"):
        found[f"manifest of the output: {name}"] = _resumed(name, "manifest.json", True, [_manifest(name)])
    return found


def _unlabelled(s: Solution) -> Solution:
    return Solution(
        id=s.id, problem_id=s.problem_id, problem=s.problem, steps=s.steps, answer=s.answer, finish=s.finish
    )


def _manifest(stage: str) -> dict[str, Any]:
    aggregation = {"prm": {"how": "prod", "chosen_on": "default"}, "orm": {"how": "last", "chosen_on": "default"}}
    return {
        "stage": stage, "config": {"seed": 0, "steps": None}, "inputs": {"input": {"path": "x", "sha256": "0"}}, "finished": True,
        "summary": {
            "trained_on": {"prm": {"problems": 1, "of": 2, "first": "p/0"}, "orm": None}, "aggregation": aggregation, "sizes": [1, 2, 3],
            "fewer_samples": {"p/9": 1}, "validation": {"num_problems": 2, "n": 2, "best_of_n": {"prm": {"prod": 0.5}}},
            "rollouts": 3, "rollout_tokens": 20, "seconds": 1.5,
        },
        "records": {"count": 6, "sha256": None}, "versions": {"stepverify": "1"},
    }  # fmt: skip


def _described(name: str, file: str) -> Format:
    """The manifest of a finished folder that a stage reads."""

    def read(folder: Path) -> None:
        made = stages.solutions()[:6] if file == "scored" else stages.rankings()
        write_records(folder / "input" / "part-00000.jsonl", made)
        if name == "rank":
            sampling(["rank", "--input", str(folder / "input"), "--output", str(folder / "out"), "--num_subsets", "3"])
        else:
            sampling(
                ["report", "--input", str(folder / "input"), "--output", str(folder / "out"), "--num_bootstrap", "9"]
            )

    return Format(
        [_manifest({"scored": "score", "rankings": "rank"}[file])], read, "input/manifest.json", whole=True, weight=0.5
    )
