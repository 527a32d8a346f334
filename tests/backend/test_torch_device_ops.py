"""Operators of ``torchport.ops`` on the torch device of a target with memory of its own: bounds as on the CPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

import torchport
from torchport.ops.check import errors
from torchport.ops.registry import Operator, operators
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")

QUICK = ("rms_norm", "swiglu", "rope", "adamw_step")  # building a kernel takes seconds


def moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, (list, tuple)):
        return [moved(one, device) for one in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value


def written_back(here: Any, there: Any) -> None:
    for mine, theirs in zip(*((one if isinstance(one, list) else [one]) for one in (here, there)), strict=True):
        mine.copy_(theirs.cpu())


def on_device(operator: Operator) -> Callable[..., Any]:
    """The operator, called with CPU tensors and computed on the device."""
    names = list(inspect.signature(operator.call).parameters)

    def call(*args: Any) -> Any:
        given = [moved(value, torchport.device(0)) for value in args]
        returned = operator.call(*given)
        for name in operator.mutates:
            written_back(args[names.index(name)], given[names.index(name)])
        return moved(returned, torch.device("cpu"))

    return call


@pytest.mark.parametrize(
    "operator",
    [
        pytest.param(operator, id=operator.name, marks=[] if operator.name in QUICK else [pytest.mark.slow])
        for operator in operators()
    ],
)
def test_values_and_gradients(operator: Operator) -> None:
    sample = next(iter(operator.samples(torch.float32)))
    found = errors(operator, sample, on_device(operator))
    assert all(error <= 1 for error in found.values()), found


def test_a_compiled_graph_on_the_device_calls_operators() -> None:
    def loss(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (torchport.ops.rms_norm(x.sin(), weight) * 2).sum()

    host = torch.randn(5, 24), torch.randn(24)
    there = [one.to(torchport.device(0)).requires_grad_() for one in host]
    here = [one.clone().requires_grad_() for one in host]
    compiled = torch.compile(loss, backend="torchport", fullgraph=True)
    wanted = torch.autograd.grad(loss(*here), here)
    for got, want in zip(torch.autograd.grad(compiled(*there), there), wanted, strict=True):
        torch.testing.assert_close(got.cpu(), want)


def test_a_kernel_that_stops_says_why() -> None:
    device = torchport.device(0)
    with pytest.raises(torchport.KernelAssertionError, match="an index is not a row of the weight"):
        torchport.ops.embedding(torch.randn(3, 8).to(device), torch.tensor([0, 9]).to(device)).cpu()
