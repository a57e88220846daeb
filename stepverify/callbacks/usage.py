"""Write usage code for an export's model card, independent of this package."""

from __future__ import annotations

import json
from pathlib import Path

from stepverify.hub import split_revision
from stepverify.models.backbone import without_adapters
from stepverify.models.export import Form
from stepverify.models.rows import decoder_of
from stepverify.modules import StepModule

_CAUSAL = "AutoModelForCausalLM"
_AUTO = {"causal": _CAUSAL, "value_head": _CAUSAL, "classifier": "AutoModelForTokenClassification"}
_ENCODE = """
def encode(text):
    return tokenizer.encode(text, add_special_tokens=False)

"""


class Usage:
    """Write code snippets for one form of an export.

    Args:
        module: the trained module.
        form: form of the export.
        folder: folder with its tokenizer, which determines how to load it.
        where: code that sets ``path``.
    """

    def __init__(self, module: StepModule, form: Form, folder: Path, where: str) -> None:
        assert module.model is not None
        self.objective, self.form, self.where = module.model.objective, form, where
        self.auto = _AUTO[module.model.form if form == "adapter" else form]
        self.has_value_head = module.model.form == "value_head"
        names = {part: name for name, part in without_adapters(module.model.backbone).named_modules()}
        self.decoder = names[decoder_of(without_adapters(module.model.backbone))]
        # Fused kernels do not bound attention products; a model that does needs the eager form.
        needs_eager = module.model.reading.own == "eager" and module.model.reading.sdpa
        self.attention = ', attn_implementation="eager"' if needs_eager else ""
        self.template, self.encoder, self.base = module.template, module.encoder, module.backbone_source.path
        self.labels, self.dtype = module.model.labels, module.number_format()
        self.facts = module.facts()
        self.adds_neutral = "neutral" in self.labels and self.facts["neutral"] == "positive"
        # For some model types AutoTokenizer ignores the file's pre-tokenizer and uses that of the class.
        self.tokenizer = "PreTrainedTokenizerFast" if (folder / "tokenizer.json").is_file() else "AutoTokenizer"

    def transformers(self) -> str:
        """Write code from loading the weights to a score or a text."""
        peft = "from peft import PeftModel\n" if self.form == "adapter" else ""
        peft += "from safetensors.torch import load_file\n" if self.has_value_head else ""
        return "\n".join([
            f"import torch\n{peft}from transformers import {', '.join(sorted({self.auto, self.tokenizer}))}",
            "",
            self.where,
            f"tokenizer = {self.tokenizer}.from_pretrained(path)",
            *self._model(),
            "",
            _ENCODE,
            *self._ids(),
            *self._scores(),
        ])  # fmt: skip

    def vllm(self, place: str) -> str:
        """Write code for a token classifier in vLLM's pooling runner.

        ``place`` is its folder below ``path``.
        """
        path = "path" if place == "." else f'path + "/{place}"'
        process = self.objective == "process"
        pooler = (
            f'tok_pooling_type="STEP", step_tag_id={self.encoder.step_tag_id}' if process else 'tok_pooling_type="ALL"'
        )
        scores = [
            f"scores = output.outputs.data{self._correct()}.tolist()",
            "print(scores)  # the probability that each step is correct",
        ]
        if not process:
            scores = [
                "score = output.outputs.data[-1, 0].item()",
                "print(score)  # the probability that the final answer is correct",
            ]
        return "\n".join([
            "from vllm import LLM",
            "from vllm.config import PoolerConfig",
            "",
            f"pooler = PoolerConfig({pooler})",
            f'llm = LLM({path}, runner="pooling", pooler_config=pooler, dtype="{self.dtype}")',
            '(output,) = llm.encode([{"prompt_token_ids": ids}], pooling_task="token_classify")',
            *scores,
        ])  # fmt: skip

    def _model(self) -> list[str]:
        dtype = f"dtype=torch.{self.dtype}{self.attention}"
        head = ['head = load_file(path + "/value_head.safetensors")'] if self.has_value_head else []
        if self.objective == "implicit":
            name = _pretrained(self.facts["reference"]["path"])
            head.append(f"reference = {self.auto}.from_pretrained({name}, {dtype}).eval()")
        if self.form != "adapter":
            return [f"model = {self.auto}.from_pretrained(path, {dtype}).eval()", *head]
        labels = "" if self.auto == _CAUSAL else f", num_labels={len(self.labels)}"
        return [
            f"base = {self.auto}.from_pretrained({_pretrained(self.base)}{labels}, {dtype})",
            "model = PeftModel.from_pretrained(base, path).eval()",
            *head,
        ]

    def _ids(self) -> list[str]:
        tokenizer = self.encoder.tokenizer
        chat = self.template.chat
        start = "[tokenizer.bos_token_id] + " if tokenizer.bos_token_id in tokenizer("").input_ids and not chat else ""
        prompt = f'{start}encode({_quoted(self.template.text)}.replace("{{problem}}", problem))'
        if self.objective == "generator":
            return ['problem = "What is 2 + 3?"', f"ids = {prompt}"]
        lines = ['problem, steps = "What is 2 + 3?", ["2 + 3 = 5", "#### 5"]', f"ids = {prompt}"]
        if self.template.thought:
            lines.append(f"ids += encode({_quoted(self.template.thought)})")
        step = f"encode(step + {_quoted(self.template.joint)})"
        if self.objective == "implicit":
            last = f"encode(steps[-1]) + [{self.encoder.end_id}]" if chat else (
                f"encode(steps[-1] + {_quoted(self.template.joint)}) + [tokenizer.eos_token_id]"
            )  # fmt: skip
            return [
                *lines,
                "start, ends = len(ids), []",
                "for step in steps[:-1]:",
                f"    ids += {step}",
                "    ends.append(len(ids) - 1)",
                f"ids += {last}  # with the end, unless it was cut off",
                "ends.append(len(ids) - 1)",
            ]
        if self.objective == "outcome" and chat:
            return [
                *lines,
                "for step in steps[:-1]:",
                f"    ids += {step}",
                f"ids += encode(steps[-1]) + [{self.encoder.end_id}]  # the end of the turn, unless it was cut off",
            ]
        if self.objective == "outcome":
            return [
                *lines,
                "for step in steps:",
                f"    ids += {step}",
                "ids.append(tokenizer.eos_token_id)  # unless it was cut off",
            ]
        return [
            *lines,
            "tags = []",
            "for step in steps:",
            f"    ids += {step} + [{self.encoder.step_tag_id}]  # {self.template.step_tag}",
            "    tags.append(len(ids) - 1)",
        ]

    def _scores(self) -> list[str]:
        if self.objective == "generator":
            return [
                "with torch.inference_mode():",
                "    prompt = torch.tensor([ids])",
                "    sampled = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=64)",
                "text = tokenizer.decode(sampled[0, len(ids) :], skip_special_tokens=True)",
                "print(text)",
            ]
        if self.objective == "implicit":
            gain, bias = self.facts["scaling"]
            return [
                "",
                "def log_probs(causal):",
                "    with torch.inference_mode():",
                "        logits = causal(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]",
                "    return logits.float().log_softmax(-1).gather(-1, torch.tensor(ids[start:])[:, None])[:, 0]",
                "",
                "",
                f"rewards = {self.facts['beta']} * (log_probs(model) - log_probs(reference)).cumsum(0)",
                f"scores = ({gain} * rewards[[end - start for end in ends]] + {bias}).sigmoid().tolist()",
                "print(scores)  # after each step, the probability that the solution so far leads to a correct answer",
            ]
        run = ["with torch.inference_mode():", "    logits = model(input_ids=torch.tensor([ids])).logits[0]"]
        if self.has_value_head:
            decoder = ("base." if self.form == "adapter" else "model.") + self.decoder
            return [
                "with torch.inference_mode():",
                f"    hidden = {decoder}(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]",
                'value = head["weight"][0].float() @ hidden.float() + head["bias"].float()',
                "score = value.sigmoid().item()",
                "print(score)  # the probability that the final answer is correct",
            ]
        if self.objective == "outcome":
            return [
                *run,
                "score = logits[-1, 0].sigmoid().item()",
                "print(score)  # the probability that the final answer is correct",
            ]
        columns = note = ""
        if self.auto != _AUTO["classifier"]:
            columns = f"[:, {list(self.encoder.label_ids)}]"
            note = "  # " + " and ".join(getattr(self.template, name) for name in self.encoder.labels)
        return [
            *run,
            f"logits = logits[tags]{columns}{note}",
            f"scores = logits.float().softmax(-1){self._correct()}.tolist()",
            "print(scores)  # the probability that each step is correct",
        ]

    def _correct(self) -> str:
        """Write the index that selects the value from the labels' probabilities."""
        return "[:, 1:].sum(-1)" if self.adds_neutral else "[:, 1]"


def _pretrained(path: str) -> str:
    """Write the first arguments of ``from_pretrained``."""
    name, revision = split_revision(path)
    return _quoted(name) + (f", revision={_quoted(revision)}" if revision else "")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
