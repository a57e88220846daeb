"""Write the model card of an export.

It describes the model, its data and recipe, and holds usage code that a test runs.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import lightning
import yaml

from stepverify.callbacks.best import Best
from stepverify.callbacks.usage import Usage
from stepverify.hub import split_revision
from stepverify.metrics import shown
from stepverify.models.export import Form
from stepverify.modules import StepModule
from stepverify.versions import installed

_KINDS = {
    "generator": (
        "Generator",
        "Writes worked solutions step by step.",
        ("text-generation", ["math"]),
    ),
    "outcome": (
        "Outcome verifier",
        "Gives the probability, after every token of a worked solution, that its final answer is correct; the value at "
        "the final token is the solution's score.",
        ("token-classification", ["math", "reward-model", "outcome-reward-model"]),
    ),
    "process": (
        "Process reward model",
        "Gives the probability that each step of a worked solution is correct, at the step tag after the step.",
        ("token-classification", ["math", "reward-model", "process-reward-model"]),
    ),
    "implicit": (
        "Implicit reward model",
        "Gives, after each step of a worked solution, the probability that the solution so far leads to a correct "
        "answer: from the log-ratio of this model and its reference, trained on outcomes alone (Yuan et al. 2024).",
        ("text-generation", ["math", "reward-model", "process-reward-model", "implicit-prm"]),
    ),
}
_FORMS: dict[Form, str] = {
    "causal": "`AutoModelForCausalLM`",
    "classifier": "`AutoModelForTokenClassification`",
    "value_head": "`AutoModelForCausalLM` and `value_head.safetensors`, a linear layer on its last hidden states",
    "adapter": "LoRA adapters for peft, alone",
}
_TRAINER = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val", "strategy")


class Card:
    """Collect the facts about a run for its model card.

    Created on all ranks, as reading the metrics may reduce them.

    Args:
        trainer: at the end of fit.
        module: the trained module.
        forms: form → its folder within the export.
        repository: Hub repository, if the export is uploaded.

    Attributes:
        best: checkpoint that the weights are from; None for the final weights.
    """

    best: Best | None = None

    def __init__(
        self, trainer: lightning.Trainer, module: StepModule, forms: dict[Form, str], repository: str | None
    ) -> None:
        self.module, self.forms, self.repository = module, forms, repository
        self.facts, self.source = module.facts(), module.backbone_source
        self.metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.epochs, self.steps = trainer.current_epoch, trainer.global_step
        self.devices = trainer.world_size
        self.data: Any = trainer.datamodule  # type: ignore[attr-defined]
        from stepverify.callbacks.run_folder import RunFolder  # by way of the exports, it imports this module

        saved = next((c for c in trainer.callbacks if isinstance(c, RunFolder)), None)  # type: ignore[attr-defined]
        self.config: dict[str, Any] = saved.plain if saved is not None else {}

    def render(self, form: Form, folder: Path) -> str:
        """Render the card of one form.

        ``folder`` holds its weights and tokenizer.
        """
        title, purpose, _ = _KINDS[self.facts["objective"]]
        start = "a random start" if self.source.weights == "random" else f"`{self.source.path}`"
        parts = [
            self._front_matter(form),
            f"# {title}, from {start}\n\n{purpose} {self._form(form)}",
            self._usage(form, folder),
            self._text(),
            self._reference(),
            self._data(),
            self._metrics(),
            self._recipe(),
            self._versions(),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _front_matter(self, form: Form) -> str:
        pipeline, tags = _KINDS[self.facts["objective"]][2]
        matter: dict[str, Any] = {"library_name": "peft" if form == "adapter" else "transformers"}
        if self.source.weights == "pretrained" and not Path(self.source.path).exists():
            matter["base_model"] = split_revision(self.source.path)[0]
            matter["base_model_relation"] = "adapter" if form == "adapter" else "finetune"
        matter |= {"pipeline_tag": pipeline, "tags": ["stepverify", *tags]}
        return f"---\n{yaml.safe_dump(matter, sort_keys=False)}---"

    def _form(self, form: Form) -> str:
        others = {other: place for other, place in self.forms.items() if place != "." and self.forms[form] == "."}
        merged = ", the adapters merged" if self.source.lora and form != "adapter" else ""
        here = f"This folder holds it as {_FORMS[form]}{merged}"
        return "; ".join([here, *(f"`{place}/` as {_FORMS[other]}" for other, place in others.items())]) + "."

    def _usage(self, form: Form, folder: Path) -> str:
        usage = Usage(self.module, form, folder, self._where(form))
        parts = ["## Use", f"```python\n{usage.transformers()}\n```"]
        if self.facts["objective"] != "generator":
            place = "." if form == "classifier" else self.forms.get("classifier") if form == "causal" else None
            if place is not None:
                how = f"With vLLM (0.32 or newer), the ids as above{'' if place == '.' else f', from `{place}/`'}:"
                parts += [how, f"```python\n{usage.vllm(place)}\n```"]
        parts.append(
            f"Texts are turned into ids piece by piece, as above, never as a whole. Longest sequence in training: "
            f"{self.facts['max_length']} tokens."
        )
        return "\n\n".join(parts)

    def _where(self, form: Form) -> str:
        if self.repository is None:
            return 'path = "."  # the folder of this card'
        below = "" if self.forms[form] == "." else f' + "/{self.forms[form]}"'
        return f'from huggingface_hub import snapshot_download\n\npath = snapshot_download("{self.repository}"){below}'

    def _text(self) -> str:
        template = self.module.template
        rows = {"prompt": template.text, "step_separator": template.joint}
        ids: dict[str, int] = self.facts.get("ids", {})
        rows |= {name: getattr(template, name) for name in ids}
        lines = ["| | text | id |", "|---|---|---|"]
        lines += [f"| {k} | `{json.dumps(v, ensure_ascii=False)}` | {ids.get(k, '')} |" for k, v in rows.items()]
        return "## Text\n\n" + "\n".join(lines)

    def _reference(self) -> str:
        facts = self.module.facts()  # the calibration is that of the weights, which may be those of the best checkpoint
        if (found := facts.get("reference")) is None:
            return ""
        gain, bias = facts["scaling"]
        return (
            f"## Reward\n\nβ = {facts['beta']} times the log-ratio to the reference `{found['path']}` (digest "
            f"{found['digest'][:16]}), which scoring needs beside this model; values are the sigmoid of {gain:.4g} "
            f"times the reward {'+' if bias >= 0 else '-'} {abs(bias):.4g}."
        )

    def _data(self) -> str:
        used = getattr(self.data, "examples", {})
        names = {"train": "fit", "validation": "validate"}
        lines = []
        for key, stage in names.items():
            reader = self.config.get("data", {}).get(key)
            if reader is None or stage not in used:
                continue
            tokens = int(used[stage].lengths.sum())
            arguments = ", ".join(f"{k}: {v}" for k, v in _pruned(reader.get("init_args") or {}).items())
            size = f"{len(used[stage]):,} solutions, {tokens:,} tokens"
            out = ", ".join(f"{count:,} {reason}" for reason, count in used[stage].left_out.most_common())
            line = f"- {key}: {size}, read by `{reader['class_path']}` ({arguments})"
            lines.append(line + (f"; left out: {out}" if out else ""))
        return "## Data\n\n" + "\n".join(lines) if lines else ""

    def _metrics(self) -> str:
        metrics = self.best.metrics if self.best else self.metrics
        if not metrics:
            return ""
        rows = [f"| {name.removeprefix('val/')} | {shown(name, value)} |" for name, value in sorted(metrics.items())]
        when = f"of step {self.best.step:,}" if self.best else "at the end"
        return f"## Validation {when}\n\n" + "\n".join(["| metric | value |", "|---|---|", *rows])

    def _recipe(self) -> str:
        told: dict[str, Any] = {k: self.config[k] for k in ("seed_everything", "model", "data") if k in self.config}
        if trainer := {k: v for k, v in self.config.get("trainer", {}).items() if k in _TRAINER}:
            told["trainer"] = trainer
        epochs = f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
        ran = f"{self.steps:,} steps in {epochs} on {self.devices} device{'s' * (self.devices > 1)}."
        if self.best is not None:
            ran += f" These weights are of {self.best}."
        text = yaml.dump(
            _pruned(told), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
        )
        return f"## Recipe\n\n{ran}" + (f"\n\n```yaml\n{text}```" if told else "")

    def _versions(self) -> str:
        packages = ["torch", "lightning", "transformers", *(["peft"] if self.source.lora else [])]
        found = {"Python": platform.python_version()} | installed("stepverify", *packages)
        return "## Versions\n\n" + ", ".join(f"{name} {number}" for name, number in found.items())


class _Dumper(yaml.SafeDumper):
    """Quote strings with line ends, as recipes do."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None),
)


def _pruned(tree: Any) -> Any:
    """Remove empty values."""
    if not isinstance(tree, dict):
        return tree
    kept = {k: _pruned(v) for k, v in tree.items()}
    return {k: v for k, v in kept.items() if v is not None and v not in ({}, [])}
