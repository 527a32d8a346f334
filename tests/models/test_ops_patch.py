"""``torchport.ops.patch`` on small transformers models: the same logits, losses and gradients, eager and compiled."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

import torchport.ops

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
# Norms: two a layer and the last; Qwen3 has two more a layer, of queries and keys, Gemma 2 two more.
EXPECTED = {
    "Llama": {"rms_norm": 5, "swiglu": 2, "rope": 2, "cross_entropy": 1},
    "Mistral": {"rms_norm": 5, "swiglu": 2, "rope": 2, "cross_entropy": 1},
    "Qwen3": {"rms_norm": 9, "swiglu": 2, "rope": 2, "cross_entropy": 1},
    "Gemma2": {"rms_norm": 9, "geglu": 2, "rope": 2, "cross_entropy": 1},
}


def model_of(name: str) -> Any:
    config = getattr(transformers, f"{name}Config")(**SIZES)
    model = getattr(transformers, f"{name}ForCausalLM")(config).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 8)
    return model


def step(model: Any) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    tokens = torch.arange(2 * 11).reshape(2, 11) * 7 % 97
    result = model(input_ids=tokens, labels=tokens)
    return result.loss, result.logits, list(torch.autograd.grad(result.loss, list(model.parameters())))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_patched_model_computes_the_same(name: str) -> None:
    model = model_of(name)
    patched = copy.deepcopy(model)
    report = torchport.ops.patch(patched)
    assert not report.left
    assert Counter(part.kind for part in report.swapped) == EXPECTED[name]
    loss, logits, grads = step(model)
    found = step(patched)
    torch.testing.assert_close(found[0], loss)
    torch.testing.assert_close(found[1], logits)
    for got, wanted in zip(found[2], grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_patched_model_compiles(compile_backend: str) -> None:
    model = model_of("Llama").eval()
    tokens = torch.arange(11).reshape(1, 11)
    wanted = model(tokens).logits
    torchport.ops.patch(model)
    got = torch.compile(model, backend=compile_backend)(tokens).logits
    torch.testing.assert_close(got, wanted)


def test_the_class_and_other_models_are_as_before() -> None:
    model, other = model_of("Llama"), model_of("Llama")
    torchport.ops.patch(model)
    assert "forward" in vars(model.model.norm)
    assert "forward" not in vars(other.model.norm)
    assert type(model.model.norm) is type(other.model.norm)
    assert copy.deepcopy(model).model.norm.forward.__self__ is not model.model.norm


def test_what_computes_something_else_is_left_and_named() -> None:
    class OddRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    class OddMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))
            self.act_fn = nn.Tanh()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))

    model = nn.Sequential(OddRMSNorm(), OddMLP())
    report = torchport.ops.patch(model)
    assert not report.swapped
    assert [(part.name, part.kind) for part in report.left] == [("0", "rms_norm"), ("1", "gated MLP")]
    assert "rms_norm in 0: left as it is, it computes something else" in str(report)
    assert str(report).startswith("swapped: nothing\n")


def test_a_model_without_memory_is_left() -> None:
    with torch.device("meta"):
        model = getattr(transformers, "LlamaForCausalLM")(transformers.LlamaConfig(**SIZES))  # noqa: B009
    report = torchport.ops.patch(model)
    assert {part.kind for part in report.left} == {"rms_norm", "gated MLP", "rope"}
