"""Define the records of searches: expansions of prefixes, and results of problems with their costs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from stepverify.record_checks import check_length
from stepverify.records import InputError


class Expansion(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold one continuation of a prefix, as it was sampled.

    Attributes:
        id: problem id, digest of the prefix's steps, how it was sampled (``w`` to the end, ``g`` greedily) and number.
        parent: id of the expansion that the prefix ends with; empty for the problem alone.
        seed: what it was sampled with.
        text: what was sampled here, with the separator that ended it.
        token_ids: the tokens sampled here; None where a server does not say them.
        finish: ``step`` (ended at a step's end), ``stop`` (the solution ended by itself) or ``length`` (cut off).
        tokens: number of tokens sampled here.
        num_calculator_edits: values that the calculator wrote.
    """

    id: str
    problem_id: str
    parent: str
    seed: int
    text: str
    finish: Literal["step", "stop", "length"]
    tokens: int
    token_ids: list[int] | None = None
    num_calculator_edits: int = 0

    def __post_init__(self) -> None:
        if self.token_ids is not None:
            check_length("token_ids", len(self.token_ids), self.tokens, "one per token")


class Values(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold the verifier's values of the solution so far, up to the end of an expansion.

    Attributes:
        id: of the expansion.
        values: in [0, 1]; empty if it is too long for the verifier.
        tokens: those that each value has taken, of a verifier that samples.
    """

    id: str
    values: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if any(not 0 <= value <= 1 for value in self.values):
            raise InputError(f"key 'values': expected numbers from 0 to 1, got {self.values!r:.80}")


class Cost(Struct, kw_only=True, forbid_unknown_fields=True):
    """Count what the search of a problem costs, as if nothing had been there before.

    Every expansion counts, also those that were pruned, merged, or rolled out only to look ahead, and whether it was
    sampled now or is reused.

    Attributes:
        generated_tokens: tokens sampled.
        prompt_tokens: tokens that the engine reads before it samples, without those of its prefix cache.
        cached_prompt_tokens: tokens that it need not read again.
        verifier_tokens: tokens that the verifier reads, without those of shared prefixes that it has read before.
        cached_verifier_tokens: tokens that it need not read again.
        engine_calls: requests; one that goes on after an empty line counts once.
        verifier_calls: batches of prefixes.
        flops: 2 · parameters · tokens, of engine and verifier, for the tokens that are not cached; None if the number
            of parameters is unknown.
        verifier_flops: those of them that are the verifier's.
    """

    generated_tokens: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    verifier_tokens: int = 0
    cached_verifier_tokens: int = 0
    engine_calls: int = 0
    verifier_calls: int = 0
    flops: float | None = None
    verifier_flops: float | None = None


class SearchResult(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold what a search found for one problem, and what it cost.

    Attributes:
        answer: reference answer of the problem.
        cost: of the whole search.
        num_expansions: continuations of prefixes.
        num_finished: distinct solutions that ended by themselves; those that were cut off are never chosen.
        sizes: numbers of samples N of the curves. Independent samples (best-of-N) have several, at N / max(N) of the
            cost each; every other search has one, the number of its finished solutions.
        curves: rule → probability of being correct at each N, as in :class:`stepverify.records.Ranking`; empty without
            a reference answer.
        choices: rule → id of the solution it selects; None if it selects none. ``search`` is the strategy's own rule.
        values: scores of the first samples in order, on the scale of probabilities, from which a policy predicts
            difficulty; 0 for one that the verifier could not read. Empty except for best-of-N and policies.
        strategy: name of the strategy that a policy chose; empty without a policy.
        seconds: from the first request to the last; differs from run to run.
        num_timeouts: comparisons of two answers that took too long, and count as not equal.
    """

    problem_id: str
    cost: Cost
    num_expansions: int
    num_finished: int
    answer: str | None = None
    sizes: list[int] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)
    choices: dict[str, str | None] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    strategy: str = ""
    seconds: float = 0.0
    num_timeouts: int = 0

    def __post_init__(self) -> None:
        for rule, curve in self.curves.items():
            check_length(f"curves.{rule}", len(curve), len(self.sizes), "one per size")
        if self.curves and ([*self.sizes] != sorted({*self.sizes}) or min(self.sizes, default=0) < 1):
            raise InputError(f"key 'sizes': expected ascending numbers of 1 or more, got {self.sizes!r:.80}")
