"""Scored solutions, the sheets that are selected from them, and ratings in them."""

from stepverify.jsonl import read_records
from stepverify.records import RatingSheet, Solution


def sample(problem, index, value, correct, steps=None, **known):
    known = {"finish": "stop", "predicted": "1" if correct else "2", "scores": {"prm": [1.0, value]}} | known
    return Solution(
        id=f"{problem}#{index}", problem_id=problem, problem=f"Question {problem}", answer="1", correct=correct,
        steps=steps or [f"step {index}", "end"], **known,
    )  # fmt: skip


def sheets(folder):
    return list(read_records(folder, RatingSheet))
