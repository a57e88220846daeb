"""Scenarios of hostile servers (:mod:`tests.helpers.servers`): values, retries, or one line; never anything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.helpers.servers import SCENARIOS, Scenario, as_expected, outcome

NAME = "servers"


def run(size: float = 1.0) -> list[tuple[Scenario, str]]:
    """Run all scenarios ``size`` times, or a share of them; each with its outcome in the campaign's words."""
    return [(scenario, judged(scenario)[0]) for scenario, _ in _chosen(size)]


def trials(folder: Path, size: float, seed: int) -> Iterator[Any]:
    """The same as trials of the campaign."""
    from tests.campaign.trial import Trial

    for scenario, times in _chosen(size):
        yield Trial(f"{scenario.name} {times}", f"servers, {scenario.form}", lambda own, s=scenario: judged(s))


def judged(scenario: Scenario) -> tuple[str, str]:
    """Run a scenario: ``kept`` (a value, after retries perhaps), ``refused`` (one line, or a prompt left out), or a fault."""
    try:
        found = outcome(scenario)
    except TimeoutError:
        return "hang", scenario.name
    except Exception as error:
        return "traceback", repr(error)
    if not as_expected(scenario, found):
        return ("silent" if found in {"kept", "retried"} else "unnamed"), found
    return ("kept" if found in {"kept", "retried"} else "refused"), ""


def _chosen(size: float) -> Iterator[tuple[Scenario, int]]:
    number = max(1, round(size * len(SCENARIOS)))
    return ((SCENARIOS[i % len(SCENARIOS)], i // len(SCENARIOS)) for i in range(number))
