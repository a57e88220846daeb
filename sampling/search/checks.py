"""Check that engine, verifier and strategy fit together, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from sampling.engines import Engine
from sampling.engines.prompts import Prompts
from sampling.scorers import Scorer
from sampling.search.base import SearchStrategy
from sampling.search.costs import Pricing
from stepverify.records import InputError, Problem, Solution
from stepverify.template import Template, load_export


def check_agreement(scorer: Scorer, name: str, strategy: SearchStrategy, template: Template) -> None:
    """Check that a verifier judges the steps that are sampled, and judges steps at all where that is needed.

    Raises:
        InputError: other step separators, or an outcome verifier for a strategy that needs the values of steps.
    """
    if strategy.needs_step_values and scorer.objective == "outcome":
        raise InputError(
            f"strategy: {type(strategy).__name__} needs the values of steps, and verifier {name} is an outcome "
            "verifier; take a process reward model, or the strategy BestOfN"
        )
    export = load_export(scorer.export) if scorer.export else None
    if export is None:
        return
    theirs = export[0]
    if theirs.step_separator != template.step_separator:
        raise InputError(
            f"verifier {name}: was trained on steps that end with {theirs.step_separator!r}, the generator's template "
            f"has template.step_separator {template.step_separator!r}; its values would be those of other steps"
        )
    if theirs.text != template.text:
        print(f"verifier {name}: reads problems as {theirs.text!r}, the generator as {template.text!r}", flush=True)


def pricing_of(engine: Engine, scorer: Scorer, prompts: Prompts) -> Pricing:
    """Return what tokens cost for an engine and a verifier."""

    def prompt_tokens(problem: Problem) -> int | None:
        return None if prompts.encoder is None else len(prompts.encoder.path(problem.problem, ()))

    def verifier_tokens(problem: Problem, steps: Sequence[str]) -> int | None:
        if not steps:
            return 0
        return scorer.count_tokens(Solution.of(problem, 0, [*steps], finish="length"))

    return Pricing(
        prompt_tokens, verifier_tokens, engine.caches_prefixes, scorer.caches_prefixes, engine.num_parameters,
        scorer.num_parameters,
    )  # fmt: skip
