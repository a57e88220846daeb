"""Rankings whose accuracies and differences are known."""

from stepverify.jsonl import write_records
from stepverify.records import Ranking

RULES = ["pass@1", "majority", "prm/best_of_n", "prm/weighted_vote", "oracle"]


def rankings(folder, num_problems=20, sizes=(1, 4)):
    """Problem i: pass@1 i / 20; majority, at N = 4, correct from the 10th problem on; the verifier from the 6th."""
    rows = []
    for i in range(num_problems):
        last = {"pass@1": i / 20, "majority": float(i >= 10), "prm/best_of_n": float(i >= 6), "oracle": 1.0}
        last["prm/weighted_vote"] = last["majority"]
        curves = {rule: [i / 20] * (len(sizes) - 1) + [last[rule]] for rule in RULES}
        rows.append(Ranking(problem_id=f"p{i}", num_samples=4, sizes=list(sizes), curves=curves, answer="1"))
    write_records(folder / "part-00000.jsonl", rows)
    return folder
