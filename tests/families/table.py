"""Architectures of transformers, tiny: how each is read, and how an outcome verifier on it is exported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

# A value of None is left to the architecture's own default.
SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GPT: dict[str, Any] = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "n_inner": 48}
_OWN_HEADS: dict[str, Any] = {"head_dim": None}
_MAMBA2: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
_EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
_QWEN_EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
}  # fmt: skip
_LATENT: dict[str, Any] = {
    "head_dim": None, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
}  # fmt: skip
_DELTA: dict[str, Any] = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
_WINDOW: dict[str, Any] = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
_VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        kind: transformers' ``model_type``.
        reads: ``packed`` (shared prefixes computed once), ``unpacked`` (rows with padding) or ``refused: text``.
        orm: how an outcome verifier is exported.
        changes: of the tiny configuration.
        plain: the attention that transformers takes where its two differ.
        note: to tell rows of one architecture apart.
    """

    kind: str
    reads: str
    orm: Literal["classifier", "value_head", ""]
    changes: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    plain: str = "eager"

    @property
    def name(self) -> str:
        """Unique in the table."""
        return f"{self.kind} ({self.note})" if self.note else self.kind

    def config(self) -> dict[str, Any]:
        """Arguments of the configuration."""
        if "text_config" in self.changes:
            text = {k: v for k, v in (SMALL | self.changes["text_config"]).items() if v is not None}
            return self.changes | {"text_config": text}
        return {k: v for k, v in (SMALL | self.changes).items() if v is not None}


FAMILIES = [
    Family("llama", "packed", "classifier"),
    Family("qwen2", "packed", "classifier"),
    Family("qwen2", "packed", "classifier", {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 4}, "window"),
    Family("qwen2_moe", "packed", "classifier", _QWEN_EXPERTS | _OWN_HEADS),
    Family("qwen3", "packed", "classifier"),
    Family("qwen3_moe", "packed", "classifier", _QWEN_EXPERTS),
    Family("mistral", "packed", "classifier", {"sliding_window": 4}),
    Family("ministral", "packed", "classifier", _WINDOW),
    Family("ministral3", "packed", "classifier"),
    Family("mixtral", "packed", "classifier", _EXPERTS),
    Family("gemma", "packed", "classifier"),
    Family("gemma2", "packed", "classifier", {"sliding_window": 4, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}),
    Family("gemma3_text", "packed", "value_head", _WINDOW | {"query_pre_attn_scalar": 8, "final_logit_softcapping": 5.0}),
    Family("gemma3", "packed", "value_head", {"text_config": _WINDOW | {"query_pre_attn_scalar": 8, "final_logit_softcapping": 5.0}, "vision_config": _VISION}),
    Family("gemma3n_text", "packed", "value_head", _WINDOW | {"final_logit_softcapping": 5.0, "vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0, "laurel_rank": 4, "activation_sparsity_pattern": [0.0, 0.0], "altup_num_inputs": 2, "intermediate_size": [48, 48]}),
    Family("gemma4_text", "packed", "value_head", _WINDOW | {"final_logit_softcapping": 5.0, "vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0, "global_head_dim": 8}),
    Family("gemma4_text", "packed", "value_head", {"layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"], "num_hidden_layers": 4, "sliding_window": 4, "final_logit_softcapping": 5.0, "vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2, "global_head_dim": 8}, "shared keys"),
    Family("vaultgemma", "packed", "value_head", _WINDOW),
    Family("gpt2", "packed", "value_head", _GPT),
    Family("gpt_bigcode", "packed", "value_head", _GPT),
    Family("gpt_neox", "packed", "value_head", _OWN_HEADS),
    Family("gptj", "unpacked", "value_head", _GPT | _OWN_HEADS | {"rotary_dim": 8}),
    Family("gpt_neo", "unpacked", "value_head", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4, "num_hidden_layers": None, "head_dim": None, "num_attention_heads": None, "intermediate_size": 48}),
    Family("opt", "packed", "value_head", {"ffn_dim": 48, "word_embed_proj_dim": 16, "head_dim": None, "do_layer_norm_before": False}),
    Family("phi", "packed", "classifier", _OWN_HEADS),
    Family("phi3", "packed", "classifier", {"pad_token_id": 0}),
    Family("phimoe", "packed", "value_head", _EXPERTS),
    Family("olmo", "packed", "value_head"),
    Family("olmo2", "packed", "value_head"),
    Family("olmo3", "packed", "value_head", _WINDOW),
    Family("olmoe", "packed", "value_head", {"num_experts": 4, "num_experts_per_tok": 2}),
    Family("granite", "packed", "value_head", {"logits_scaling": 7.0, "embedding_multiplier": 3.0}),
    Family("granitemoe", "packed", "value_head", _EXPERTS | {"logits_scaling": 7.0}),
    Family("cohere", "packed", "value_head"),
    Family("cohere2", "packed", "value_head", _WINDOW),
    Family("minicpm3", "packed", "value_head", _LATENT | {"dim_model_base": 8, "scale_emb": 3}),
    Family("hyperclovax", "packed", "value_head", {"logits_scaling": 0.3}),
    Family("starcoder2", "packed", "classifier", {"sliding_window": 4}),
    Family("smollm3", "packed", "classifier"),
    Family("glm", "packed", "classifier"),
    Family("glm4", "packed", "classifier"),
    Family("helium", "packed", "classifier"),
    Family("ernie4_5", "packed", "value_head"),
    Family("exaone4", "packed", "classifier", _WINDOW),
    Family("seed_oss", "packed", "classifier"),
    Family("deepseek_v2", "packed", "value_head", _LATENT),
    Family("deepseek_v3", "packed", "classifier", _LATENT),
    Family("deepseek_v32", "unpacked", "value_head", _LATENT | {"index_topk": 4, "index_n_heads": 2, "index_head_dim": 16}),
    Family("dots1", "packed", "value_head", {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1}),
    Family("kimi_linear", "unpacked", "value_head", _LATENT | {"q_lora_rank": None, "num_local_experts": 4, "linear_head_dim": 8, "linear_num_heads": 4, "layer_types": ["linear_attention", "full_attention"], "mlp_layer_types": ["dense", "sparse"]}),
    Family("hunyuan_v1_dense", "packed", "value_head"),
    Family("arcee", "packed", "classifier"),
    Family("apertus", "packed", "classifier"),
    Family("nanochat", "packed", "value_head"),
    Family("persimmon", "packed", "classifier", _OWN_HEADS),
    Family("biogpt", "packed", "value_head"),
    Family("bitnet", "packed", "value_head"),
    Family("falcon", "unpacked", "value_head", _OWN_HEADS | {"alibi": False}),
    Family("falcon", "unpacked", "value_head", _OWN_HEADS | {"alibi": True}, "ALiBi", plain="sdpa"),
    Family("bloom", "unpacked", "value_head", {"n_head": 4, "n_layer": 2}),
    Family("mpt", "unpacked", "value_head", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "expansion_ratio": 2}),
    Family("codegen", "unpacked", "value_head", _GPT | {"n_head": 4, "rotary_dim": 4, "head_dim": None}),
    Family("xglm", "unpacked", "value_head", {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48}),
    Family("stablelm", "unpacked", "classifier", _OWN_HEADS),
    Family("nemotron", "unpacked", "classifier"),
    Family("llama4_text", "unpacked", "value_head", _EXPERTS | {"attention_chunk_size": 4, "intermediate_size_mlp": 48}),
    Family("gpt_oss", "unpacked", "classifier", _EXPERTS | _WINDOW),
    Family("phi3", "packed", "classifier", {"max_position_embeddings": 64, "original_max_position_embeddings": 10, "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "original_max_position_embeddings": 10}}, "longrope"),
    Family("llama", "packed", "classifier", {"max_position_embeddings": 10, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}, "dynamic rope"),
    Family("mamba", "unpacked", "value_head", {"state_size": 8}),
    Family("mamba2", "unpacked", "value_head", {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4}),
    Family("falcon_mamba", "unpacked", "value_head", {"state_size": 8}),
    Family("jamba", "unpacked", "value_head", _EXPERTS | {"mamba_d_state": 8, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1}),
    Family("bamba", "unpacked", "value_head", _MAMBA2 | {"attn_layer_indices": [1]}),
    Family("granitemoehybrid", "unpacked", "value_head", _MAMBA2 | _EXPERTS | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 16, "logits_scaling": 7.0}),
    Family("nemotron_h", "unpacked", "value_head", {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "chunk_size": 8, "n_groups": 2}),
    Family("falcon_h1", "unpacked", "value_head", {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64, "mamba_d_state": 8, "mamba_chunk_size": 8, "lm_head_multiplier": 0.3}),
    Family("zamba2", "unpacked", "value_head", {"mamba_d_state": 8, "mamba_headdim": 8, "n_mamba_heads": 8, "chunk_size": 8, "layers_block_type": ["mamba", "hybrid"], "head_dim": None, "num_key_value_heads": 4}),
    Family("lfm2", "unpacked", "value_head", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    Family("qwen3_next", "unpacked", "classifier", _DELTA | _QWEN_EXPERTS),
    Family("qwen3_5_text", "unpacked", "value_head", _DELTA),
    Family("olmo_hybrid", "unpacked", "value_head", _DELTA),
    Family("minimax", "unpacked", "classifier", _EXPERTS | {"block_size": 8}),
    Family("recurrent_gemma", "unpacked", "value_head", {"lru_width": 32, "attention_window_size": 4, "num_hidden_layers": 3}),
    Family("rwkv", "unpacked", "value_head", {"attention_hidden_size": 32, "context_length": 64}),
    Family("xlstm", "unpacked", "value_head", {"num_heads": 4, "head_dim": None, "chunk_size": 4}),
    Family("bert", "refused: not a causal language model", "", _OWN_HEADS),
    Family("roberta", "refused: not a causal language model", "", _OWN_HEADS),
    Family("modernbert-decoder", "refused: its logits are not those of a linear head", "", _OWN_HEADS),
]  # fmt: skip
