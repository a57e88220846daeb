"""One layer's attention along a pack, forward and backward, in several ways: CPU time and memory kept for the backward pass.

    OMP_NUM_THREADS=1 taskset -c 0 python -m tests.benchmarks.bench_attention [--model DIR --data FILE]

Packs are the first problems of the data with so many samples each; heads are SmolLM2-135M's. Without --data, prompts of
55 random tokens and solutions of 40 to 100 more. The ways take turns; figures are medians, summed over the packs. A tiny
model on packs that share nothing: --heads 4 --groups 4 --width 16 --prompt 0 --solution 16 45 --unshared.

- rows: sequences unrolled into rows as long as the longest, one call;
- buckets: the same in up to four calls, for rows alike in length;
- suffixes: a call for each sequence, from its first token on, without padding;
- calls: shared prefixes once, merged by their log-sum-exp, each piece in a call of its own;
- segments: the same with short pieces of narrow heads in padded calls: what training takes;
- eager: the whole matrix of products.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stepverify.data.batch import Tree, lay_out
from stepverify.data.encode import SolutionEncoder, load_tokenizer
from stepverify.data.tree import apart, share
from stepverify.models.attention import pieces
from stepverify.models.attention.dense import eager
from stepverify.models.attention.paths import paths
from stepverify.template import Template
from tests.benchmarks.bench_train import header, row
from tests.benchmarks.peers import setup

SCALE = 0.125


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of the tokenizer")
    parser.add_argument("--data", help="solutions")
    parser.add_argument("--longest", type=int, help="leave longer solutions out; in tokens")
    parser.add_argument("--problems", type=int, default=4)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--groups", type=int, default=3)
    parser.add_argument("--width", type=int, default=64, help="of a head")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--prompt", type=int, default=55, help="tokens of random prompts")
    parser.add_argument("--solution", type=int, nargs=2, default=[40, 100], help="least and most tokens after them")
    parser.add_argument("--unshared", action="store_true", help="repeat shared prefixes in each sequence")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    packs = real(arguments) if arguments.data else random(arguments)
    trees = [lay_out((apart if arguments.unshared else share)(pack)) for pack in packs]
    tokens, full = sum(len(tree.end) for tree in trees), sum(len(s) for pack in packs for s in pack)
    print(f"{len(packs)} packs, {tokens} of {full} tokens, longest {max(len(s) for pack in packs for s in pack)}\n")
    ways: dict[str, Callable[..., Tensor]] = {
        "rows": rows, "buckets": buckets, "suffixes": suffixes, "calls": calls, "segments": paths, "eager": eager
    }  # fmt: skip
    found = {name: [(0.0, 0.0, 0)] * len(trees) for name in ways}
    for at, tree in enumerate(trees):
        turns = [{name: once(way, tree, arguments) for name, way in ways.items()} for _ in range(arguments.runs)]
        for name in ways:
            parts = [turn[name] for turn in turns]
            found[name][at] = (median(p[0] for p in parts), median(p[1] for p in parts), parts[0][2])
    header("way", "forward ms", "backward ms", "ratio", "kept MiB", "largest difference")
    base = sum(sum(part[:2]) for part in found["rows"])
    for name, parts in found.items():
        forward, backward, kept = (sum(part[i] for part in parts) for i in range(3))
        off = max(difference(ways[name], tree, arguments) for tree in trees)
        ratio = base / (forward + backward)
        row(name, f"{forward:.1f}", f"{backward:.1f}", f"{ratio:.2f}", f"{kept / 2**20:.1f}", f"{off:.0e}")


def real(arguments: argparse.Namespace) -> list[list[list[int]]]:
    """One pack a problem."""
    encoder = SolutionEncoder(load_tokenizer(arguments.model), Template())
    solutions = setup.choose(
        arguments.data, arguments.problems, arguments.samples, arguments.model, arguments.longest
    )  # fmt: skip
    ids = [encoder.path(s.problem, s.steps) for s in solutions]
    return [ids[i : i + arguments.samples] for i in range(0, len(ids), arguments.samples)]


def random(arguments: argparse.Namespace) -> list[list[list[int]]]:
    rng = np.random.default_rng(0)
    least, most = arguments.solution
    return [
        [[p] * arguments.prompt + rng.integers(0, 9999, rng.integers(least, most)).tolist()
         for _ in range(arguments.samples)]
        for p in range(arguments.problems)
    ]  # fmt: skip


def inputs_of(tree: Tree, arguments: argparse.Namespace) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = (arguments.heads, arguments.groups, arguments.groups)
    made = [torch.randn(1, len(tree.end), n, arguments.width, generator=generator) for n in heads]
    return [x.to(getattr(torch, arguments.dtype)).transpose(1, 2).requires_grad_() for x in made]


def once(way: Callable[..., Tensor], tree: Tree, arguments: argparse.Namespace) -> tuple[float, float, int]:
    """Seconds · 1000 of both passes, and bytes kept between them."""
    inputs, kept = inputs_of(tree, arguments), dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with patch.object(pieces, "_split", apart_calls) if way is calls else nullcontext():
        start = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = way(*inputs, tree, 0.0, SCALE, None, None)
        middle = time.process_time()
        out.sum().backward()
        stop = time.process_time()
    return 1000 * (middle - start), 1000 * (stop - middle), sum(kept.values())


def difference(way: Callable[..., Tensor], tree: Tree, arguments: argparse.Namespace) -> float:
    """Largest one from the written-out attention, in values and gradients."""
    sides = []
    for function in (way, eager):
        inputs = inputs_of(tree, arguments)
        out = function(*inputs, tree, 0.0, SCALE, None, None)
        (out * torch.linspace(-1, 1, out.shape[2])[:, None]).sum().backward()
        sides.append([out.detach(), *(x.grad for x in inputs)])
    return max((one - other).abs().max().item() for one, other in zip(*sides, strict=True))


# ── other ways ────────────────────────────────────────────────────────────────────────────────────


def rows(query: Tensor, key: Tensor, value: Tensor, tree: Tree, *_: object) -> Tensor:
    return _unrolled(query, key, value, tree, [torch.arange(len(tree.rows))])


def buckets(query: Tensor, key: Tensor, value: Tensor, tree: Tree, *_: object) -> Tensor:
    lengths = tree.depth[tree.rows[:, -1]]
    return _unrolled(query, key, value, tree, list(lengths.argsort().tensor_split(min(4, len(lengths)))))


def _unrolled(query: Tensor, key: Tensor, value: Tensor, tree: Tree, parts: list[Tensor]) -> Tensor:
    whole = query.new_zeros(*tree.rows.shape, query.shape[1], query.shape[3])
    for part in parts:
        width = int(tree.depth[tree.rows[part, -1]].max()) + 1
        q, k, v = (x[0].transpose(0, 1)[tree.rows[part, :width]].transpose(1, 2) for x in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=SCALE, enable_gqa=True)
        whole = whole.index_put((part[:, None], torch.arange(width)), out.transpose(1, 2))
    return whole.flatten(0, 1)[tree.origin].transpose(0, 1)[None]


def calls(*arguments: Any) -> Tensor:
    return paths(*arguments)


def apart_calls(query: Tensor, keys: Tensor, calls: Tensor, window: int | None) -> tuple[tuple[()], Tensor]:
    return (), calls


def suffixes(query: Tensor, key: Tensor, value: Tensor, tree: Tree, *_: object) -> Tensor:
    calls = tree.suffixes
    out, _ = torch.ops.stepverify.attend_segments(query, key, value, calls.keys, calls.calls, SCALE, None)
    return out.transpose(0, 1)[None]


if __name__ == "__main__":
    main()
