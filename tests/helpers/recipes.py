"""Every recipe on a handful of problems with tiny models, everything below one folder: arguments of ``sampling pipeline``."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

from sampling.engines import Completion, Engine, Request, SamplingOptions
from sampling.pipeline import plan
from stepverify.data.encode import load_tokenizer
from stepverify.readers import Synthetic

OVERLAY = {"trainer": {"max_epochs": 1, "check_val_every_n_epoch": 1, "enable_progress_bar": False}}


class Adding(Engine):
    """Answers ``Problem: 3 + 1 ?``: the first, third, ... completion is correct, the others are not."""

    def __init__(self, model: str) -> None:
        self.model = model

    def identity(self) -> dict[str, Any]:
        return {"engine": "adding", "model": self.model}

    @property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.model)

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        number = int(re.findall(r"(\d+) \+ 1 \?", self.tokenizer.decode(request.prompt_ids))[-1])
        texts = [f"{number} + 1 = {number + 1}\nSo \\boxed{{{number + 1 - i % 2}}}." for i in range(request.n)]
        return [Completion(self.tokenizer.encode(text), text, "stop") for text in texts]


class Solving(Engine):
    """Solves embedded training and held-out problems step by step; every other completion ends in another answer."""

    def __init__(self, model: str) -> None:
        self.model = model

    def identity(self) -> dict[str, Any]:
        return {"engine": "solving", "model": self.model}

    @property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.model)

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        _, split, number = request.key.partition("#")[0].split("/")
        *_, problem = Synthetic(split, int(number) + 1).problems()
        right = "\n".join(problem.steps)
        texts = [right if i % 2 == 0 else f"{right[:-1]}{(int(right[-1]) + 1) % 7}" for i in range(request.n)]
        return [Completion(self.tokenizer.encode(text), text, "stop") for text in texts]


def arguments(recipe: str, out: Path, **variables: Any) -> list[str]:
    """The recipe's pipeline with fits of one epoch and other values of its variables."""
    out.mkdir(parents=True, exist_ok=True)
    out.with_name("tiny.yaml").write_text(json.dumps(OVERLAY))
    chosen = [
        f"--set={name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in variables.items()
    ]
    return [f"lit_configs/{recipe}", f"--set=runs={out}", *chosen, "--overlay", str(out.with_name("tiny.yaml"))]


def quickstart(out: Path, base: Path) -> list[str]:
    """32 problems: the first one of the validation fold is number 31."""
    return arguments(
        "quickstart", out, num_examples=64, num_problems=32, num_samples=3, num_test_problems=5, num_test_samples=4,
        num_search_problems=3,
    )  # fmt: skip


def small_quickstart(out: Path, base: Path) -> list[list[str]]:
    """The quickstart's command lines on a handful of problems."""
    return [command for _, command in plan(quickstart(out, base))[0]]


def quickstart_search(out: Path, base: Path) -> list[str]:
    """Every search with an untrained generator and reward model; the policy needs 20 problems."""
    untrained(out, base)
    return arguments("quickstart/search", out, num_test_problems=20, sampling={"temperature": 1.0, "max_tokens": 12})


def math_shepherd_search(out: Path, base: Path) -> list[str]:
    """Three problems, with an untrained generator and reward model."""
    untrained(out, base)
    problems = write_gsm8k(out)
    return arguments(
        "math_shepherd/search", out, test=str(problems), generator=f"{out}/generator/export", num_test_problems=3,
        max_tokens=12, search_engine={"class_path": "TransformersEngine", "init_args": {"model": "${generator}"}},
    )  # fmt: skip


def untrained(out: Path, base: Path) -> None:
    """Write what a search takes: a generator and a reward model."""
    from tests.helpers.exports import write_process

    (out / "generator").mkdir(parents=True)
    (out / "generator" / "export").symlink_to(base)
    (out / "prm").mkdir()
    write_process(base, out / "prm" / "export")


def expert_iteration(out: Path, base: Path) -> list[str]:
    """With an engine that solves half of all problems, and an untrained reward model."""
    untrained(out, base)
    facts = out / "prm" / "export" / "stepverify.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"max_length": 128}))
    engine = {"class_path": f"{__name__}.Solving", "init_args": {"model": "${generator}"}}
    return arguments(
        "expert_iteration", out, start=str(out), engine=engine, min_score=0, num_problems=32, num_samples=2,
        num_test_problems=4, num_test_samples=2,
    )  # fmt: skip


def distillation(out: Path, base: Path) -> list[str]:
    """24 problems × 4 solutions, every other one correct, with the values of two teachers; also for its objectives."""
    folder = out / "strictprmbench"
    folder.mkdir(parents=True)
    scores, texts = [], []
    for i in range(24):
        name = f"gsm8k_{i:03}"
        scores.append({
            "problem_id": name, "question": f"{i} + 1 ?", "ground_truth": str(i + 1),
            "candidates": [
                {"answer": "", "is_correct": True, "step_scores": {"one": [0.9, 0.9 - 0.8 * (k % 2)], "two": [0.7 - 0.1 * (k % 2), 0.5]}}
                for k in range(4)
            ],
        })  # fmt: skip
        texts.append({
            "problem_id": name,
            "candidates": [{"steps": [f"{i} + 1 and {k}", f"So it is {i + 1 + k % 2}"]} for k in range(4)],
        })  # fmt: skip
    for kind, rows in (("scores", scores), ("steps_text", texts)):
        with gzip.open(folder / f"gsm8k_bon32_{kind}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    write_processbench(out / "bench.jsonl")
    template = {"prompt": "Question: {problem}\nAnswer:\n", "step_tag": "<step>"}
    return arguments(
        "distillation", out, data=str(out), model=str(base), template=template, teacher=["one", "two"],
        processbench=f"{out}/bench.jsonl", max_solutions=2,
    )  # fmt: skip


def gsm8k(out: Path, base: Path) -> list[str]:
    """With the transformers engine and an untrained model; number 10 is the first problem of the validation fold."""
    problems = write_gsm8k(out)
    engine = {"class_path": "TransformersEngine", "init_args": {"model": "${generator}"}}
    held_out = {"class_path": "GSM8K", "init_args": {"path": "${train}", "start": 11, "limit": 2}}
    return arguments(
        "gsm8k", out, train=str(problems), test=str(problems), model=str(base), held_out=held_out,
        template={"prompt": "Question: {problem}\nAnswer:\n", "step_tag": "<step>"}, max_tokens=12,
        engine={"class_path": "CalculatorEngine", "init_args": {"engine": engine}},
        num_examples=8, num_problems=11, num_samples=2, num_test_problems=4, num_test_samples=2,
    )  # fmt: skip


def math_prm800k(out: Path, base: Path) -> list[str]:
    """With every stage, and an engine of its own, so that some solutions are correct and others are not."""
    write_math(out)

    def engine(model: str) -> dict[str, Any]:
        return {"class_path": f"{__name__}.Adding", "init_args": {"model": model}}

    return arguments(
        "math_prm800k", out, data=str(out), processbench=f"{out}/bench_${{subset}}.jsonl", model=str(base),
        large_model=str(base), template={"prompt": "Problem: {problem}\nSolution:\n", "step_tag": "<step>"},
        base_engine=engine("${model}"), engine=engine("${runs}/generator/export"), select=True, two_stage=True,
        num_examples=40, num_example_samples=2, num_problems=40, num_samples=4, num_test_problems=4, num_test_samples=3,
    )  # fmt: skip


def math_shepherd(out: Path, base: Path) -> list[str]:
    """With the transformers engine and an untrained model, of which every rollout is incorrect."""
    problems = write_gsm8k(out)
    few_shot = {"class_path": "GSM8K", "init_args": {"path": "${train}", "start": 11, "limit": 2}}
    write_processbench(out / "bench.jsonl")
    return arguments(
        "math_shepherd", out, train=str(problems), test=str(problems), processbench=f"{out}/bench.jsonl",
        model=str(base), few_shot=few_shot, template={"prompt": "Question: {problem}\nAnswer:\n", "step_tag": "<step>"},
        engine={"class_path": "TransformersEngine", "init_args": {"model": "${model}"}}, max_tokens=12,
        num_problems=11, num_samples=2, num_test_problems=2, num_test_samples=2,
    )  # fmt: skip


def gsm8k_chat(out: Path, base: Path) -> list[str]:
    """With the transformers engine and an untrained model: solutions are noise in any template."""
    problems = write_gsm8k(out)
    template = {"chat": True, "system": "Be brief.", "step_separator": "\n\n", "step_tag": "<step>"}
    return arguments(
        "gsm8k_chat", out, train=str(problems), test=str(problems), model=str(base), template=template, max_tokens=12,
        engine={"class_path": "TransformersEngine", "init_args": {"model": "${model}"}},
        num_problems=11, num_samples=2, num_test_problems=2, num_test_samples=2,
    )  # fmt: skip


def generative_verifier(out: Path, base: Path) -> list[str]:
    """With a critic of known verdicts as teacher, and as the verifier over the tokenizer of what was fitted."""
    from stepverify.jsonl import write_records
    from stepverify.records import Solution

    out.mkdir(parents=True, exist_ok=True)
    for name in ("labels_train", "labels_test"):
        write_records(
            (out / name).with_suffix(".jsonl"),
            [
                Solution(
                    id=f"p/{p}#{i}", problem_id=f"p/{p}", problem=f"{p} + 1 ?", answer=f"{p + 1}", finish="stop",
                    steps=[f"{p} + 1 = {p + 1 + i}", f"#### {p + 1 + i}"], predicted=f"{p + 1 + i}", correct=i == 0,
                )
                for p in range(13) for i in range(2)
            ],
        )  # fmt: skip
    words = {"verdict": "Verdict:", "correct": "Y", "incorrect": "N"}  # of a tokenizer of single characters
    critic = {"class_path": "tests.helpers.critics.Adder", "init_args": {"model": str(base)}}
    return arguments(
        "generative_verifier", out, labels_train=f"{out}/labels_train.jsonl", labels_test=f"{out}/labels_test.jsonl",
        model=str(base), template={"prompt": "{problem}\n"}, verification=words, teacher_engine=critic,
        engine={**critic, "init_args": {"model": "${runs}/verifier/export"}}, num_train_critiques=1, num_critiques=2,
    )  # fmt: skip


def write_processbench(path: Path) -> None:
    """One solution, without an error."""
    row = {"id": "gsm8k-0", "generator": "g", "problem": "1 + 1 ?", "steps": ["1 + 1 = 2", "#### 2"],
           "final_answer_correct": True, "label": -1}  # fmt: skip
    path.write_text(json.dumps(row) + "\n")


def write_gsm8k(out: Path) -> Path:
    """Thirteen problems in the format of GSM8K."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {"question": f"{i} + 1 ?", "answer": f"{i} + 1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(13)
    ]
    (out / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out / "gsm8k.jsonl"


def write_math(folder: Path) -> None:
    """What the MATH recipe reads: problems of addition, ratings of their solutions, and the parts of ProcessBench."""

    def write(name: str, rows: list[dict]) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def rated(numbers: range) -> list[dict]:
        return [
            {"generation": None, "is_quality_control_question": False, "is_initial_screening_question": False,
             "question": {"problem": f"{i} + 1 ?", "ground_truth_answer": str(i + 1)},
             "label": {"finish_reason": "solution", "steps": [
                 {"completions": [{"text": text, "rating": 1}, {"text": "So 0.", "rating": -1}], "chosen_completion": 0}
                 for text in (f"{i} + 1 = {i + 1}", f"Correct.\n\n# Answer\n\n{i + 1}")
             ]}}
            for i in numbers
        ]  # fmt: skip

    for split, numbers in (("train", range(60)), ("test", range(60, 64))):
        write(f"math_splits/{split}.jsonl", [
            {"problem": f"{i} + 1 ?", "solution": f"So \\boxed{{{i + 1}}}.", "answer": str(i + 1),
             "unique_id": f"{split}/algebra/{i}.json"}
            for i in numbers
        ])  # fmt: skip
    write("data/phase1_train.jsonl", rated(range(12)))
    write("data/phase2_train.jsonl", rated(range(12, 40)))
    for k, subset in enumerate(("gsm8k", "math", "olympiadbench", "omnimath")):
        write(f"bench_{subset}.jsonl", [
            {"id": f"{subset}-{i}", "generator": "m", "problem": f"{100 + 4 * k + i} + 1 ?", "steps": ["a", "b"],
             "label": i % 2 - 1, "final_answer_correct": i % 2 == 0}
            for i in range(4)
        ])  # fmt: skip
