"""What a frozen model knows of solutions: linear probes of its states, as scores for `sampling rank` and `sampling report`.

    python -m tests.benchmarks.bench_probe --model DIR --solutions mixed.jsonl --output probes.jsonl
        [--samples 16] [--teacher qwen_prm skywork_prm] [--shares 0.25 0.5]

Before hours of training: would more problems, another objective or a larger model help? The state after a solution's last
step, halfway up the model, is all that a probe sees. Probes are cross-fitted: each half of the problems is judged by those
that learned from the other one. `outcomes` learns grades, `pairs` ranks correct solutions above the incorrect ones of their
problem (Bradley and Terry 1952), `teacher` learns the mean of the named scores' products, `outcomes_25` the grades of a
quarter of its problems. States are kept in `OUTPUT.states.npy` and read from there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepverify.jsonl import write_records
from stepverify.readers import Solutions
from stepverify.readers.base import in_fold
from stepverify.records import Solution
from stepverify.statistics import auroc_per_problem

PENALTY = 0.01  # on the squared weights of a probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or id of a causal language model")
    parser.add_argument("--solutions", required=True, help="graded solutions, as `sampling convert` writes them")
    parser.add_argument("--output", type=Path, required=True, help="the solutions with the probes' scores")
    parser.add_argument("--samples", type=int, default=16, help="the first of each problem")
    parser.add_argument("--teacher", nargs="*", default=[], help="names of scores that a probe learns")
    parser.add_argument("--shares", nargs="*", type=float, default=[0.25, 0.5], help="of the problems to learn from")
    arguments = parser.parse_args()
    solutions = [*Solutions(arguments.solutions, max_solutions=arguments.samples).solutions()]
    kept = arguments.output.with_suffix(".states.npy")
    if not kept.is_file():
        np.save(kept, states(arguments.model, solutions))
    scores = probe(np.load(kept), solutions, arguments.teacher, arguments.shares)
    for index, solution in enumerate(solutions):
        solution.scores |= {name: [float(values[index])] for name, values in scores.items()}
    write_records(arguments.output, solutions)
    correct = np.array([bool(s.correct) for s in solutions])
    names, ids = np.unique([s.problem_id for s in solutions], return_inverse=True)
    print(f"{len(solutions)} solutions of {len(names)} problems; held-out AUROC within a problem:")
    for name, values in scores.items():
        print(f"  {name}: {auroc_per_problem(values, correct, ids):.3f}")


@torch.inference_mode()
def states(model: str, solutions: Sequence[Solution], batch: int = 8) -> np.ndarray:
    """Return the state after the last step of each solution, halfway up the model: solutions × width."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    body: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).base_model.eval()
    body.layers = body.layers[: len(body.layers) // 2]
    body.norm = torch.nn.Identity()
    rows = []
    for solution in solutions:
        parts = [f"Question: {solution.problem}\nAnswer:\n", *(step + "\n" for step in solution.steps)]
        rows.append([token for part in parts for token in tokenizer(part).input_ids])
    found = np.zeros((len(rows), body.config.hidden_size), np.float32)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        longest = len(rows[chosen[-1]])
        ids = torch.tensor([rows[i] + [0] * (longest - len(rows[i])) for i in chosen])
        mask = torch.tensor([[1] * len(rows[i]) + [0] * (longest - len(rows[i])) for i in chosen])
        hidden = body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for row, i in zip(hidden, chosen, strict=True):
            found[i] = row[len(rows[i]) - 1].float().numpy()
        if start // batch % 20 == 0:
            print(f"{start + len(chosen)} of {len(order)} solutions read", flush=True)
    return found


def probe(
    found: np.ndarray, solutions: Sequence[Solution], teacher: Sequence[str], shares: Sequence[float]
) -> dict[str, np.ndarray]:
    """Return each probe's cross-fitted scores, in [0, 1]."""
    correct = np.array([bool(s.correct) for s in solutions], np.float32)
    wanted: dict[str, tuple[np.ndarray, float, bool]] = {
        "outcomes": (correct, 1.0, False),
        "pairs": (correct, 1.0, True),
    }
    if teacher:
        values = np.array([np.mean([np.prod(s.scores[name]) for name in teacher]) for s in solutions], np.float32)
        wanted["teacher"] = (values, 1.0, False)
    wanted |= {f"outcomes_{round(100 * share)}": (correct, share, False) for share in shares}
    ids = [s.problem_id for s in solutions]
    upper = np.array([in_fold(i, "train", 0.5) for i in ids])
    scores = {name: np.zeros(len(ids)) for name in wanted}
    for judged in (upper, ~upper):
        for name, (target, share, pairs) in wanted.items():
            end = min(0.5 * share + (0 if judged is upper else 0.5), 0.999999)
            learned = ~judged & np.array([in_fold(i, "validation", end) for i in ids])
            weights, bias = fit(found, target, learned, ids if pairs else None)
            scores[name][judged] = 1 / (1 + np.exp(-(found[judged] @ weights + bias)))
    return scores


def fit(
    found: np.ndarray, target: np.ndarray, learned: np.ndarray, ids: Sequence[str] | None
) -> tuple[np.ndarray, float]:
    """Return weights and bias of a logistic regression; with ``ids`` of the pairs of each problem."""
    centre, scale = found[learned].mean(0), (found[learned].std(0) + 1e-3) * found.shape[1] ** 0.5 / 8
    x, y = torch.tensor((found[learned] - centre) / scale), torch.tensor(target[learned])
    weights, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    if ids is not None:
        problem = np.unique(np.array(ids)[learned], return_inverse=True)[1]
        better, worse = np.nonzero((problem[:, None] == problem) & (target[learned][:, None] > target[learned]))
        share = torch.tensor(1 / np.bincount(problem[better])[problem[better]], dtype=torch.float32)
    else:
        positive = (y > 0.5).float()
        balance = positive / positive.mean() / 2 + (1 - positive) / (1 - positive).mean() / 2
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = x @ weights + bias
        if ids is not None:  # every problem weighs the same
            loss = (share * softplus(logits[worse] - logits[better])).sum() / share.sum()
        else:
            loss = (balance * binary_cross_entropy_with_logits(logits, y, reduction="none")).mean()
        loss = loss + PENALTY * (weights**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    slope = weights.detach().numpy() / scale
    return slope, float(bias.detach()) - float(centre @ slope)


if __name__ == "__main__":
    main()
