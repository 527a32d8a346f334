"""Training a compiled model for a few steps, judged against float64 next to eager in the same dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accuracy import InFloat64, compare
from model_zoo import Built

STEPS = 3
DRAWS = 3
"""Sets of parameters whose gradients are compared: one draw of eager's errors may be small by luck."""


def loss_of(result: Mapping[str, Any], names: tuple[str, ...]) -> torch.Tensor:
    """The model's own loss, else the mean squares of its outputs."""
    if names[0] == "loss":
        return result["loss"]
    return torch.stack([result[name].to(torch.float32).square().mean() for name in names]).sum()


def train(
    built: Built, call: Callable[..., Any], draws: Sequence[Mapping[str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Gradients for each of ``draws``, then STEPS steps of AdamW.

    Returns all losses and buffers, and the gradients, on the host.

    Parameters are not compared after a step; the losses of the later steps show a wrong update. AdamW's first step is
    lr * sign(gradient) where ``eps`` is small: noise in a gradient near zero would move a parameter by all of lr.
    """
    optimizer = torch.optim.AdamW(built.module.parameters(), lr=1e-3, eps=1e-3)
    losses, gradients = [], []

    def backward() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(call(**built.inputs), built.output_names)
        loss.backward()
        return loss

    for draw in draws:
        take(built.module, draw)
        losses.append(backward().detach().to("cpu", copy=True))
        named = built.module.named_parameters()
        gradients.append({name: p.grad.to("cpu", copy=True) for name, p in named if p.grad is not None})
    take(built.module, draws[0])
    for _ in range(STEPS):
        losses.append(backward().detach().to("cpu", copy=True))
        optimizer.step()
    buffers = {name: b.to("cpu", copy=True) for name, b in built.module.named_buffers() if b.is_floating_point()}
    stacked = {name: torch.stack([one[name] for one in gradients]) for name in gradients[0]}
    return {"losses": torch.stack(losses), **buffers}, stacked


def take(module: torch.nn.Module, parameters: Mapping[str, torch.Tensor]) -> None:
    """Copy ``parameters`` into those of ``module``."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(parameters[name])


def drawn(module: torch.nn.Module) -> list[dict[str, torch.Tensor]]:
    """DRAWS sets of a module's parameters: its own, then each element larger or smaller by about a tenth."""
    generator = torch.Generator().manual_seed(0)
    own = {name: p.detach().to("cpu", copy=True) for name, p in module.named_parameters()}

    def another() -> dict[str, torch.Tensor]:
        return {
            name: (p.double() * (1 + 0.1 * torch.randn(p.shape, dtype=torch.float64, generator=generator))).to(p.dtype)
            for name, p in own.items()
        }

    return [own, *(another() for _ in range(DRAWS - 1))]


def judge(what: str, compiled: Built, eager: Built, wide: Built, backend: str | None) -> None:
    """Fail where ``compiled`` trains worse than ``eager``. ``backend``: None leaves it uncompiled."""
    draws = drawn(eager.module)
    with InFloat64():
        reference_values, reference_gradients = train(wide, wide.module, draws)
    eager_values, eager_gradients = train(eager, eager.module, draws)
    call = torch.compile(compiled.module, backend=backend) if backend else compiled.module
    values, gradients = train(compiled, call, draws)
    assert gradients.keys() == eager_gradients.keys(), f"{what}: other parameters got a gradient than in eager"
    # The gradient of an attention key's bias is zero but for rounding: no gradient is credited with less than the
    # typical magnitude of all.
    total = sum(float(g.square().sum()) for g in reference_gradients.values())
    scale = (total / sum(g.numel() for g in reference_gradients.values())) ** 0.5
    problems = compare(values, eager_values, reference_values)
    problems += compare(gradients, eager_gradients, reference_gradients, scale)
    assert not problems, f"{what} with {backend}:\n" + "\n".join(problems)
