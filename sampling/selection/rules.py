"""The rules of choosing among the samples of one problem: curves over N, and what each picks of all samples. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from sampling.selection.estimators import best_of_n, elect, pass_at_k, top_k_votes, vote
from stepverify.aggregate import AGGREGATIONS, Aggregation, aggregate, vote_weight
from stepverify.records import Ranking
from stepverify.statistics import auc

_DRAWS = 20  # of the scores that a made-up verifier gives


@dataclass(slots=True)
class Sample:
    """What ranking needs of one solution. ``predicted`` is the answer that it votes for; None is no vote."""

    id: str
    answer: str | None
    predicted: str | None
    right: bool
    num_steps: int
    scores: Mapping[str, Sequence[float]]


MISSING = Sample("", None, None, False, 0, {})  # a sample that a problem lacks: no vote, never right, ranked last


def rank_problem(
    problem_id: str,
    samples: Sequence[Sample],
    classes: Sequence[int | None],
    aggregation: Mapping[str, Aggregation],
    sizes: Sequence[int],
    top_k: Sequence[int] = (),
    compared: Collection[str] = (),
    *,
    simulated: Sequence[float] = (),
    base_rate: float = 0.5,
    num_subsets: int = 200,
    seed: int = 0,
) -> Ranking:
    """Curves and choices of every rule for one problem.

    The rules are ``pass@1``, ``majority``, ``oracle``, ``fewest_steps`` (the shortest of N, without a verifier: what
    one that goes with length has to beat), and for every verifier ``v`` of ``aggregation`` ``v/best_of_n``,
    ``v/weighted`` and ``v/top_<k>`` for each k of ``top_k``; for the verifiers in ``compared`` also
    ``v/best_of_n/prod`` and so on, under every aggregation. A choice takes all samples; where a curve splits a tie
    evenly, a choice takes the first. The choice of a vote is the solution of the winning class that the verifier
    scores best, or the first one for ``majority``. ``classes``: as for :func:`vote`. ``simulated`` and ``base_rate``:
    rules of verifiers that do not exist, see :func:`simulated_curves`; they choose nothing.
    """
    ids, right = [sample.id for sample in samples], [sample.right for sample in samples]
    total, equal = len(samples), [1.0] * len(samples)

    def elected(
        weights: Sequence[float], scores: Sequence[float], voting: Sequence[int | None] = classes
    ) -> str | None:
        place = elect(voting, weights, scores)
        return None if place is None else ids[place]

    votes = Counter(c for c in classes if c is not None)
    order_by: dict[str, Sequence[float]] = {"majority": [0 if c is None else votes[c] for c in classes]}
    order_by["fewest_steps"] = short = [-sample.num_steps if sample.num_steps else -math.inf for sample in samples]
    curves = {
        "pass@1": np.full(len(sizes), sum(right) / total),
        "majority": vote(classes, right, sizes, num_subsets=num_subsets, seed=seed),
        "fewest_steps": best_of_n(short, right, sizes),
    }
    choices = {"pass@1": ids[0], "majority": elected(equal, equal), "fewest_steps": ids[short.index(max(short))]}
    for name, used in aggregation.items():
        ways: Sequence[Aggregation] = AGGREGATIONS if name in compared else (used,)
        for how in ways:
            values = [sample.scores.get(name, ()) for sample in samples]
            scores = [aggregate(along, how) for along in values]
            weights = [vote_weight(along, how) for along in values]
            order = sorted(range(total), key=scores.__getitem__, reverse=True)
            found = {
                "best_of_n": (best_of_n(scores, right, sizes), ids[order[0]]),
                "weighted": (
                    vote(classes, right, sizes, weights, num_subsets=num_subsets, seed=seed),
                    elected(weights, scores),
                ),
            }
            voted = top_k_votes(scores, classes, right, sizes, top_k, num_subsets=num_subsets, seed=seed)
            for k, curve in zip(top_k, voted, strict=True):
                voting = [c if i in order[:k] else None for i, c in enumerate(classes)]
                found[f"top_{k}"] = curve, elected(equal, scores, voting)
            suffixes = [""] * (how == used) + [f"/{how}"] * (name in compared)
            order_by |= {f"{name}/best_of_n{suffix}": scores for suffix in suffixes}
            for rule, (curve, choice) in found.items():
                for suffix in suffixes:
                    curves[f"{name}/{rule}{suffix}"], choices[f"{name}/{rule}{suffix}"] = curve, choice
    draw = {"num_subsets": num_subsets, "seed": seed}
    for area in simulated:
        made_up = simulated_curves(area, base_rate, samples, classes, sizes, top_k, **draw)
        curves |= {f"simulated_{area:g}/{rule}": curve for rule, curve in made_up.items()}
    curves["oracle"] = np.array([pass_at_k(total, sum(right), n) for n in sizes])
    choices["oracle"] = ids[right.index(True)] if any(right) else None
    plain = {rule: curve.tolist() for rule, curve in curves.items()}
    drawn = np.array([sample is not MISSING for sample in samples])
    truth = np.array(right)[drawn]
    areas = {rule: auc(np.array(values, float)[drawn], truth) for rule, values in order_by.items()}
    return Ranking(
        problem_id=problem_id, answer=samples[0].answer, num_samples=int(drawn.sum()), sizes=list(sizes),
        curves=plain, choices=choices, areas={rule: area for rule, area in areas.items() if area is not None},
    )  # fmt: skip


def simulated_curves(
    area: float,
    base_rate: float,
    samples: Sequence[Sample],
    classes: Sequence[int | None],
    sizes: Sequence[int],
    top_k: Sequence[int] = (),
    *,
    num_subsets: int = 200,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Rule → the curve it would have with a verifier of a given quality: what one has to reach before it helps.

    Its scores are normal with variance 1, with mean d for right samples and 0 for wrong ones, so that a right one
    scores above a wrong one with chance Phi(d / sqrt(2)), the ``area``. A vote weighs the chance to be right that
    follows from score and ``base_rate``. A real verifier of the same area may do worse: where it errs on the samples
    that it scores best, where it errs alike on samples with the same answer, and where its values are no probabilities.

    Args:
        area: under the ROC curve within a problem, from 0.5 up, below 1.
        base_rate: share of right samples, of all problems.
        samples: (M,) of one problem; missing ones rank last.
        classes, sizes, top_k, num_subsets: as for :func:`rank_problem`.
        seed: equal seeds draw equal noise, whatever the area is.
    """
    right, here = (np.array(f) for f in ([s.right for s in samples], [s is not MISSING for s in samples]))
    distance = NormalDist().inv_cdf(area) * math.sqrt(2)
    prior = min(max(base_rate, 1e-6), 1 - 1e-6)
    noise = np.random.default_rng((seed, 2)).normal(size=(_DRAWS, len(samples)))
    curves: dict[str, np.ndarray] = {}
    for i, scores in enumerate(noise + distance * right):
        weights = 1 / (1 + (1 - prior) / prior * np.exp(distance * (distance / 2 - scores)))
        scores[~here] = -math.inf
        draw = {"num_subsets": -(-num_subsets // _DRAWS), "seed": seed + i}
        found = {
            "best_of_n": best_of_n(scores, right, sizes),  # type: ignore[arg-type]
            "weighted": vote(classes, right, sizes, weights, **draw),  # type: ignore[arg-type]
        }
        voted = top_k_votes(scores, classes, right, sizes, top_k, **draw)  # type: ignore[arg-type]
        found |= {f"top_{k}": curve for k, curve in zip(top_k, voted, strict=True)}
        for rule, curve in found.items():
            curves[rule] = curves.get(rule, 0.0) + curve / _DRAWS
    return curves
