"""Hugging Face models with ``attn_implementation="torchport"``: train and generate as with eager attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import torchport.ops

transformers = pytest.importorskip("transformers")

_SIZES = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip


def llama() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SIZES))


def gemma2() -> Any:
    """Soft caps, and windows in every second layer."""
    config = transformers.Gemma2Config(**_SIZES, sliding_window=8, attn_logit_softcapping=5.0)
    return transformers.Gemma2ForCausalLM(config)


def gpt_oss() -> Any:
    """Sinks, and windows in every second layer."""
    more = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}
    model = transformers.GptOssForCausalLM(transformers.GptOssConfig(**_SIZES, **more))
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.sinks)
    return model


def both(make: Callable[[], Any], *, training: bool = False) -> tuple[Any, Any]:
    """The model with eager attention and with ours."""
    torchport.ops.register_attention()
    torch.manual_seed(0)
    eager = make().train(training)
    eager.set_attn_implementation("eager")
    ours = make().train(training)
    ours.load_state_dict(eager.state_dict())
    ours.set_attn_implementation("torchport")
    return eager, ours


@pytest.mark.parametrize(
    ("make", "compiled"),
    [
        (gemma2, False), (gpt_oss, False), pytest.param(llama, False, marks=pytest.mark.slow),
        pytest.param(llama, True, marks=pytest.mark.slow),
        pytest.param(gpt_oss, True, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_model_trains_alike(make: Callable[[], Any], compiled: bool, compile_backend: str) -> None:
    eager, ours = both(make, training=True)
    tokens = torch.randint(1, 97, (2, 40))
    mask = torch.ones(2, 40, dtype=torch.int64)
    mask[1, :7] = 0  # padded on the left; such rows see nothing, which eager attention makes an average of all
    labels = tokens.clone()
    labels[1, :8] = -100  # and the first that one of them would predict
    call = torch.compile(ours, backend=compile_backend) if compiled else ours
    losses = [model(tokens, attention_mask=mask, labels=labels).loss for model in (eager, call)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, one), other in zip(eager.named_parameters(), ours.parameters(), strict=True):
        assert one.grad is not None, name
        torch.testing.assert_close(other.grad, one.grad, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_trains_under_autocast(compiled: bool, compile_backend: str) -> None:
    eager, ours = both(llama, training=True)
    tokens = torch.randint(1, 97, (2, 40))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        calls = eager, torch.compile(ours, backend=compile_backend) if compiled else ours
        losses = [model(tokens, labels=tokens).loss for model in calls]
    torch.testing.assert_close(*losses, atol=1e-2, rtol=1e-2)
    losses[1].backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in ours.parameters())


@pytest.mark.parametrize("make", [llama, gemma2, pytest.param(gpt_oss, marks=pytest.mark.slow)])
def test_a_model_generates_alike(make: Callable[[], Any]) -> None:
    eager, ours = both(make)
    tokens = torch.randint(1, 97, (2, 11))
    mask = torch.ones(2, 11, dtype=torch.int64)
    mask[1, :3] = 0
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False}
    assert torch.equal(ours.generate(tokens, **options), eager.generate(tokens, **options))
    static = {**options, "cache_implementation": "static"}
    assert torch.equal(ours.generate(tokens, **static), eager.generate(tokens, **options))


def gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=97, n_positions=128, n_embd=64, n_layer=2, n_head=4, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0
    )
    return transformers.GPT2LMHeadModel(config)


def qwen2() -> Any:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**_SIZES, use_sliding_window=False))


def trained(model: Any, dtype: torch.dtype, steps: int = 20) -> list[float]:
    """Losses of steps of AdamW on one batch, a batch that the model can learn by heart."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    tokens = torch.randint(1, 97, (2, 40), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach().double()))
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [llama, gpt2, qwen2])
def test_twenty_steps_are_as_close_to_float64_as_those_of_sdpa(make: Callable[[], Any], dtype: torch.dtype) -> None:
    torchport.ops.register_attention()
    torch.manual_seed(0)
    start = make().train()
    models, losses = {}, {}
    for name in ("float64", "sdpa", "torchport"):
        models[name] = make().train()
        models[name].load_state_dict(start.state_dict())
        models[name].set_attn_implementation("torchport" if name == "torchport" else "sdpa")
        wide = name == "float64"
        losses[name] = trained(models[name].double() if wide else models[name], torch.float64 if wide else dtype)
    assert losses["float64"][-1] < 0.7 * losses["float64"][0]
    off = {name: max(abs(a - b) for a, b in zip(losses[name], losses["float64"], strict=True)) for name in losses}
    assert off["torchport"] <= 2 * off["sdpa"] + 1e-6, off
    tokens = torch.randint(1, 97, (2, 11))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        texts = [
            models[name].eval().generate(tokens, max_new_tokens=12, do_sample=False)
            for name in ("float64", "torchport")
        ]
    if dtype == torch.float32:  # bfloat16 may decide a tie otherwise
        assert torch.equal(*texts)
