"""A plain trainer: one solution a row, padded, logits of the whole vocabulary, ``model(labels=...)`` and AdamW."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from tests.benchmarks.peers.work import CLIP, LEARNING_RATE, Clock, Spec, Work


def main() -> None:
    spec = Spec.from_argv()
    model = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float32).to(spec.device)
    clock = Clock(spec, model)
    with torch.autocast(spec.device, torch.bfloat16, enabled=spec.device == "cuda"):
        (score if spec.task == "score" else train)(spec, model, clock)
    clock.report()


def train(spec: Spec, model: torch.nn.Module, clock: Clock) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    model.train()
    rows = spec.rows()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    for some in order.tensor_split(spec.steps)[: spec.options.get("batches")]:
        ids, mask = pad([rows[i][0] for i in some], spec.encoder.end_id)
        labels, _ = pad([rows[i][1] for i in some], -100)
        ids, mask, labels = (t.to(spec.device) for t in (ids, mask, labels))
        model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        clock.tick(work(spec, some.tolist(), ids, model.config.vocab_size))


@torch.inference_mode()
def score(spec: Spec, model: torch.nn.Module, clock: Clock) -> None:
    """In the order of the data: samples of one problem are near each other, and alike in length."""
    model.eval()
    for some in torch.arange(len(spec.examples)).tensor_split(spec.steps):
        examples = [spec.examples[i] for i in some]
        ids, mask = pad([e.input_ids for e in examples], spec.encoder.end_id)
        ids, mask = ids.to(spec.device), mask.to(spec.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for row, example in zip(logits, examples, strict=True):
            row[example.positions][:, list(spec.encoder.label_ids)].softmax(-1)[:, 1].tolist()
        clock.tick(work(spec, some.tolist(), ids, model.config.vocab_size))


def work(spec: Spec, some: list[int], ids: torch.Tensor, per_place: int) -> Work:
    """Of a padded batch whose head computes so many numbers a place."""
    rows, longest = ids.shape
    tokens = sum(len(spec.examples[i].input_ids) for i in some)
    return Work(rows, tokens, ids.numel(), rows * longest**2, ids.numel() * per_place)


def pad(rows: list[list[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    filled = torch.tensor([row + [value] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return filled, mask


if __name__ == "__main__":
    main()
