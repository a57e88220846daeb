"""What every contestant is given, and what it hands back."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stepverify.data.encode import Example, SolutionEncoder, load_tokenizer
from stepverify.data.targets import StepTargets
from stepverify.readers import Solutions
from stepverify.records import InputError
from stepverify.template import Template

MAX_LENGTH = 4096
LEARNING_RATE = 1e-5
CLIP = 1.0
_TAGS = ("<step>", "<reponame>", "<|fim_pad|>")
_MARK = "RESULT "


@dataclass
class Spec:
    """One run of one contestant.

    Attributes:
        task: train a PRM, train a generator (SFT), or score with a PRM.
        model: folder.
        data: folder of solutions with step labels.
        steps: optimizer steps (batches, in scoring) that one epoch over the data is divided into.
        options: of the contestant.
        device: ``cpu``, in float32; or ``cuda``, under autocast to bfloat16 with float32 weights.
    """

    task: Literal["prm", "sft", "score"]
    model: str
    data: str
    steps: int
    options: dict[str, Any] = field(default_factory=dict)
    device: Literal["cpu", "cuda"] = "cpu"

    @classmethod
    def from_argv(cls) -> Spec:
        return cls(**json.loads(sys.argv[1]))

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.model)

    @cached_property
    def encoder(self) -> SolutionEncoder:
        """With the first tag that is one token there: all contestants read the same ids."""
        for tag in _TAGS:
            encoder = SolutionEncoder(self.tokenizer, Template(step_tag=tag), MAX_LENGTH)
            try:
                _ = encoder.label_ids
            except InputError:
                continue
            return encoder
        raise InputError(f"{self.model}: none of {_TAGS} is one token")

    @cached_property
    def examples(self) -> list[Example]:
        encoder, targets = self.encoder, StepTargets()
        records = Solutions(self.data).solutions()
        if self.task == "sft":
            return [encoder.next_token(r) for r in records]
        return [encoder.process(r, None if self.task == "score" else targets(r.step_labels or [])) for r in records]

    def rows(self) -> list[tuple[list[int], list[int]]]:
        """Ids and labels as causal language models take them, -100 where nothing is learned."""
        made = []
        for e in self.examples:
            if self.task == "sft":
                ids = [*e.input_ids, int((e.targets or [])[-1])]
                made.append((ids, [-100] * (e.positions[0] + 1) + ids[e.positions[0] + 1 :]))
            else:
                # The label is what the tag predicts, so it stands after the tag; the last one needs a place.
                ids, labels = [*e.input_ids, self.encoder.end_id], [-100] * (len(e.input_ids) + 1)
                for at, target in zip(e.positions, e.targets or [], strict=False):
                    labels[at + 1] = self.encoder.label_ids[int(target >= 0.5)]
                made.append((ids, labels))
        return made


@dataclass
class Work:
    """What a step took in.

    Attributes:
        solutions: number of them.
        tokens: theirs, each counted in full.
        positions: that the model computed, padding counted, shared prefixes once.
        squares: products in the attention, of a row of T tokens T²: those of causal calls are halved later.
        logits: numbers that the head computed.
    """

    solutions: int = 0
    tokens: int = 0
    positions: int = 0
    squares: int = 0
    logits: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


class Clock:
    """Time of a run from the end of its first step, which is the warm-up, to the end of the last one."""

    def __init__(self, spec: Spec, model: Any) -> None:
        self.spec, self.times, self.done = spec, list[tuple[float, float]](), list[Work]()
        body = [p.numel() for name, p in model.named_parameters() if p.ndim > 1 and ".layers." in f".{name}"]
        config = model.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.body, self.all = sum(body), sum(p.numel() for p in model.parameters())
        self.attention = config.num_hidden_layers * config.num_attention_heads * head
        self.width, self.loaded = config.hidden_size, self.peak("VmRSS")

    def peak(self, key: Literal["VmRSS", "VmHWM"]) -> int:
        """Bytes of the process; of a GPU what its tensors take, now or at the peak."""
        if self.spec.device == "cpu":
            return memory(key)
        import torch

        return torch.cuda.memory_allocated() if key == "VmRSS" else torch.cuda.max_memory_allocated()

    def tick(self, work: Work) -> None:
        if self.spec.device == "cuda":
            import torch

            torch.cuda.synchronize()
        self.times.append((time.perf_counter(), time.process_time()))
        self.done.append(work)

    def report(self, **more: Any) -> None:
        """Print the result. Solutions a second are tokens a second over the mean length of all solutions."""
        work = sum(self.done[1:], Work())
        passes = 1 if self.spec.task == "score" else 3  # forward; backward is two more
        flops = passes * 2 * (self.body * work.positions + self.attention * work.squares + self.width * work.logits)
        result = asdict(work) | {
            "seconds": self.times[-1][0] - self.times[0][0], "cpu": self.times[-1][1] - self.times[0][1], "flops": flops, "peak": self.peak("VmHWM"), "loaded": self.loaded,
            "parameters": self.all, "steps": len(self.times),
            "per_step": sum(w.solutions for w in self.done) / len(self.done),
            "mean_length": sum(len(e.input_ids) for e in self.spec.examples) / len(self.spec.examples), **more,
        }  # fmt: skip
        print(_MARK + json.dumps(result), flush=True)


def parse(output: str) -> dict[str, Any]:
    """The result among what a contestant printed."""
    return json.loads(next(line for line in reversed(output.splitlines()) if line.startswith(_MARK))[len(_MARK) :])


def memory(key: Literal["VmRSS", "RssAnon", "VmHWM"]) -> int:
    """Bytes of this process: resident now, those of no file, or resident at its peak. Linux."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(key)).split()[1])
