"""Say which problems verifiers were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampling.scorers.base import Scorer
from stepverify.training_problems import describe_trained


def say_trained(scorers: Mapping[str, Scorer], problems: Mapping[str, str]) -> dict[str, dict[str, Any] | None]:
    """Count the problems that verifiers were trained on, and print a line for each verifier that saw some.

    Args:
        scorers: name → verifier; it is also said of which one this is not known.
        problems: digests of the problems' texts → ids.

    Returns:
        Name → result of :func:`stepverify.training_problems.count_trained`, for the summary.
    """
    trained = {name: scorer.count_trained(problems) for name, scorer in scorers.items()}
    for line in describe_trained(trained):
        print(f"WARNING: {line}", flush=True)
    for name in (name for name, found in trained.items() if found is None):
        known = scorers[name].export or type(scorers[name]).__name__
        print(f"{name}: {known} does not say which problems it was trained on", flush=True)
    return trained
