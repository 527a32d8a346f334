"""Training: loss, gradients and AdamW steps of compiled models against float64, next to eager in the same dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accuracy import InFloat64, compare
from model_zoo import Built, build
from training import judge

pytestmark = pytest.mark.usefixtures("no_fallback")

MODELS = ("bert", "llama", "dlrm")
MORE = ("qwen3_moe", "swin", "unet", "gpt2", "gemma2", "t5", "vit", "convnext", "resnet")
CASES = [
    *((name, torch.float32) for name in MODELS),
    *(pytest.param(name, torch.float32, marks=pytest.mark.slow) for name in MORE),
    *(pytest.param(name, torch.bfloat16, marks=pytest.mark.slow) for name in ("llama", "bert", "convnext")),
]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda v: str(v).removeprefix("torch."))
def test_training(name: str, dtype: torch.dtype, compile_backend: str) -> None:
    built = build(name, "small", dtype, train=True)
    judge(f"training {name} {dtype}", built.to(dtype), built, built.to(torch.float64), compile_backend)


def expanded(out: torch.Tensor) -> torch.Tensor:
    return torch.full((), 0.5, dtype=out.dtype).expand_as(out)


def expanded_rows(out: torch.Tensor) -> torch.Tensor:
    row = torch.linspace(-1, 1, out.shape[-1], dtype=torch.float64).to(out.dtype)
    return row.expand_as(out)


def transposed(out: torch.Tensor) -> torch.Tensor:
    values = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).to(out.dtype)
    return values.reshape(out.transpose(-1, -2).shape).transpose(-1, -2)


def strided(out: torch.Tensor) -> torch.Tensor:
    values = torch.linspace(-1, 1, 2 * out.numel(), dtype=torch.float64).to(out.dtype)
    return values.reshape(*out.shape, 2)[..., 1]


@pytest.mark.parametrize("name", ["bert", pytest.param("unet", marks=pytest.mark.slow)])
def test_layout_of_grad_output(name: str, compile_backend: str) -> None:
    """Gradients that arrive expanded, transposed or strided (`out.sum()` makes an expanded one)."""
    built = build(name, "small", train=True)
    wide = built.to(torch.float64)
    compiled = torch.compile(built.module, backend=compile_backend)

    def gradients(b: Built, call: Callable[..., Any], layout: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        out = call(**b.inputs)[b.output_names[0]]
        named = dict(b.module.named_parameters())
        found = torch.autograd.grad(out, list(named.values()), layout(out), allow_unused=True)
        return {n: g for n, g in zip(named, found, strict=True) if g is not None}

    problems = []
    for layout in (expanded, expanded_rows, transposed, strided):
        with InFloat64():
            reference = gradients(wide, wide.module, layout)
        scale = float(torch.cat([g.flatten() for g in reference.values()]).square().mean().sqrt())
        eager = gradients(built, built.module, layout)
        got = gradients(built, compiled, layout)
        problems += [f"{layout.__name__} {line}" for line in compare(got, eager, reference, scale)]
    assert not problems, f"{name} with {compile_backend}:\n" + "\n".join(problems)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_compiled_adamw(dtype: torch.dtype, compile_backend: str) -> None:
    """The optimizer's own step compiled: parameters and both moments after two steps on the same gradients."""
    shapes = [(31, 17), (17,), (1,), (5, 3, 2), ()]
    start = [torch.randn(shape).to(dtype) for shape in shapes]
    steps = [[torch.randn(shape).to(dtype) for shape in shapes] for _ in range(2)]

    def run(wide: bool, backend: str | None) -> dict[str, torch.Tensor]:
        cast = torch.float64 if wide else dtype
        parameters = [torch.nn.Parameter(p.to(cast, copy=True)) for p in start]
        optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1, foreach=True)
        step = torch.compile(optimizer.step, backend=backend) if backend else optimizer.step
        for gradients in steps:
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g.to(cast)
            step()
        state = {f"parameter {i}": p.detach() for i, p in enumerate(parameters)}
        for i, p in enumerate(parameters):
            state |= {f"{key} {i}": optimizer.state[p][key] for key in ("exp_avg", "exp_avg_sq")}
        return state

    with InFloat64():
        reference = run(True, None)
    problems = compare(run(False, compile_backend), run(False, None), reference, roundings=2)
    assert not problems, f"AdamW {dtype} with {compile_backend}:\n" + "\n".join(problems)
