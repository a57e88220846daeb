"""Untrained models."""

from pathlib import Path
from typing import Any

import torch

# Ids in the quickstart's tokenizer.
TAG, NEGATIVE, POSITIVE = 3, 8, 7
SMALL = {
    "vocab_size": 35, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2, "eos_token_id": 1, "pad_token_id": 0,
    "bos_token_id": None,
}  # fmt: skip


def tiny_llama(base: Path, folder: Path, context: int) -> Path:
    """Write an untrained model whose heads vLLM's CPU attention can do, 2 of 64, with the tokenizer in ``base``."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(base))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.1, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def model_folder(kind: str, folder: Path, tokenizer: Any, **changes: Any) -> Path:
    """A model of an architecture with random weights, as a hub download would be."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL | changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
