"""Rows of 24 problems of addition in each format that a first configuration is written for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepverify.readers import math_shepherd

NUMBERS = range(24)
COLUMNS = {"own columns": ["ask=problem", "parts=steps", "marks=step_labels"]}


def rows(name: str) -> list[dict[str, Any]]:
    """One correct and one incorrect solution of each problem; of PRM800K and worked formats one."""
    return [row for i in NUMBERS for row in FORMATS[name](i)]


def write(path: Path, name: str) -> str:
    """Write the rows as JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(name)))
    return str(path)


def _both(make: Any) -> Any:
    def of(i: int) -> list[dict[str, Any]]:
        a, b = i % 7, i // 7
        return [
            make(f"{a} + {b} + {i % 5} ?", [f"{a} + {b} = {a + b}", f"#### {a + b + i % 5 + k}"], [True, k == 0])
            for k in range(2)
        ]

    return of


def _signs(correct: list[bool]) -> list[str]:
    return ["+" if one else "-" for one in correct]


def _own(problem: str, steps: list[str], correct: list[bool]) -> dict[str, Any]:
    name = problem.replace(" ", "")
    return {
        "id": f"{name}#{int(correct[-1])}", "problem_id": name, "problem": problem, "steps": steps,
        "answer": "1", "correct": correct[-1], "step_labels": [{"rating": 1 if one else -1} for one in correct],
    }  # fmt: skip


def _prm800k(problem: str, steps: list[str], correct: list[bool]) -> dict[str, Any]:
    turns = [
        {"completions": [{"text": step, "rating": 1 if one else -1}], "chosen_completion": 0}
        for step, one in zip(steps, correct, strict=True)
    ]
    return {
        "labeler": "x", "generation": None, "is_quality_control_question": False,
        "is_initial_screening_question": False, "question": {"problem": problem, "ground_truth_answer": "1"},
        "label": {"finish_reason": "solution", "steps": turns},
    }  # fmt: skip


def _numbered(problem: str, steps: list[str]) -> str:
    return f"{problem} " + "\n".join(f"Step {i}: {step} ки" for i, step in enumerate(steps, start=1))


FORMATS = {
    "TRL": _both(lambda p, s, c: {"prompt": p, "completions": s, "labels": c}),
    "Math-Shepherd": _both(math_shepherd.render),
    "OpenRLHF": _both(lambda p, s, c: {"input": _numbered(p, s), "value": _signs(c)}),
    "RLHFlow": _both(lambda p, s, c: {"conversations": [
        {"role": role, "content": text} for i, (step, sign) in enumerate(zip(s, _signs(c), strict=True), start=1)
        for role, text in (("user", f"{p} " * (i == 1) + f"Step {i}: {step}"), ("assistant", sign))
    ]}),
    "OpenR": _both(lambda p, s, c: {"question": p, "process": "".join(f"{x} ки" for x in s), "label": _signs(c)}),
    "PRM800K": _both(_prm800k),
    "own records": _both(_own),
    "own columns": _both(lambda p, s, c: {"ask": p, "parts": s, "marks": c, "more": 1}),
    "usual columns": _both(lambda p, s, c: {"question": p, "response": "\n".join(s), "ratings": [0.9 * x for x in c]}),
    "graded": _both(lambda p, s, c: {"question": p, "response": "\n".join(s), "is_correct": c[-1]}),
    "GSM8K": _both(lambda p, s, c: {"question": p, "answer": "\n".join(s)}),
    "worked records": lambda i: [{"id": f"w/{i}", "problem": f"{i % 7} + 1 ?", "answer": "1", "steps": ["a = 1"]}],
    "problems": lambda i: [{"question": f"{i} + 1 ?", "target": i + 1}],
}  # fmt: skip
