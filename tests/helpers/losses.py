"""Losses called on bare tensors, and one of pairs as a user may write it."""

import torch
from torch.nn import functional as F

from stepverify.data.batch import ScoredPositions
from stepverify.losses import StepLoss


class Values:
    """A model whose outputs are its values."""

    def values(self, outputs):
        return outputs


def lost(loss, outputs, targets, weights=None, owner=None, model=None, problem=None):
    """(sum, count) at positions that no two solutions share; without ``owner`` each is a solution of its own.

    All are of one problem, unless ``problem`` gives that of each solution.
    """
    every = torch.arange(len(targets))
    weights = torch.ones(len(targets)) if weights is None else weights
    owner = every if owner is None else torch.tensor(owner)
    problem = torch.zeros(int(owner.max()) + 1, dtype=torch.long) if problem is None else torch.tensor(problem)
    at = ScoredPositions(index=every, targets=targets, weights=weights, entries=every, owner=owner, problem=problem)
    return loss(outputs, at, model or Values())


class PairwiseSteps(StepLoss):
    """Rank each correct step of a solution above each incorrect one, by their log-odds."""

    def denominator(self, example):
        correct = sum(example.targets)
        return correct * (len(example.targets) - correct)

    def __call__(self, outputs, at, model):
        odds, correct = (outputs[:, 1] - outputs[:, 0])[at.entries], at.targets[at.entries] == 1
        pairs = (at.owner[:, None] == at.owner) & correct[:, None] & ~correct
        return F.softplus(odds - odds[:, None])[pairs].sum(), pairs.sum()
