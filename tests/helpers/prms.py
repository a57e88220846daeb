"""Tiny random models in the file layout of released process reward models, and their cards' formulas.

The formulas are a few lines of plain transformers, and share no code with ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROBLEM = "What is 2 + 3?"
STEPS = ["We add 2 and 3.", "2 + 3 = 5.\nSo it is 5.", "The answer is 5."]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' "
    "+ (message.content | trim) + '<|eot_id|>' }}{% endfor %}"
)
_SIZE = {
    "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512, "initializer_range": 0.4,
}  # fmt: skip


def byte_level(folder: Path, specials: list[str], template: str | None, **tokens: str) -> Any:
    """A byte-level BPE: ids of bytes in the alphabet's order, then some merges, then the special tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("Ġ", "+"), ("Ġ", "-"), (".", "Ċ"), ("Ð", "º"), ("Ð", "¸"), ("Ðº", "Ð¸")]
    vocabulary += ["".join(pair) for pair in merges]
    inner = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges))
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    inner.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **tokens)
    if template is not None:
        made.chat_template = template
    made.save_pretrained(str(folder))
    return made


def sentencepiece(folder: Path) -> Any:
    """A tokenizer as Mistral's: spaces are ``▁``, one before every text, line ends are a byte."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "+", "-", "к", "и", "ки", "▁ки", "▁+", "▁-"]
    pieces += list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789=?.:")
    merges = [("к", "и"), ("▁", "ки"), ("▁", "+"), ("▁", "-")]
    inner = Tokenizer(
        models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges, byte_fallback=True, unk_token="<unk>")
    )
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.save_pretrained(str(folder))
    return made


def write(name: str, folder: Path, size: int = 16) -> str:
    """Write a tiny model of a family; the files' names and keys are those of the released ones.

    ``size`` is the hidden size of two heads; vLLM's CPU attention needs 128.
    """
    import torch

    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        _WRITERS[name](folder, size)
    return str(folder)


def _config(kind: str, tokenizer: Any, size: int, **known: Any) -> Any:
    from transformers import LlamaConfig, MistralConfig, Qwen2Config

    made = {"qwen2": Qwen2Config, "mistral": MistralConfig, "llama": LlamaConfig}[kind]
    return made(
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None, tie_word_embeddings=False, hidden_size=size, **_SIZE, **known,
    )  # fmt: skip


def _say(folder: Path, config: Any, **changed: Any) -> None:
    said = {**json.loads(config.to_json_string()), "dtype": "float32", **changed}
    (folder / "config.json").write_text(json.dumps(said))


def _qwen(folder: Path, size: int) -> None:
    """Two shards and an index; the head is two layers; the code named by auto_map is not there."""
    from safetensors.torch import save_file
    from torch import nn
    from transformers import Qwen2Model

    tokens = byte_level(
        folder, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"], CHATML, eos_token="<|im_end|>"
    )
    config = _config("qwen2", tokens, size)
    named = {
        "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
        "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
    }
    _say(folder, config, architectures=["Qwen2ForProcessRewardModel"], auto_map=named)
    head = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 2))
    state = {f"model.{k}": v.contiguous() for k, v in Qwen2Model(config).state_dict().items()}
    shards = {
        "model-00001-of-00002.safetensors": state,
        "model-00002-of-00002.safetensors": {f"score.{k}": v.contiguous() for k, v in head.state_dict().items()},
    }
    for file, tensors in shards.items():
        save_file(tensors, str(folder / file), metadata={"format": "pt"})
    weight_map = {k: file for file, tensors in shards.items() for k in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _skywork(folder: Path, size: int) -> None:
    """One file with an output matrix that is not read, and TRL's value head."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2ForCausalLM

    tokens = byte_level(
        folder, ["<|endoftext|>", "<|im_end|>"], CHATML, bos_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    config = _config("qwen2", tokens, size)
    _say(folder, config, architectures=["Qwen2ForPrmModel"], auto_map={"AutoModel": "modeling.Qwen2ForPrmModel"})
    state = {k: v.contiguous() for k, v in Qwen2ForCausalLM(config).state_dict().items()}
    state |= {"v_head.summary.weight": torch.randn(1, size), "v_head.summary.bias": torch.randn(1)}
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})


def _trl(folder: Path, size: int) -> None:
    """As its trainer saves: transformers' token classifier."""
    import torch
    from transformers import Qwen2ForTokenClassification

    tokens = byte_level(folder, ["<|endoftext|>", "<|im_end|>"], None, eos_token="<|im_end|>")
    model = Qwen2ForTokenClassification(_config("qwen2", tokens, size, num_labels=2))
    torch.nn.init.normal_(model.score.bias)
    model.save_pretrained(str(folder))


def _shepherd(folder: Path, size: int) -> None:
    from transformers import MistralForCausalLM

    MistralForCausalLM(_config("mistral", sentencepiece(folder), size)).save_pretrained(str(folder))


def _rlhflow(folder: Path, size: int) -> None:
    from transformers import LlamaForCausalLM

    specials = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokens = byte_level(folder, specials, LLAMA3, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    LlamaForCausalLM(_config("llama", tokens, size)).save_pretrained(str(folder))


_WRITERS = {
    "QwenPRM": _qwen, "SkyworkPRM": _skywork, "TRLPRM": _trl, "MathShepherdPRM": _shepherd, "RLHFlowPRM": _rlhflow,
}  # fmt: skip


def by_card(name: str, folder: str, problem: str, steps: list[str]) -> tuple[list[int], list[float]]:
    """The ids that the model card's code gives the model, and its score of each step."""
    from transformers import PreTrainedTokenizerFast

    return _CARDS[name](folder, PreTrainedTokenizerFast.from_pretrained(folder), problem, steps)


def _states(kind: str, folder: str, ids: list[int]) -> Any:
    """Last hidden states of the decoder alone, from the tensors below ``model.``."""
    import torch
    import transformers
    from safetensors.torch import load_file

    made = getattr(transformers, kind)(transformers.AutoConfig.from_pretrained(folder))
    state = {k: v for file in sorted(Path(folder).glob("*.safetensors")) for k, v in load_file(str(file)).items()}
    made.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    with torch.no_grad():
        return made.eval()(torch.tensor([ids])).last_hidden_state[0], state


def _qwen_card(folder: str, tokens: Any, problem: str, steps: list[str]) -> tuple[list[int], list[float]]:
    messages = [
        {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."},
        {"role": "user", "content": problem},
        {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
    ]
    ids = tokens.encode(tokens.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
    hidden, state = _states("Qwen2Model", folder, ids)
    inner = (hidden @ state["score.0.weight"].T + state["score.0.bias"]).relu()
    probabilities = (inner @ state["score.2.weight"].T + state["score.2.bias"]).softmax(-1)[:, 1]
    tag = tokens.encode("<extra_0>")[0]
    return ids, [float(p) for i, p in zip(ids, probabilities, strict=True) if i == tag]


def _shepherd_card(folder: str, tokens: Any, problem: str, steps: list[str]) -> tuple[list[int], list[float]]:
    import torch
    from transformers import AutoModelForCausalLM

    output = "\n".join(f"Step {i}: {step} ки" for i, step in enumerate(steps, start=1))
    candidates, tag = tokens.encode("+ -")[1:], tokens.encode("ки")[-1]
    ids = tokens.encode(f"{problem} {output}")
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder).eval()(torch.tensor([ids])).logits[:, :, candidates]
    scores = logits.softmax(dim=-1)[:, :, 0]
    return ids, scores[torch.tensor([ids]) == tag].tolist()


def _rlhflow_card(folder: str, tokens: Any, problem: str, steps: list[str]) -> tuple[list[int], list[float]]:
    """One pass for each prefix, read at position -3."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    candidates = [tokens.encode("+")[-1], tokens.encode("-")[-1]]
    conversation, scores, ids = [], [], []
    for k, step in enumerate(steps):
        conversation.append({"role": "user", "content": f"{problem} {step}" if k == 0 else step})
        conversation.append({"role": "assistant", "content": "+"})
        ids = tokens.encode(tokens.apply_chat_template(conversation, tokenize=False), add_special_tokens=False)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[:, -3, candidates]
        scores.append(float(logits.softmax(dim=-1)[0, 0]))
    return ids, scores


def _skywork_card(folder: str, tokens: Any, problem: str, steps: list[str]) -> tuple[list[int], list[float]]:
    """Every line has a score; a step has that of its last line."""
    ids, flags = tokens.encode(tokens.bos_token + problem + "\n"), []
    flags += [0] * len(ids)
    for step in steps:
        lines = step.split("\n")
        for n, line in enumerate(lines, start=1):
            found = [*(tokens.encode(line) if line else []), tokens.encode("\n")[-1]]
            ids, flags = ids + found, flags + [0] * (len(found) - 1) + [int(n == len(lines))]
    hidden, state = _states("Qwen2Model", folder, ids)
    rewards = (hidden @ state["v_head.summary.weight"].T + state["v_head.summary.bias"]).sigmoid()[:, 0]
    return ids, [float(r) for r, flag in zip(rewards, flags, strict=True) if flag]


def _trl_card(folder: str, tokens: Any, problem: str, steps: list[str]) -> tuple[list[int], list[float]]:
    """As its trainer tokenizes a row, with labels at the separators."""
    import torch
    from transformers import AutoModelForTokenClassification

    ids, labelled = tokens(problem, add_special_tokens=False)["input_ids"], []
    for step in steps:
        ids = ids + tokens(step, add_special_tokens=False)["input_ids"] + tokens.encode("\n", add_special_tokens=False)
        labelled.append(len(ids) - 1)
    with torch.no_grad():
        logits = AutoModelForTokenClassification.from_pretrained(folder).eval()(torch.tensor([ids])).logits
    return ids, logits.softmax(-1)[0, labelled, 1].tolist()


_CARDS = {
    "QwenPRM": _qwen_card, "SkyworkPRM": _skywork_card, "TRLPRM": _trl_card, "MathShepherdPRM": _shepherd_card,
    "RLHFlowPRM": _rlhflow_card,
}  # fmt: skip
