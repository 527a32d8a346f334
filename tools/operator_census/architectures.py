"""Two-layer models of transformers' architectures that the model zoo does not have, from configurations only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import transformers as hf
from torch import nn

__all__ = ["ARCHITECTURES", "build"]

_SMALL: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_size": 32, "embedding_size": 16, "word_embed_proj_dim": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_kv_heads": 2, "head_dim": 8, "intermediate_size": 64,
        "ffn_dim": 64, "d_ff": 64, "d_kv": 8, "encoder_layers": 2, "decoder_layers": 2, "num_decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
        "vocab_size": 120, "max_position_embeddings": 64, "image_size": 32, "patch_size": 8, "num_local_experts": 4,
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_routed_experts": 4, "n_group": 1,
        "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
        "v_head_dim": 8, "attention_hidden_size": 32, "sliding_window": 8, "rotary_dim": 4, "use_cache": False,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "state_size": 8,
    }
)  # fmt: skip
"""Values for those options that a configuration has."""

_TEXT = {
    "vocab_size": 120, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
_IMAGE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
_SPEECH: Mapping[str, Any] = MappingProxyType(
    {"conv_dim": [16, 16], "conv_kernel": [5, 3], "conv_stride": [4, 2], "num_feat_extract_layers": 2,
     "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
)  # fmt: skip
_STAGES: Mapping[str, Any] = MappingProxyType({"depths": [2, 2], "hidden_sizes": [16, 32], "num_stages": 2})

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "albert": {}, "bart": {}, "beit": {}, "bert": {}, "bloom": {}, "camembert": {},
        "clip": {"text_config": _TEXT, "vision_config": _IMAGE}, "cohere": {}, "convnext": _STAGES,
        "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        "deepseek_v3": {"num_key_value_heads": 4}, "deit": {"architectures": ["DeiTForImageClassification"]},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}, "electra": {},
        "falcon": {"head_dim": None}, "gemma": {}, "gemma2": {}, "gpt2": {},
        "gpt_neo": {"attention_types": [[["global", "local"], 1]]}, "gpt_neox": {}, "gptj": {}, "granite": {},
        "hubert": _SPEECH, "llama": {}, "mamba": {}, "marian": {"decoder_start_token_id": 0}, "mbart": {},
        "mistral": {}, "mixtral": {}, "mpnet": {}, "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4}, "olmo": {},
        "opt": {}, "pegasus": {}, "phi": {}, "phi3": {}, "qwen2": {}, "qwen3": {},
        "resnet": {**_STAGES, "embedding_size": 16, "layer_type": "basic"}, "roberta": {}, "rwkv": {},
        "segformer": {"num_attention_heads": [1, 2, 5, 8]}, "siglip": {"text_config": _TEXT, "vision_config": _IMAGE},
        "stablelm": {}, "starcoder2": {},
        "swin": {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 2, "patch_size": 4,
        "num_attention_heads": None, "num_hidden_layers": None, "hidden_size": None},
        "t5": {"decoder_start_token_id": 0}, "vit": {}, "wav2vec2": _SPEECH,
        "whisper": {"num_mel_bins": 20, "max_source_positions": 16, "decoder_start_token_id": 1}, "xglm": {},
        "xlnet": {"d_model": 32, "n_head": 4, "d_inner": 64, "n_layer": 2, "max_position_embeddings": None},
    }
)  # fmt: skip
"""Architecture -> what its small configuration has beyond the usual options."""


def build(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model in training mode with the head that its pretraining or its usual task needs, and inputs with labels."""
    torch.manual_seed(0)
    usual = hf.AutoConfig.for_model(name)
    small = {option: value for option, value in _SMALL.items() if hasattr(usual, option)}
    options = {**small, **ARCHITECTURES[name]}
    config = hf.AutoConfig.for_model(name, **{option: v for option, v in options.items() if v is not None})
    model = _model(config)
    return model.train(), _inputs(model, config)


def _model(config: Any) -> nn.Module:
    makers = (
        hf.AutoModelForSpeechSeq2Seq, hf.AutoModelForSeq2SeqLM, hf.AutoModelForMaskedLM, hf.AutoModelForCausalLM,
        hf.AutoModelForImageClassification, hf.AutoModelForCTC,
    )  # fmt: skip
    for maker in (hf.AutoModel,) if "text_config" in ARCHITECTURES[config.model_type] else makers:
        if type(config) in maker._model_mapping:
            model: nn.Module = maker.from_config(config)
            return model
    raise ValueError(f"transformers has no model for {config.model_type}")


def _inputs(model: nn.Module, config: Any) -> dict[str, Any]:
    tokens = torch.randint(3, 120, (2, 10))
    mask = torch.ones_like(tokens)
    mask[1, 7:] = 0
    kind = model.main_input_name
    if config.model_type in ("clip", "siglip"):
        return {"input_ids": tokens, "pixel_values": torch.randn(2, 3, 32, 32), "return_loss": True}
    if kind == "pixel_values":
        return {"pixel_values": torch.randn(2, 3, 32, 32), "labels": torch.randint(0, 2, (2,))}
    if kind == "input_features":
        return {"input_features": torch.randn(2, 20, 32), "labels": tokens}
    if kind == "input_values":
        return {"input_values": torch.randn(2, 400), "labels": tokens[:, :3]}
    masked = {} if config.model_type in ("mamba", "rwkv") else {"attention_mask": mask}
    return {"input_ids": tokens, "labels": tokens, **masked}
