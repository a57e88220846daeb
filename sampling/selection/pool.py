"""Read the scored solutions of a run by problem, for ranking."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

from sampling.selection.candidates import MISSING, Sample
from stepverify.answers import Extracted, Grader
from stepverify.jsonl import read_located
from stepverify.records import InputError, Solution

_CHUNK = 256  # solutions whose final steps are read at a time
_UNREAD = Extracted(None)

Pool = dict[str, list[Sample]]  # problem id → its samples, in the order of first appearance


def read_pool(path: Path, without_final_step: Collection[str] = (), *, ungraded: bool = False) -> Pool:
    """Read graded and scored solutions by problem.

    Args:
        path: a folder or file of solutions.
        without_final_step: verifiers whose value of a solution's final step is left out where that step states the
            final answer, and is not the only one.
        ungraded: take solutions that are not graded too, as incorrect ones.

    Raises:
        InputError: a solution that is not graded, or lacks a score that others have.
    """
    pool: Pool = {}
    texts: dict[str, str] = {}  # answers, each once: samples of a problem agree on most
    checked = _checked(path, ungraded=ungraded)
    read = _with_final_answers(checked) if without_final_step else ((s, _UNREAD) for s in checked)
    for solution, final in read:
        pool.setdefault(solution.problem_id, []).append(_sample(solution, without_final_step, final, texts))
    return pool


def _checked(path: Path, *, ungraded: bool) -> Iterator[Solution]:
    first, names = "", set[str]()
    for where, solution in read_located(path, Solution):
        here = f"{where}: solution {solution.id}"
        if solution.correct is None and not ungraded:
            raise InputError(f"{here} is not graded ('correct' is missing); run `sampling label` first")
        if not first:
            first, names = here, set(solution.scores)
        if differing := sorted(solution.scores.keys() ^ names):
            culprit = here if differing[0] in names else first
            raise InputError(
                f"{culprit} has no score by '{differing[0]}', but others do; score all with the same verifiers"
            )
        yield solution


def _with_final_answers(solutions: Iterator[Solution]) -> Iterator[tuple[Solution, Extracted]]:
    """Yield solutions with the answers that their final steps state, if these are not their only ones."""
    with Grader() as grader:
        while chunk := list(islice(solutions, _CHUNK)):
            yield from zip(chunk, grader.extract(s.steps[-1] if len(s.steps) > 1 else "" for s in chunk), strict=True)


def _sample(
    solution: Solution, without_final_step: Collection[str], final: Extracted, texts: dict[str, str]
) -> Sample:  # fmt: skip
    reference, predicted = (
        None if text is None else texts.setdefault(text, text) for text in (solution.answer, solution.predicted)
    )
    answer = predicted if solution.finish != "length" else None
    num_steps = len(solution.steps)
    trimmed: tuple[str, ...] = ()
    if final.answer is not None:
        trimmed = tuple(name for name in without_final_step if len(solution.scores.get(name, ())) == num_steps)
    scores = solution.scores | {name: solution.scores[name][:-1] for name in trimmed}
    return Sample(solution.id, reference, answer, solution.solved, num_steps, scores, trimmed, unread=final.timed_out)


def count_samples(pool: Pool) -> dict[str, int]:
    """Count samples without an answer, and problems that no rule changes.

    These are the problems without a correct sample, and those without an incorrect one. Final steps are counted if any
    was left out, or not read in time.
    """
    there = [[sample for sample in samples if sample is not MISSING] for samples in pool.values()]
    groups = [[sample.correct for sample in samples] for samples in there]
    final_steps = {
        "final_steps_left_out": sum(bool(sample.trimmed) for samples in there for sample in samples),
        "final_steps_timed_out": sum(sample.unread for samples in there for sample in samples),
    }
    return {name: count for name, count in final_steps.items() if count} | {
        "without_answer": sum(sample.predicted is None for samples in there for sample in samples),
        "problems_without_correct": sum(not any(correct) for correct in groups),
        "problems_without_incorrect": sum(map(all, groups)),
    }


def largest_size(counts: Sequence[int]) -> int:
    """Find the largest N of the curves.

    With a given N, the problems with at least N samples are kept, and N samples of each. Of all N that at least half of
    the problems reach, the one with the largest product of these two numbers is taken, and among equals the one that
    keeps more problems. So one problem with a single sample does not shorten the curves of hundreds, and no problem is
    left out for a sample or two.

    Args:
        counts: numbers of samples of each problem.
    """
    ordered = sorted(counts, reverse=True)  # the k-th value (from 1) is the largest N that k problems reach
    kept = max(range((len(ordered) + 1) // 2, len(ordered) + 1), key=lambda k: (ordered[k - 1] * k, k))
    return ordered[kept - 1]


def choose_sizes(sizes: Sequence[int] | None, pool: Pool) -> list[int]:
    """Check the given sizes, or choose powers of two.

    The powers go up to :func:`largest_size`, which is a size too.

    Raises:
        InputError: sizes below 1, or more samples than at least half of the problems have.
    """
    total = largest_size([*map(len, pool.values())])
    grid = sorted(set(sizes)) if sizes is not None else powers_of_two(total)
    if not grid or grid[0] < 1:
        raise InputError(f"sizes: expected numbers of 1 or more, got {sizes}")
    fewer = [problem_id for problem_id, samples in pool.items() if len(samples) < grid[-1]]
    if 2 * len(fewer) > len(pool):
        raise InputError(
            f"sizes: {grid[-1]} samples requested, but {len(fewer)} of {len(pool)} problems have fewer; "
            f"problem {fewer[0]} has {len(pool[fewer[0]])}"
        )
    return grid


def powers_of_two(total: int) -> list[int]:
    """Return the powers of two below a number, and the number itself."""
    return sorted({2**i for i in range(total.bit_length())} | {total})


def drop_smaller(pool: Pool, size: int) -> dict[str, int]:
    """Remove problems with fewer samples than ``size``; return their counts."""
    few = {problem_id: len(samples) for problem_id, samples in pool.items() if len(samples) < size}
    for problem_id in few:
        del pool[problem_id]
    return few


def fill_up(pool: Pool) -> int:
    """Fill up every problem to the largest number of samples.

    Returns:
        Number of samples that were missing.
    """
    most = max(map(len, pool.values()))
    lacking = [samples for samples in pool.values() for _ in range(most - len(samples))]
    for samples in lacking:
        samples.append(MISSING)
    return len(lacking)


def has_many(pool: Pool, name: str) -> bool:
    """Tell whether a verifier gives several values per solution."""
    return any(sample.num_values(name) > 1 for samples in pool.values() for sample in samples)
