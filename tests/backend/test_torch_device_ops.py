"""Operators of ``torchport.ops`` on the torch device of a target with memory of its own: bounds as on the CPU."""

from __future__ import annotations

import pytest
import torch

import torchport
from torchport.ops.check import elsewhere, errors
from torchport.ops.registry import Operator, operators
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")

QUICK = ("rms_norm", "swiglu", "rope", "adamw_step")  # building a kernel takes seconds


@pytest.mark.parametrize(
    "operator",
    [
        pytest.param(operator, id=operator.name, marks=[] if operator.name in QUICK else [pytest.mark.slow])
        for operator in operators()
    ],
)
def test_values_and_gradients(operator: Operator) -> None:
    sample = next(iter(operator.samples(torch.float32)))
    found = errors(operator, sample, elsewhere(operator, torchport.device(0)))
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
