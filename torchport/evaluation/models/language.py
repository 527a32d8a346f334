"""Language and speech models of `transformers`, attention by SDPA (the library's default), without a KV cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import transformers as hf
from torch import nn

from torchport.evaluation.models.entry import Entry, Inputs, Size, register


@dataclass(frozen=True)
class Shape:
    """Dimensions of a transformer: hidden size, layers, attention heads, vocabulary, batch, sequence."""

    hidden: int
    layers: int
    heads: int
    vocab: int
    batch: int
    sequence: int

    @property
    def intermediate(self) -> int:
        return 4 * self.hidden


# The sequence of the small size is no multiple of a vector width, so that every kernel has a masked tail.
SHAPES: dict[Size, Shape] = {
    "small": Shape(hidden=64, layers=2, heads=4, vocab=307, batch=2, sequence=19),
    "bench": Shape(hidden=384, layers=4, heads=6, vocab=2000, batch=2, sequence=128),
}


def tokens(shape: Shape, sequence: int | None = None) -> torch.Tensor:
    """Random token ids, int64, batch x sequence."""
    return torch.randint(3, shape.vocab, (shape.batch, sequence or shape.sequence))


def next_token_labels(inputs: Inputs, module: nn.Module) -> Inputs:
    """The input itself as labels: causal models shift it."""
    return {"labels": inputs["input_ids"].clone()}


def decoder_labels(inputs: Inputs, module: nn.Module) -> Inputs:
    """Labels of a sequence-to-sequence model."""
    return {"labels": inputs["decoder_input_ids"].clone()}


def bert(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.BertConfig(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=s.vocab,
        intermediate_size=s.intermediate, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    ids = tokens(s)
    mask = torch.ones_like(ids)
    mask[0, -s.sequence // 4 :] = 0  # padding: the masked softmax must be exercised
    return hf.BertModel(config), {"input_ids": ids, "attention_mask": mask}


def gpt2(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    hidden, heads = (s.hidden, s.heads) if size == "small" else (768, 12)
    config = hf.GPT2Config(
        n_embd=hidden, n_layer=s.layers, n_head=heads, vocab_size=s.vocab, n_positions=256, use_cache=False,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return hf.GPT2LMHeadModel(config), {"input_ids": tokens(s)}


def llama(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.LlamaConfig(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=s.vocab,
        num_key_value_heads=s.heads // 2, intermediate_size=s.intermediate, use_cache=False,
    )  # fmt: skip
    return hf.LlamaForCausalLM(config), {"input_ids": tokens(s)}


def qwen3(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.Qwen3Config(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=s.vocab,
        num_key_value_heads=s.heads // 2, head_dim=32, intermediate_size=s.intermediate, use_cache=False,
    )  # fmt: skip
    return hf.Qwen3ForCausalLM(config), {"input_ids": tokens(s)}


def qwen3_moe(size: Size) -> tuple[nn.Module, Inputs]:
    # Few tokens in the small size, and a seed found for them: no choice of experts lies within bfloat16 noise of a tie,
    # so that a token that goes to another expert is a fault and not noise.
    s = SHAPES[size] if size == "bench" else replace(SHAPES[size], sequence=7)
    config = hf.Qwen3MoeConfig(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=s.vocab,
        num_key_value_heads=s.heads // 2, head_dim=32, intermediate_size=s.intermediate,
        moe_intermediate_size=s.hidden, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True, use_cache=False,
    )  # fmt: skip
    return hf.Qwen3MoeForCausalLM(config), {"input_ids": tokens(s)}


def loop_over_experts(module: nn.Module) -> None:
    """The grouped matrix product of the default has no float64 kernel."""
    assert isinstance(module, hf.PreTrainedModel)
    module.set_experts_implementation("eager")


def gemma2(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.Gemma2Config(
        hidden_size=s.hidden, num_hidden_layers=s.layers, num_attention_heads=s.heads, vocab_size=s.vocab,
        num_key_value_heads=s.heads // 2, head_dim=32, intermediate_size=s.intermediate, sliding_window=8,
        query_pre_attn_scalar=32, use_cache=False,
    )  # fmt: skip
    return hf.Gemma2ForCausalLM(config), {"input_ids": tokens(s)}


def mamba(size: Size) -> tuple[nn.Module, Inputs]:
    # Without its CUDA kernels the selective scan is a Python loop over the sequence: Dynamo unrolls it, so the graph
    # grows with the sequence and is kept short.
    s = SHAPES[size]
    layers, sequence = (1, 7) if size == "small" else (2, 32)
    config = hf.MambaConfig(
        hidden_size=s.hidden, num_hidden_layers=layers, vocab_size=s.vocab, state_size=8, use_cache=False
    )
    return hf.MambaForCausalLM(config), {"input_ids": tokens(s, sequence)}


def t5(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    config = hf.T5Config(
        d_model=s.hidden, num_layers=s.layers, num_decoder_layers=s.layers, num_heads=s.heads,
        d_kv=s.hidden // s.heads, d_ff=s.intermediate, vocab_size=s.vocab, dropout_rate=0.0, use_cache=False,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0,
    )  # fmt: skip
    return hf.T5ForConditionalGeneration(config), {
        "input_ids": tokens(s),
        "decoder_input_ids": tokens(s, s.sequence // 2),
    }


def whisper(size: Size) -> tuple[nn.Module, Inputs]:
    s = SHAPES[size]
    frames = 2 * s.sequence
    config = hf.WhisperConfig(
        d_model=s.hidden, encoder_layers=s.layers, decoder_layers=s.layers, encoder_attention_heads=s.heads,
        decoder_attention_heads=s.heads, encoder_ffn_dim=s.intermediate, decoder_ffn_dim=s.intermediate,
        vocab_size=s.vocab, num_mel_bins=20, max_source_positions=s.sequence, max_target_positions=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, dropout=0.0, use_cache=False,
    )  # fmt: skip
    return hf.WhisperForConditionalGeneration(config), {
        "input_features": torch.randn(s.batch, 20, frames),
        "decoder_input_ids": tokens(s, min(s.sequence // 2, 64)),
    }


LOGITS = ("logits",)
TOKENS = ("input_ids",)
register(
    Entry(
        "bert",
        bert,
        ("last_hidden_state", "pooler_output"),
        sequence_inputs=("input_ids", "attention_mask"),
        kind="values",
    )
)
register(Entry("gpt2", gpt2, LOGITS, next_token_labels, sequence_inputs=TOKENS))
register(Entry("llama", llama, LOGITS, next_token_labels, sequence_inputs=TOKENS))
register(Entry("qwen3", qwen3, LOGITS, next_token_labels, sequence_inputs=TOKENS))
register(
    Entry(
        "qwen3_moe",
        qwen3_moe,
        LOGITS,
        next_token_labels,
        sequence_inputs=TOKENS,
        reference=loop_over_experts,
        seed=28,
        area="mixture of experts",
    )
)
register(Entry("gemma2", gemma2, LOGITS, next_token_labels, sequence_inputs=TOKENS))
register(Entry("mamba", mamba, LOGITS, next_token_labels, area="state space"))
register(Entry("t5", t5, ("logits", "encoder_last_hidden_state"), decoder_labels))
register(Entry("whisper", whisper, ("logits", "encoder_last_hidden_state"), decoder_labels, area="audio"))
