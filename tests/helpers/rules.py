"""Rules of a user."""

from sampling.selection.rules import BestBy, VerifierRule, Vote


class Longest(BestBy):
    """Takes the sample with the most steps."""

    name = "longest"

    def order(self, candidates):
        return [sample.num_steps for sample in candidates.samples]


class SquaredVote(VerifierRule, Vote):
    """A weighted vote with scores to a power."""

    kind = "squared_vote"

    def __init__(self, power=2.0, verifier=None):
        super().__init__(verifier)
        self.power = power

    def weights(self, candidates):
        return [weight**self.power for weight in candidates.weights(self.verifier, self.aggregation)]
