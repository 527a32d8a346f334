"""Cases of small networks: forward, gradients, and some steps of training. Weights are random but fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from torchport.conformance.case import Bench, Case, Measured, Wrong
from torchport.conformance.cases.graphs import compiled, same_as_float64
from torchport.conformance.values import TORCH

__all__ = ["cases"]


class _Block(nn.Module):
    """A transformer layer with explicit attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inwards, self.outwards = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.inwards(self.first(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = parts[0] @ parts[1].transpose(-1, -2) / (width // self.heads) ** 0.5
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        attention = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1) @ parts[2]
        x = x + self.outwards(attention.transpose(1, 2).reshape(batch, length, width))
        result: torch.Tensor = x + self.mlp(self.second(x))
        return result


class _GRU(nn.Module):
    """A recurrent cell unrolled over eight steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(12, 16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(x.shape[0], 16, dtype=x.dtype)
        for step in range(8):
            state = self.cell(x[:, step], state)
        result: torch.Tensor = self.head(state)
        return result


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.LayerNorm(48), nn.Linear(48, 10))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, stride=2),
        nn.GroupNorm(3, 12), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 7),
    )  # fmt: skip


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (_mlp, (13, 24)),
    "cnn": (_cnn, (3, 3, 17, 17)),
    "transformer": (lambda: _Block(32, 4), (2, 19, 32)),
    "gru": (_GRU, (4, 8, 12)),
}
"""A function that makes the model, and the shape of its input."""


def cases() -> Iterator[Case]:
    """All cases of this file."""
    for name, (make, shape) in MODELS.items():
        for dtype in ("fp32", "bf16", "fp64"):
            level = "quick" if dtype == "fp32" and name in ("mlp", "transformer") else "full"
            run = _forward(make, shape, dtype)
            yield Case("models", f"{name}_forward", dtype, shape, "randn", run, (dtype,), level)
        if name in ("mlp", "transformer", "cnn"):
            level = "quick" if name == "mlp" else "full"
            yield Case("models", f"{name}_gradients", "fp32", shape, "randn", _gradients(make, shape), ("fp32",), level)
    for name in ("mlp", "cnn"):
        make, shape = MODELS[name]
        level = "quick" if name == "mlp" else "full"
        yield Case("models", f"{name}_training", "fp32", shape, "randn", _training(make, shape), ("fp32",), level)


def _model(make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: str) -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return make().to(TORCH[dtype]).eval(), torch.randn(shape).to(TORCH[dtype])


def _forward(make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: str) -> Any:
    def run(bench: Bench) -> Measured:
        model, x = _model(make, shape, dtype)
        weights = {name: value.detach() for name, value in [*model.named_parameters(), *model.named_buffers()]}
        on_target = compiled(bench, model)

        def forward(weights: dict[str, torch.Tensor], x: torch.Tensor) -> Any:
            return functional_call(model, weights, (x,))

        with torch.no_grad():
            return same_as_float64(bench, forward, [weights, x], dtype, run=lambda _, x: on_target(x))

    return run


def _gradients(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Any:
    def run(bench: Bench) -> Measured:
        model, x = _model(make, shape, "fp32")
        names = [name for name, _ in model.named_parameters()]
        buffers = dict(model.named_buffers())

        def with_model(call: Callable[[dict[str, torch.Tensor], torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
            def gradients(x: torch.Tensor, *values: torch.Tensor) -> Any:
                weights = dict(zip(names, values, strict=True))
                loss = (call(weights, x) ** 2).mean()
                return loss, torch.autograd.grad(loss, list(values))

            return gradients

        def eager(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
            moved = {name: value.to(x.dtype) if value.is_floating_point() else value for name, value in buffers.items()}
            result: torch.Tensor = functional_call(model, {**weights, **moved}, (x,))
            return result

        inputs = [x, *(value.detach().clone().requires_grad_() for value in model.parameters())]
        return same_as_float64(bench, with_model(eager), inputs, "fp32", run=with_model(compiled(bench, eager)))

    return run


def _training(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Any:
    """The losses of ten SGD steps must match float64, to a thousandth of the drop in loss."""

    def losses(model: nn.Module, call: Callable[..., Any], x: torch.Tensor) -> list[float]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        values = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = ((call(x) - 1) ** 2).mean()
            loss.backward()
            optimizer.step()
            values.append(float(loss.detach()))
        return values

    def run(bench: Bench) -> Measured:
        model, x = _model(make, shape, "fp32")
        reference, wide = _model(make, shape, "fp32")
        reference, wide = reference.double().train(), wide.double()
        wanted = losses(reference, reference, wide)
        model.train()
        got = losses(model, compiled(bench, model), x)
        allowed = 1e-3 * abs(wanted[0] - wanted[-1])
        worst = max(abs(a - b) for a, b in zip(got, wanted, strict=True)) / allowed
        if not worst <= 1:
            raise Wrong(f"losses {got[0]:.6f} to {got[-1]:.6f} instead of {wanted[0]:.6f} to {wanted[-1]:.6f}", worst)
        return Measured(worst)

    return run
