"""Simulate the dispatcher of replicas: how busy 1 to 512 of them are, and what a driver's cost and affinity do.

    python -m tests.benchmarks.bench_dispatch [--replicas 1 8 64 512] [--figure FILE.png]

Time is simulated, the rules are not: `sampling.runtime.dispatch.Dispatch` chooses, with one queue before it. Lengths are
measured ones, of the 9,600 recorded GSM8K samples of Qwen2.5-0.5B (words, digits and signs count as tokens, as its
tokenizer has them, within 3 %). A replica samples up to 256 completions at once and takes 8 ms + 0.05 ms for each of them
for one token of all (12,300 tokens a second when full); it reads 40,000 prompt tokens a second, and those that it has
read once not again. These are round figures of a model of 1.5 B parameters on one data centre GPU; what is compared does
not hang on them. The driver handles one request at a time, and as many problems are open as in a stage.

- generate: 16 solutions of a problem, a request.
- label: 8 rollouts from each of a solution's steps, a request each, all steps at once.
- search: beam search of 16 beams and width 4: each round asks for 4 continuations of 4 beams by one step each, and
  scores them in 0.1 s.

Busy is the share of the replicas' full speed, sampling and reading, while the last three quarters of the problems begin.
The tail comes after it: seconds in which no problem waits any more, as replicas run empty one after the other. `read
without` is how many prompt tokens are read without affinity, as a multiple of those with it.
"""

import argparse
import functools
import gzip
import heapq
import json
import random
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sampling.runtime.dispatch import Dispatch

SAMPLES = Path(__file__).parents[2] / "lit_configs/gsm8k/recorded/samples_test.jsonl.gz"
AT_ONCE, BASE, EACH, READ = 256, 8e-3, 5e-5, 40_000
SHOT, QUESTION = 600, 60  # tokens of a few-shot prompt that all problems share, and of a question
FULL = AT_ONCE / (BASE + EACH * AT_ONCE)  # tokens a second
SCORING = 0.1


@dataclass(eq=False)
class Request:
    """Hold completions to sample after a prefix, and what goes on once all are there."""

    prefixes: list[tuple[int, ...]]  # as the driver tells them apart, the shortest first
    prompt: list[int]  # tokens that each of them adds
    tokens: list[int]
    then: Callable[[], None]
    left: int = 0


@dataclass(eq=False)
class Replica:
    """Sample all completions in work at one speed, and read prompts in between."""

    now: float = 0.0
    level: float = 0.0  # tokens that a completion has since the beginning
    active: list[tuple[float, int, Request]] = field(default_factory=list)
    waiting: deque[tuple[int, Request]] = field(default_factory=deque)
    known: set[tuple[int, ...]] = field(default_factory=set)
    version: int = 0
    sampled: int = 0
    read: int = 0

    def advance(self, now: float) -> None:
        if self.active and now > self.now:
            self.level += (now - self.now) / (BASE + EACH * len(self.active))
        self.now = max(self.now, now)

    def next_end(self) -> float:
        return self.now + (self.active[0][0] - self.level) * (BASE + EACH * len(self.active))

    def add(self, request: Request, order: Iterator[int]) -> None:
        new = [n for key, n in zip(request.prefixes, request.prompt, strict=True) if key not in self.known]
        self.known.update(request.prefixes)
        self.read += sum(new)
        self.now += sum(new) / READ  # meanwhile nothing is sampled
        self.waiting.extend((tokens, request) for tokens in request.tokens)
        self.fill(order)

    def fill(self, order: Iterator[int]) -> None:
        while self.waiting and len(self.active) < AT_ONCE:
            tokens, request = self.waiting.popleft()
            heapq.heappush(self.active, (self.level + tokens, next(order), request))
            self.sampled += tokens


class Simulation:
    """Run the problems of a stage on replicas.

    Args:
        replicas: number of them.
        cost: seconds of the driver for a request, half of it when its answer comes.
        affinity: requests go to where their prefix is known, as :class:`Dispatch` has it.
    """

    def __init__(self, replicas: int, cost: float, *, affinity: bool = True) -> None:
        self.dispatch = Dispatch[Replica](2 * AT_ONCE)
        self.replicas = [Replica() for _ in range(replicas)]
        for replica in self.replicas:
            self.dispatch.add(replica)
        self.cost, self.affinity = cost, affinity
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = iter(range(1 << 60))
        self.now = self.driver = 0.0
        self.queue = deque[Request]()
        self.asked = 0  # completions of all requests that have not ended

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), what))

    def drive(self, seconds: float, what: Callable[[], None]) -> None:
        """Let the driver do something after what it has to do already."""
        self.driver = max(self.driver, self.now) + seconds
        self.at(self.driver, what)

    def ask(self, request: Request) -> None:
        request.left = len(request.tokens)
        self.asked += request.left
        self.drive(self.cost / 2, lambda: (self.queue.append(request), self.admit())[-1])

    def admit(self) -> None:
        while self.queue:
            request = self.queue[0]
            prefixes = request.prefixes if self.affinity else []
            if (replica := self.dispatch.choose(prefixes, len(request.tokens))) is None:
                return
            self.queue.popleft()
            replica.advance(self.now)
            replica.add(request, self.order)
            self.schedule(replica)

    def schedule(self, replica: Replica) -> None:
        replica.version += 1
        version = replica.version
        if replica.active:
            self.at(replica.next_end(), lambda: self.end(replica, version))

    def end(self, replica: Replica, version: int) -> None:
        if version != replica.version:
            return
        replica.advance(self.now)
        while replica.active and replica.active[0][0] <= replica.level + 1e-6:
            request = heapq.heappop(replica.active)[2]
            request.left -= 1
            if not request.left:
                self.drive(self.cost / 2, lambda request=request: self.ended(replica, request))  # type: ignore[misc]
        replica.fill(self.order)
        self.schedule(replica)

    def ended(self, replica: Replica, request: Request) -> None:
        self.dispatch.release(replica, len(request.tokens))
        self.asked -= len(request.tokens)
        self.admit()
        request.then()

    def run(self, problems: list[Callable[["Simulation"], None]]) -> dict[str, float]:
        """Open problems while fewer completions are asked for than all replicas take; return what is measured."""
        left, marks = deque(problems), {3 * len(problems) // 4: (0.0, 0.0), 0: (0.0, 0.0)}
        capacity = len(self.replicas) * 2 * AT_ONCE

        def supply() -> None:
            while left and self.asked < capacity:
                left.popleft()(self)
                if len(left) in marks:
                    marks[len(left)] = (self.now, self.done())

        supply()
        while self.events:
            self.now, _, what = heapq.heappop(self.events)
            what()
            supply()
        (start, before), (end, after) = marks.values()
        return {
            "busy": (after - before) / len(self.replicas) / (end - start),
            "tail": self.now - end, "seconds": self.now, "read": sum(replica.read for replica in self.replicas),
        }  # fmt: skip

    def done(self) -> float:
        """Return the seconds that one full replica takes for all that the replicas have done."""
        for replica in self.replicas:
            replica.advance(self.now)
        sampled = sum(r.sampled - sum(end - r.level for end, _, _ in r.active) for r in self.replicas)
        return sampled / FULL + sum(r.read for r in self.replicas) / READ


def generate(solutions: list[list[int]], i: int, sim: Simulation) -> None:
    tokens = [sum(solutions[(16 * i + k) % len(solutions)]) for k in range(16)]
    sim.ask(Request([(), (i,)], [SHOT, QUESTION], tokens, lambda: None))


def label(solutions: list[list[int]], i: int, sim: Simulation) -> None:
    steps = solutions[i % len(solutions)]
    rng = random.Random(i)
    for k in range(1, len(steps)):
        prefixes = [(), *((i, *range(j)) for j in range(k + 1))]
        rollouts = [max(1, sum(rng.choice(solutions)[k:])) for _ in range(8)]
        sim.ask(Request(prefixes, [SHOT, QUESTION, *steps[:k]], rollouts, lambda: None))


def search(solutions: list[list[int]], i: int, sim: Simulation) -> None:
    rng = random.Random(i)
    depth = len(solutions[i % len(solutions)])

    def round_(beams: list[tuple[list[tuple[int, ...]], list[int]]], number: int) -> None:
        left = len(beams)
        grown: list[tuple[list[tuple[int, ...]], list[int]]] = []

        def one(beam: tuple[list[tuple[int, ...]], list[int]]) -> None:
            tokens = [rng.choice(rng.choice(solutions)) for _ in range(4)]

            def then() -> None:
                nonlocal left
                left -= 1
                grown.append(([*beam[0], (*beam[0][-1], rng.randrange(1 << 30))], [*beam[1], tokens[0]]))
                if not left and number < depth:
                    sim.at(sim.now + SCORING, lambda: round_(grown, number + 1))

            sim.ask(Request(beam[0], beam[1], tokens, then))

        for beam in beams:
            one(beam)

    round_([([(), (i,)], [SHOT, QUESTION])] * 4, 1)


STAGES = {"generate": generate, "label": label, "search": search}


def simulate(stage: str, replicas: int, cost: float, problems: int, *, affinity: bool = True) -> dict[str, float]:
    """Run a stage with so many problems a replica."""
    solutions = recorded()
    begin = STAGES[stage]
    work = [lambda sim, i=i: begin(solutions, i, sim) for i in range(problems * replicas)]
    return Simulation(replicas, cost, affinity=affinity).run(work)


@functools.cache
def recorded() -> list[list[int]]:
    """Tokens of the steps of each recorded solution, shuffled."""
    with gzip.open(SAMPLES, "rt", encoding="utf-8") as file:
        steps = [json.loads(line)["steps"] for line in file]
    found = [[len(re.findall(r"\d|[A-Za-z]+|[^\sA-Za-z\d]", step)) + 1 for step in solution] for solution in steps]
    random.Random(0).shuffle(found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--costs", type=float, nargs="+", default=[0, 0.3, 1, 3], help="CPU milliseconds of a request")
    parser.add_argument("--problems", type=int, default=100, help="of each replica")
    parser.add_argument("--figure", type=Path, help="PNG to draw")
    arguments = parser.parse_args()
    busy: dict[str, dict[float, list[float]]] = {}
    print(f"busy share of full replicas, and seconds of the tail; {arguments.problems} problems a replica")
    print(
        f"{'stage':10}{'replicas':>9}"
        + "".join(f"{cost:>11g} ms" for cost in arguments.costs)
        + f"{'read without':>14}"
    )
    for stage in STAGES:
        busy[stage] = {cost: [] for cost in arguments.costs}
        for replicas in arguments.replicas:
            cells = []
            for cost in arguments.costs:
                found = simulate(stage, replicas, cost / 1000, arguments.problems)
                busy[stage][cost].append(found["busy"])
                cells.append(f"{found['busy']:7.2f}{found['tail']:5.0f} s")
            kept = simulate(stage, replicas, 0, arguments.problems)["read"]
            lost = simulate(stage, replicas, 0, arguments.problems, affinity=False)["read"]
            print(
                f"{stage:10}{replicas:9}" + "".join(f"{cell:>14}" for cell in cells) + f"{lost / kept:13.1f}×",
                flush=True,
            )
    if arguments.figure:
        draw(busy, arguments.replicas, arguments.figure)


def draw(busy: dict[str, dict[float, list[float]]], replicas: list[int], file: Path) -> None:
    """Draw the busy shares, one panel a stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, len(busy), sharey=True)
    for axes, (stage, lines) in zip(panels, busy.items(), strict=True):
        for (cost, shares), colour in zip(
            lines.items(), ("0.6", "#0072B2", "#009E73", "#D55E00", "#CC79A7"), strict=False
        ):
            axes.plot(replicas, shares, marker="o", markersize=4, color=colour, label=f"{cost:g} ms")
        axes.set(xscale="log", xlabel="replicas", title=stage, ylim=(0, 1.02))
        axes.set_xticks(replicas, [str(number) for number in replicas])
        axes.minorticks_off()
        axes.grid(color="0.92")
    panels[0].set_ylabel("busy share of the replicas")
    panels[-1].legend(title="driver, a request", frameon=False, loc="lower left")
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    main()
