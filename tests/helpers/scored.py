"""Solutions with scores."""

from dataclasses import asdict

from sampling.report import quality
from stepverify.records import Solution, StepLabel


def plain(statistics):
    """Verifier → its statistics as JSON values."""
    return {name: asdict(found) for name, found in statistics.items()}


def solution_statistics(collected, used):
    return plain(quality.solution_statistics(collected, used))


def solution(index, scores, *, correct=True, labels=None, num_steps=2, num_tokens=10, predicted="1"):
    return Solution(
        id=f"p#{index}", problem_id="p", problem="Question", answer="1", predicted=predicted, correct=correct,
        steps=["s"] * num_steps, token_ids=[1] * num_tokens, scores=scores,
        step_labels=labels and [r if r is None else StepLabel(rating=r) for r in labels],
    )  # fmt: skip
