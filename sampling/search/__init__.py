"""Search solutions guided by a verifier: one strategy is one coroutine over engine and scorer."""

from sampling.search.base import Found, SearchStrategy
from sampling.search.beam import BeamSearch, Lookahead
from sampling.search.best_of_n import BestOfN
from sampling.search.dvts import DVTS
from sampling.search.mcts import MCTS
from sampling.search.optimal import ComputeOptimal
from sampling.search.particles import ParticleFiltering
from sampling.search.rebase import REBASE
from sampling.search.records import Cost, Expansion, SearchResult, Values
from sampling.search.tree import Node, Tree

__all__ = [
    "DVTS", "MCTS", "REBASE", "BeamSearch", "BestOfN", "ComputeOptimal", "Cost", "Expansion", "Found", "Lookahead",
    "Node", "ParticleFiltering", "SearchResult", "SearchStrategy", "Tree", "Values",
]  # fmt: skip
