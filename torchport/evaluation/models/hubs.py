"""More models of `transformers`: sliding windows, half rotations, padding-free encoders, speech, sentence vectors."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register
from torchport.evaluation.models.language import SHAPES, next_token_labels, tokens


def mistral(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.MistralConfig(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=s.vocab,
        num_key_value_heads=s.heads // 2, intermediate_size=s.intermediate, sliding_window=6, use_cache=False,
    )  # fmt: skip
    return hf.MistralForCausalLM(config), {"input_ids": tokens(s)}


def phi(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.PhiConfig(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=s.vocab,
        intermediate_size=s.intermediate, partial_rotary_factor=0.5, use_cache=False,
        resid_pdrop=0.0, embd_pdrop=0.0, attention_dropout=0.0,
    )  # fmt: skip
    return hf.PhiForCausalLM(config), {"input_ids": tokens(s)}


def modernbert(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.ModernBertConfig(
        hidden_size=s.hidden, num_hidden_layers=max(s.layers, 3), num_attention_heads=s.heads, vocab_size=s.vocab,
        intermediate_size=s.intermediate, local_attention=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        cls_token_id=1, sep_token_id=2, reference_compile=False, attn_implementation="sdpa",
    )  # fmt: skip
    ids = tokens(s)
    mask = torch.ones_like(ids)
    mask[0, -s.sequence // 4 :] = 0
    return hf.ModernBertForMaskedLM(config), {"input_ids": ids, "attention_mask": mask}


class Sentence(nn.Module):
    """A sentence encoder: BERT, the mean over what is no padding, a vector of length one."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.encoder = hf.BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return {"embedding": F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)}


def sentence(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.BertConfig(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=s.vocab,
        intermediate_size=s.intermediate, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    ids = tokens(s)
    mask = torch.ones_like(ids)
    mask[0, -s.sequence // 3 :] = 0
    return Sentence(config), {"input_ids": ids, "attention_mask": mask}


def wav2vec2(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.Wav2Vec2Config(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=32,
        intermediate_size=s.intermediate, conv_dim=(s.hidden // 2, s.hidden // 2), conv_kernel=(5, 3),
        conv_stride=(4, 2), num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0, layerdrop=0.0,
        final_dropout=0.0, apply_spec_augment=False, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return hf.Wav2Vec2ForCTC(config), {"input_values": torch.randn(s.batch, 8 * s.sequence)}


register(Entry("mistral", mistral, ("logits",), next_token_labels, sequence_inputs=("input_ids",), benched=False))
register(Entry("phi", phi, ("logits",), next_token_labels, sequence_inputs=("input_ids",), benched=False))
register(Entry("modernbert", modernbert, ("logits",), benched=False))
register(Entry("sentence", sentence, ("embedding",), area="retrieval", kind="embeddings", benched=False))
register(Entry("wav2vec2", wav2vec2, ("logits",), area="audio", benched=False))
