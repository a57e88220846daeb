"""Scored solutions, the sheets that are selected from them, and ratings in them."""

from stepverify.jsonl import read_records, write_records
from stepverify.records import RatingSheet, Solution


def sample(problem, index, value, correct, steps=None, **known):
    known = {"finish": "stop", "predicted": "1" if correct else "2", "scores": {"prm": [1.0, value]}} | known
    return Solution(
        id=f"{problem}#{index}", problem_id=problem, problem=f"Question {problem}", answer="1", correct=correct,
        steps=steps or [f"step {index}", "end"], **known,
    )  # fmt: skip


def sheets(folder):
    return list(read_records(folder, RatingSheet))


def write_scored(folder):
    """p: incorrect 0.9, 0.8, 0.7 and its copy, correct 0.95; q: correct 0.6, 0.5, incorrect 0.4, one cut off, one of no score."""
    rows = [
        sample("p", 0, 0.7, False), sample("q", 0, 0.6, True), sample("p", 1, 0.9, False), sample("p", 2, 0.95, True),
        sample("q", 1, 0.4, False), sample("p", 3, 0.8, False), sample("p", 4, 0.7, False, ["step  0", "end"]),
        sample("q", 2, 0.99, False, finish="length"), sample("q", 3, 0.5, True),
        sample("q", 4, 0.0, False, scores={"prm": []}), sample("q", 5, 0.3, False, predicted=None),
    ]  # fmt: skip
    write_records(folder / "part-00000.jsonl", rows)
    return folder
