"""Training a compiled model for a few steps, judged against float64 next to eager in the same dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accuracy import InFloat64, compare
from model_zoo import Built

STEPS = 3


def loss_of(result: Mapping[str, Any], names: tuple[str, ...]) -> torch.Tensor:
    """The model's own loss, else the mean squares of its outputs."""
    if names[0] == "loss":
        return result["loss"]
    return torch.stack([result[name].to(torch.float32).square().mean() for name in names]).sum()


def train(built: Built, call: Callable[..., Any]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Run STEPS steps of AdamW; the losses and buffers, and the gradients of the first step, on the host.

    Parameters are not compared after a step: AdamW's first step is lr * sign(gradient), so noise in a gradient near
    zero moves a parameter by all of lr. The losses of the later steps show a wrong update.
    """
    optimizer = torch.optim.AdamW(built.module.parameters(), lr=1e-3)
    losses, gradients = [], {}
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(call(**built.inputs), built.output_names)
        loss.backward()
        losses.append(loss.detach().to("cpu", copy=True))
        if step == 0:
            gradients = {
                name: p.grad.to("cpu", copy=True) for name, p in built.module.named_parameters() if p.grad is not None
            }
        optimizer.step()
    buffers = {name: b.to("cpu", copy=True) for name, b in built.module.named_buffers() if b.is_floating_point()}
    return {"losses": torch.stack(losses), **buffers}, gradients


def judge(what: str, compiled: Built, eager: Built, wide: Built, backend: str | None) -> None:
    """Fail where ``compiled`` trains worse than ``eager``. ``backend``: None leaves it uncompiled."""
    with InFloat64():
        reference_values, reference_gradients = train(wide, wide.module)
    eager_values, eager_gradients = train(eager, eager.module)
    values, gradients = train(compiled, torch.compile(compiled.module, backend=backend) if backend else compiled.module)
    assert gradients.keys() == eager_gradients.keys(), f"{what}: other parameters got a gradient than in eager"
    # The gradient of an attention key's bias is zero but for rounding: no gradient is credited with less than the
    # typical magnitude of all.
    total = sum(float(g.square().sum()) for g in reference_gradients.values())
    scale = (total / sum(g.numel() for g in reference_gradients.values())) ** 0.5
    problems = compare(values, eager_values, reference_values)
    problems += compare(gradients, eager_gradients, reference_gradients, scale)
    assert not problems, f"{what} with {backend}:\n" + "\n".join(problems)
