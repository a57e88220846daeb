"""What each strategy of step labels costs, and how good its labels are, where the truth is known.

    python -m tests.benchmarks.bench_label --model runs/quickstart/generator/export [--problems 24] [--samples 4] \
        [--exact 512] [--cache FOLDER]

Synthetic problems (the test split), solutions sampled by --model; every distinct step prefix is completed --exact times
once (kept in --cache), which gives its value, the probability that this generator completes it correctly, to a standard error
of 0.02. Each strategy then labels the same solutions with seeds of its own, --runs times. Columns:

    rollouts, tokens   sampled, and the tokens in relation to exhaustive labels of the paper (8 rollouts a prefix)
    possible           hard labels that are correct: the value is above --possible if and only if the label is "correct"
    error              mean distance of correct / total from the value, for strategies that leave counts
    true               hard labels that agree with the true correctness of the step (all before it correct too)

Steps that state the final answer are labelled by grading in all of them and are left out. Without --model, a tiny
network with random weights: quick, and without meaning but for the counts.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from pathlib import Path

from sampling.engines import SamplingOptions, TransformersEngine
from sampling.labelling import BinarySearch, EarlyStop, Exhaustive, Rollouts
from sampling.stages.generate import generate
from sampling.stages.label import label
from stepverify.data.targets import StepTargets
from stepverify.jsonl import read_records
from stepverify.readers import Synthetic
from stepverify.readers.synthetic import verdicts
from stepverify.records import Rollout, Solution

REUSE = {"reuse_samples": True, "reuse_rollouts": True}
CONTESTANTS = {
    "exhaustive, n = 8": (Exhaustive(8), {}),
    "exhaustive, n = 2": (Exhaustive(2), {}),
    "exhaustive, n = 8, reuse": (Exhaustive(8), REUSE),
    "early stop at a correct one": (EarlyStop(max_rollouts=8, round_size=1), {}),
    "early stop at a correct one, reuse": (EarlyStop(max_rollouts=8, round_size=1), REUSE),
    "early stop at value 1/2, error 0.2": (EarlyStop(max_rollouts=16, threshold=0.5, error=0.2), REUSE),
    "early stop at width 0.6": (EarlyStop(max_rollouts=16, width=0.6), REUSE),
    "binary search": (BinarySearch(num_rollouts=8, round_size=1), {}),
    "binary search, reuse": (BinarySearch(num_rollouts=8, round_size=1), REUSE),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="the quickstart's generator; a tiny random network if left out")
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--exact", type=int, default=512, help="completions for every value")
    parser.add_argument("--possible", type=float, default=0.125, help="value from which a prefix counts as possible")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="keeps solutions and values between calls")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model is None:
            from tests.benchmarks.peers import setup

            arguments.model = str(Path(folder) / "tiny")
            setup.code(f"setup.tiny_model({arguments.model!r}, 512, 128, 1)")
            arguments.exact, arguments.problems = min(arguments.exact, 16), min(arguments.problems, 4)
        Bench(arguments, Path(folder), arguments.cache or Path(folder)).run()


class Bench:
    """One call of the program."""

    def __init__(self, arguments, folder, cache):
        self.arguments, self.folder, self.cache = arguments, folder, cache
        self.engine = TransformersEngine(arguments.model, batch_size=1024)
        self.sampling = SamplingOptions(temperature=1.0, max_tokens=64)

    def run(self):
        source, values = self.values()
        truth = self.truth(source)
        print(f"{len(truth)} solutions of {self.arguments.problems} problems, {len(values)} distinct step prefixes\n")
        print("| labels | rollouts | tokens | of exhaustive | possible | error | true |\n|---|---|---|---|---|---|---|")
        whole = None
        for name, (strategy, options) in CONTESTANTS.items():
            runs = [self.measure(source, values, truth, strategy, options, seed) for seed in range(self.arguments.runs)]
            rollouts, tokens, possible, error, true = (
                None if None in column else statistics.mean(column) for column in zip(*runs, strict=True)
            )
            whole = whole or tokens
            shown = "–" if error is None else f"{error:.3f}"
            print(
                f"| {name} | {rollouts:,.0f} | {tokens:,.0f} | {tokens / whole:.2f} | {100 * possible:.1f} % "
                f"| {shown} | {100 * true:.1f} % |",
                flush=True,
            )

    def values(self):
        """The solutions, and prefix → its value by many completions."""
        source = self.cache / "samples"
        problems = Synthetic("test", self.arguments.problems, worked=False)
        generate(self.engine, problems, source, self.arguments.samples, self.sampling)
        exact = Rollouts(self.engine, Exhaustive(self.arguments.exact), self.sampling, seed=1000)
        label(source, self.cache / "exact", exact)
        correct, total = {}, {}
        for r in read_records(self.cache / "exact" / "rollouts", Rollout):
            prefix = (r.problem_id, *r.steps)
            correct[prefix] = correct.get(prefix, 0) + sum(r.correct)
            total[prefix] = total.get(prefix, 0) + len(r.correct)
        return source, {prefix: correct[prefix] / total[prefix] for prefix in total}

    def truth(self, source):
        """Solution → whether each of its steps and all before it are correct."""
        found = {}
        for s in read_records(source, Solution):
            correct = verdicts(s.problem, s.steps, s.meta["modulus"])
            found[s.id] = [all(correct[: i + 1]) for i in range(len(correct))]
        return found

    def measure(self, source, values, truth, strategy, options, seed):
        output = self.folder / f"labels-{len(list(self.folder.iterdir()))}"
        steps = Rollouts(self.engine, strategy, self.sampling, seed=seed, **options)
        with contextlib.redirect_stdout(io.StringIO()):
            label(source, output, steps)
        read = StepTargets(threshold=getattr(strategy, "threshold", 0.0), monte_carlo="threshold")
        level = read.threshold or self.arguments.possible
        possible, errors, true = [], [], []
        for s in read_records(output, Solution):
            for i, (found, target) in enumerate(zip(s.step_labels, read.of(s), strict=True)):
                value = values.get((s.problem_id, *s.steps[: i + 1]))
                if value is None or target is None:
                    continue
                possible.append((target == 1) == (value > level))
                true.append((target == 1) == truth[s.id][i])
                if found.num_rollouts:
                    errors.append(abs(found.num_correct / found.num_rollouts - value))
        sampled = steps.summary()
        error = None if isinstance(strategy, BinarySearch) else statistics.mean(errors)
        return (
            sampled["rollouts"], sampled["rollout_tokens"], statistics.mean(possible), error, statistics.mean(true)
        )  # fmt: skip


if __name__ == "__main__":
    main()
