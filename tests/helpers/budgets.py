"""Results of searches that are written down: accuracies, costs and scores of samples."""

from sampling.search import Cost, SearchResult
from stepverify.jsonl import write_records
from stepverify.manifest import write_manifest

LAW = {
    "engine": {"engine": "known"}, "sampling": {"temperature": 0.8}, "template": {"prompt": "Q"}, "few_shot": "none",
    "verifier": {"scorer": "known"}, "aggregation": "last", "max_depth": 40, "max_tokens": None,
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


def write_search(folder, results, strategy="BeamSearch", finished=True, settings=None, **law):
    """The results of a search, as its stage leaves them."""
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
