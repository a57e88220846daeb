"""A generator whose every step has a known law, verifiers of it, and searches that they guide."""

import asyncio
import random
from functools import cache

from sampling.engines import Engine, SamplingOptions
from sampling.engines.base import completed
from sampling.engines.prompts import Prompts
from sampling.runtime.scheduler import run_all
from sampling.scorers import Scorer
from sampling.search import SearchResult, Tree
from sampling.search.checks import pricing_of
from sampling.search.memory import Kept, Memory
from sampling.search.sampler import Sampler
from sampling.stages.search import search
from stepverify.jsonl import read_records
from stepverify.records import Problem, Solution
from tests.helpers.engines import CodePoints
from tests.helpers.labels import TEMPLATE
from tests.helpers.problems import Given

ANSWER = "1"


def law(steps):
    """Next steps and their probabilities: two steps of a, b or c, then the answer, which is 1 the likelier the more
    a there are; after c the answer comes at once, and is wrong."""
    if "c" in steps or len(steps) == 2:
        right = 0.0 if "c" in steps else (0.1, 0.4, 0.8)[steps.count("a")]
        return {"#### 1": right, "#### 2": 1 - right}
    return {"a": 0.3, "b": 0.5, "c": 0.2}


@cache
def value(steps):
    """Probability of the answer 1 after some steps."""
    if steps and steps[-1].startswith("####"):
        return float(steps[-1] == "#### 1")
    return sum(p * value((*steps, step)) for step, p in law(steps).items())


def answers(steps=()):
    """Probability of each whole solution."""
    if steps and steps[-1].startswith("####"):
        return {steps: 1.0}
    found = {}
    for step, p in law(steps).items():
        if p:
            found |= {whole: p * q for whole, q in answers((*steps, step)).items()}
    return found


class Lawful(Engine):
    """Samples steps by :func:`law`; remembers what was asked, and fails after a number of requests."""

    model, tokenizer, capacity, num_parameters = "lawful", CodePoints(), 64, 10

    def __init__(self, fails_after=None, caches=False, known=law):
        self.asked, self.options, self.fails_after, self.law = [], [], fails_after, known
        self.caches_prefixes = caches

    def identity(self):
        return {"engine": "lawful"}

    async def complete(self, request, options):
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked.append(request)
        self.options.append(options)
        text = "".join(map(chr, request.prompt_ids)).partition("\n")[2]
        return [self._complete(text, request.seed + i, options) for i in range(request.n)]

    def _complete(self, before, seed, options):
        draws, steps, text = random.Random(seed), [*before.split("\n")[:-1]], ""
        while not (steps and steps[-1].startswith("####")):
            known = self.law(tuple(steps))
            greedy = max(known, key=known.get)
            steps.append(greedy if options.temperature == 0 else draws.choices([*known], [*known.values()])[0])
            text += steps[-1] + "\n" * (not steps[-1].startswith("####"))
        ids = list(map(ord, text))
        whole = completed(self.tokenizer, ids, "stop", options)
        if len(whole.token_ids) <= options.max_tokens:
            return whole
        return completed(self.tokenizer, ids[: options.max_tokens], "length", options)


class Valued(Scorer):
    """Gives every step the value of a function of the steps so far; remembers what it read."""

    objective, num_parameters = "process", 1000

    def __init__(self, of=value, caches=False, name="valued"):
        self.of, self.read, self.caches_prefixes, self.name = of, [], caches, name

    async def score(self, solutions):
        self.read += [tuple(s.steps) for s in solutions]
        return [[self.of(tuple(s.steps[: i + 1])) for i in range(len(s.steps))] for s in solutions]

    def identity(self):
        return {"scorer": self.name}

    def count_tokens(self, solution):
        """As many as characters of problem and steps, with a tag after each step."""
        return len(solution.problem) + sum(len(step) + 1 for step in solution.steps)


def problems(number, answer=ANSWER):
    return Given(*(Problem(id=f"p/{i}", problem=f"{i:03}", answer=answer) for i in range(number)))


def searched(folder, strategy, number=8, engine=None, scorer=None, **options):
    """Results by problem after a search, and the solutions by problem."""
    settled = {"template": TEMPLATE} | options
    search(engine or Lawful(), problems(number), scorer or Valued(), folder, strategy, **settled)
    solutions = {}
    for solution in read_records(folder, Solution) if (folder / "part-00000.jsonl").is_file() else ():
        solutions.setdefault(solution.problem_id, []).append(solution)
    return {r.problem_id: r for r in read_records(folder / "results", SearchResult)}, solutions


class Held:
    """A store in memory."""

    def __init__(self):
        self.done, self.kept = set(), []

    def records(self):
        return iter(self.kept)

    def write(self, records):
        for record in records:
            assert record.id not in self.done
            self.done.add(record.id)
            self.kept.append(record)


def explored(strategy, number=1, **options):
    """Trees and what a strategy found in them, and the expansions, in memory and without grading."""
    return explored_problems(list(problems(number).problems()), strategy, **options)


def explored_problems(
    given, strategy, engine=None, scorer=None, template=TEMPLATE, aggregation="last", window=16, **limits
):
    """Search given problems; see :func:`explored`."""
    engine, scorer = engine or Lawful(), scorer or Valued()
    settled = {"max_depth": 40, "sampling": SamplingOptions(max_tokens=100), "seed": 0} | limits
    sampling, seed = settled.pop("sampling"), settled.pop("seed")
    prompts, store = Prompts(engine, template), Held()
    memory = Memory(Kept(store), Kept(Held()))
    sampler = Sampler(
        engine, scorer, prompts, sampling, memory, aggregation, seed, pricing_of(engine, scorer, prompts)
    )  # fmt: skip
    found = {}

    async def one(numbered):
        order, problem = numbered
        tree = Tree(problem, sampler, order=order, **settled)
        found[problem.id] = tree, await strategy.search(tree)

    async def every():
        with memory.writing():
            await run_all(enumerate(given), one, max_in_work=window)
            await engine.aclose()

    asyncio.run(every())
    return [found[problem.id] for problem in given], store


def solved(node):
    return node.finish == "stop" and node.steps[-1] == f"#### {ANSWER}"


def first_best(found):
    """The finished solution of highest score, the first of equals in the order of the tree."""
    finished = sorted((n for n in found.nodes if n.finish == "stop"), key=lambda n: n.place)
    return max(finished, key=lambda n: n.score, default=None)
