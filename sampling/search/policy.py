"""Define policies, which choose a search for each budget and predicted difficulty."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct

from sampling.search.base import SearchStrategy
from sampling.search.finished import FinalRule, Unit
from stepverify.decoding import read_made
from stepverify.records import InputError

VERSION = 1


class Choice(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold the search that a policy chooses for one budget and bin.

    Attributes:
        search: its name; with N for best-of-N.
        strategy: ``class_path`` and ``init_args``, as in a configuration.
        accuracy: on the validation problems of the bin on which it was chosen, and so biased upwards.
        cost: mean there, with the first samples.
        num_problems: validation problems in the bin.
    """

    search: str
    strategy: dict[str, Any]
    accuracy: float
    cost: float
    num_problems: int


class Measured(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold an accuracy with its 95 % interval, and the mean cost.

    Attributes:
        gain: the policy's accuracy minus this one, paired over problems, and its interval; empty for the policy itself.
    """

    accuracy: float
    low: float
    high: float
    cost: float
    gain: list[float] = []


class Plan(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold what a policy does at one budget.

    Attributes:
        budget: largest mean cost of a problem.
        bins: choice in each bin, the most difficult problems first.
        measured: accuracies by two-fold cross-validation: ``compute_optimal`` (this policy), ``fixed`` (the best single
            search), ``oracle`` (bins by pass@1, which are known for nothing), and ``best_of_n`` at the policy's cost.
        best_of_n_factor: best-of-N's cost for the policy's accuracy over the policy's cost; None beyond its curve.
    """

    budget: float
    bins: list[Choice]
    measured: dict[str, Measured] = {}
    best_of_n_factor: float | None = None


class Policy(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold a compute-optimal policy.

    Attributes:
        version: of the format.
        unit: of budgets and costs.
        num_samples: k, first samples whose mean score predicts difficulty.
        final_rule: by which accuracies were compared.
        edges: inner edges of the bins of mean scores; low ones are difficult.
        plans: one for each budget, ascending.
        num_problems: validation problems.
        problems: digest of their ids.
        law: what the policy is valid for: engine, sampling, template, examples, verifier, aggregation, limits.
    """

    version: int
    unit: Unit
    num_samples: int
    final_rule: FinalRule
    edges: list[float]
    plans: list[Plan]
    num_problems: int
    problems: str
    law: dict[str, Any]


def digest_ids(problems: Iterable[str]) -> str:
    """Hash the ids of problems, in any order."""
    return hashlib.sha256("\n".join(sorted(problems)).encode()).hexdigest()


def as_config(identity: dict[str, Any]) -> dict[str, Any]:
    """Return a strategy's identity as ``class_path`` and ``init_args``."""
    return {"class_path": identity["strategy"], "init_args": {k: v for k, v in identity.items() if k != "strategy"}}


def build(config: dict[str, Any], where: str) -> SearchStrategy:
    """Make the strategy of a class path and its arguments.

    Raises:
        InputError: naming ``where``: no such class, or arguments that it does not take.
    """
    path, arguments = str(config.get("class_path")), config.get("init_args", {})
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module or "sampling.search"), name)
        if not (inspect.isclass(found) and issubclass(found, SearchStrategy)):
            raise TypeError("not a class of search strategies")
        return found(**arguments)
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(f"{where}: {path} with {arguments}: {error}") from None


def is_policy(path: Path) -> bool:
    """Tell whether a file is a policy that can be read."""
    try:
        read_policy(path)
    except InputError:
        return False
    return True


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        InputError: not a policy, or one of another version.
    """
    policy = read_made(Policy, path, "a policy", version=VERSION, key="edges", maker="sampling policy")
    if policy.edges != sorted({*policy.edges}):
        raise InputError(f"{path}: key 'edges': expected ascending numbers, got {policy.edges}")
    for plan in policy.plans:
        if len(plan.bins) != len(policy.edges) + 1:
            raise InputError(
                f"{path}: plan of budget {plan.budget:g}: {len(plan.bins)} bins, but {len(policy.edges)} edges divide "
                f"{len(policy.edges) + 1}"
            )
    return policy
