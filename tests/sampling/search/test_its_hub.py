"""Searches beside those of its_hub 1.2, with a scripted language model and reward model.

Where its result is right ours is the same; where it is not, the difference is shown.
"""

import asyncio
import random
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("its_hub")

from its_hub.api import AbstractLanguageModel, AbstractProcessRewardModel
from its_hub.core.algorithms import beam_search, particle_gibbs
from its_hub.core.lms.step_generation import StepGeneration

from sampling.engines import Completion
from sampling.search import BeamSearch, Node, ParticleFiltering
from tests.helpers.searches import Lawful, Valued, explored, first_best

END = "END"


class Story:
    """A language: the next steps of a prefix are a list of its own, written down once; a final step holds END."""

    def __init__(self, seed, length=4, early=0.0):
        self.seed, self.length, self.early, self.calls = seed, length, early, Counter()

    def next(self, steps):
        """The first step is the same for all; later ones are numbered in the order in which they are asked for."""
        self.calls[steps] += 1
        draws = random.Random(f"{self.seed} {steps} {self.calls[steps]}")
        ends = len(steps) + 1 == self.length or (len(steps) > 0 and draws.random() < self.early)
        return "first" if not steps else f"{draws.randrange(10**6)}{' ' + END if ends else ''}"

    def value(self, steps):
        return random.Random(f"{self.seed} {steps} value").random()


class TheirModel(AbstractLanguageModel):
    def __init__(self, story):
        self.story = story

    async def agenerate(self, messages, stop=None, **known):
        texts = [turns[-1].content if turns[-1].role == "assistant" else "" for turns in messages]
        return [{"role": "assistant", "content": self.story.next(tuple(t.split("\n")[:-1]))} for t in texts]


class TheirScores(AbstractProcessRewardModel):
    def __init__(self, of):
        self.of = of

    def score(self, prompt, steps):
        return [self.of(tuple(text.split("\n"))) for text in steps]

    async def ascore(self, prompt, steps):
        return self.score(prompt, steps)


class Ours(Lawful):
    """Tells a story by our engine contract."""

    def __init__(self, story):
        super().__init__()
        self.story = story

    async def complete(self, request, options):
        steps = tuple("".join(map(chr, request.prompt_ids)).split("\n")[1:-1])
        texts = [self.story.next(steps) for _ in range(request.n)]
        return [Completion([*map(ord, t), *([] if END in t else [10])], t, "stop") for t in texts]


def theirs(search, story, budget):
    return asyncio.run(search.ainfer(TheirModel(story), "000", budget, return_response_only=False))


def steps_of_theirs():
    return StepGeneration(max_steps=20, step_token="\n", stop_token=END)


@pytest.mark.parametrize("seed", range(10))
def test_beam_search_is_the_same_where_all_beams_end_together(seed):
    """4 beams kept, 16 in all. The first round of its_hub has 4 candidates and ours 16, so all begin with one step.

    From there on both sample the same steps after the same prefixes, keep the same, and select the same solution.
    """
    story, same = Story(seed), Story(seed)
    result = theirs(beam_search.BeamSearch(steps_of_theirs(), TheirScores(story.value), 4), story, 16)
    (((_, found),), _) = explored(
        BeamSearch(16, 4, merge_duplicates=False), engine=Ours(same), scorer=Valued(same.value)
    )
    best = first_best(found)
    assert result.the_one["content"] == best.text
    assert result.scores[result.selected_index] == best.score
    calls = [{steps: n for steps, n in one.calls.items() if steps} for one in (story, same)]
    assert calls[0] == calls[1]


def test_finished_beams_multiply_there_and_not_here():
    """Solutions end early: its_hub copies a finished beam as often as any other, and returns 16 responses of few texts."""
    copies, distinct = [], []
    for seed in range(10):
        story, same = Story(seed, 6, early=0.4), Story(seed, 6, early=0.4)
        result = theirs(beam_search.BeamSearch(steps_of_theirs(), TheirScores(story.value), 4), story, 16)
        copies.append(16 - len({response["content"] for response in result.responses}))
        (((_, found),), _) = explored(
            BeamSearch(16, 4, merge_duplicates=False), engine=Ours(same), scorer=Valued(same.value)
        )
        distinct.append(len({node.id for node in found.nodes}) == len(found.nodes))
    assert min(copies) >= 12
    assert all(distinct)


def test_particles_have_the_same_weights():
    values = [0.9, 0.5, 0.001, 0.72]
    logits = np.array([particle_gibbs._inv_sigmoid(value) for value in values])
    ours = ParticleFiltering(4).weights([Node(weight=value) for value in values])
    assert ours == pytest.approx(particle_gibbs._softmax(logits), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_particles_that_have_no_choice_are_the_same(seed):
    """Of every prefix's first continuations one is sure and all others impossible, so nothing is left to chance.

    Both then continue the sure particle 8 times in every round, and select the same solution.
    """

    def sure(story):
        return lambda steps: 1.0 if len(steps) == 1 else float(steps[-1] == best(story, steps[:-1]))

    def best(story, before):
        told = Story(seed)
        return max((told.next(before) for _ in range(8)), key=lambda step: story.value((*before, step)))

    story, same = Story(seed), Story(seed)
    search = particle_gibbs.ParticleFiltering(steps_of_theirs(), TheirScores(sure(story)))
    result = theirs(search, story, 8)
    (((_, found),), _) = explored(ParticleFiltering(8), engine=Ours(same), scorer=Valued(sure(same)))
    assert result.the_one["content"] == first_best(found).text


def test_the_resampling_that_is_asked_for_is_used_here():
    """its_hub's ParticleFiltering takes ``resampling_method`` and passes it to nothing (multinomial all the same)."""
    search = particle_gibbs.ParticleFiltering(steps_of_theirs(), TheirScores(None), resampling_method="systematic")
    assert search.resampling_method is particle_gibbs.ResamplingMethod.MULTINOMIAL
    assert ParticleFiltering(8, resampling="multinomial").resampling == "multinomial"
