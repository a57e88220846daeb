"""Results of searches that are written down: accuracies, costs and scores of samples."""

from sampling.search import Cost, SearchResult
from sampling.search.policy import read_policy
from sampling.stages.policy import policy
from stepverify.jsonl import write_records
from stepverify.manifest import write_manifest
from stepverify.records import Solution

LAW = {
    "engine": {"engine": "known"}, "sampling": {"temperature": 0.8}, "template": {"prompt": "Q"}, "few_shot": "none",
    "verifier": {"scorer": "known"}, "verifier_name": "prm", "aggregation": "last", "max_depth": 40, "max_tokens": None,
}  # fmt: skip


def result(problem, tokens, curve, majority=None, sizes=(1,), answer="1", values=(), flops=None, **known):
    """A result whose best-of-N curve is given; ``flops`` are (prompt tokens, all FLOPs, those of the verifier)."""
    prompt, total, verifier = flops or (0, None, None)
    cost = Cost(generated_tokens=tokens, prompt_tokens=prompt, flops=total, verifier_flops=verifier)
    majority = [0.0] * len(sizes) if majority is None else majority
    curves = {"pass@1": [curve[0]] * len(sizes), "majority": [*majority], "prm/best_of_n": [*curve]}
    return SearchResult(
        problem_id=problem, cost=cost, num_expansions=1, num_finished=sizes[-1], answer=answer, sizes=[*sizes],
        curves=curves if answer else {}, values=[*values], **known,
    )  # fmt: skip


def found(problem, *scored):
    """Finished solutions of a problem: whether each is correct, and its score."""
    return [
        Solution(
            id=f"{problem}#{i}", problem_id=problem, problem=problem, steps=["step"], answer="1", finish="stop",
            predicted=str(2 - correct), correct=bool(correct), scores={"prm": [score]},
        ) for i, (correct, score) in enumerate(scored)
    ]  # fmt: skip


def write_search(folder, results, strategy="BeamSearch", finished=True, settings=None, solutions=(), **law):
    """The results of a search, as its stage leaves them, and its solutions."""
    if solutions:
        write_records(folder / "part-00000.jsonl", solutions)
    write_records(folder / "results" / "part-00000.jsonl", results)
    config = LAW | {"strategy": {"strategy": strategy, **(settings or {})}} | law
    identity = {"stage": "results", "config": config, "inputs": {}}
    write_manifest(folder / "results", identity, {} if finished else None)
    return folder


def best_of_n(folder, levels, tokens=400, sizes=(1, 2, 4), **known):
    """Best-of-N whose accuracies at each N are given for each problem."""
    rows = [result(f"p{i}", tokens, curve, sizes=sizes, **known) for i, curve in enumerate(levels)]
    return write_search(folder, rows, "BestOfN", settings={"num_samples": sizes[-1]})


def flat(folder, solved, tokens, strategy="BeamSearch", settings=None, **law):
    """A search that solves some problems, at a cost for each or one for all."""
    costs = tokens if isinstance(tokens, list) else [tokens] * len(solved)
    rows = [result(f"p{i}", cost, [float(s)]) for i, (s, cost) in enumerate(zip(solved, costs, strict=True))]
    return write_search(folder, rows, strategy, settings=settings, **law)


NUMBER = 40


def known_searches(folder, number=NUMBER):
    """Problem i is easy if i is even, and its first two samples have the scores 0.9 then, 0.1 if it is not.

    Best-of-N at 100 tokens a sample solves the easy ones with 2 samples, the others never; the beam, at 200, the others
    only. Best-of-2 and the beam alone are correct for one half of the problems each; together they would be for all, since
    the correct sample has a higher score than the beam's solution, and the incorrect ones a lower one.
    """
    rows = [
        result(f"p{i}", 400, [0.0, 1.0, 1.0] if i % 2 == 0 else [0.0] * 3, sizes=(1, 2, 4), values=[0.1 + 0.8 * (i % 2 == 0)] * 4)
        for i in range(number)
    ]  # fmt: skip
    samples = write_search(
        folder / "n", rows, "BestOfN", settings={"num_samples": 4},
        solutions=[s for i in range(number) for s in found(f"p{i}", (i % 2 == 0, 0.9 - 0.8 * (i % 2)), *[(False, 0.0)] * 3)],
    )  # fmt: skip
    beam = flat(
        folder / "beam", [i % 2 for i in range(number)], 200,
        settings={"num_beams": 4, "width": 2, "merge_duplicates": True},
        solutions=[s for i in range(number) for s in found(f"p{i}", (i % 2, 0.5))],
    )  # fmt: skip
    return {"n": samples, "beam": beam}


def made(folder, searches, budgets, **keys):
    settled = {"num_samples": 2, "num_bins": 2, "num_bootstrap": 20} | keys
    policy(searches, budgets, folder / "policy.json", **settled)
    return read_policy(folder / "policy.json")
