"""Inputs that share memory are part of a compiled graph, and so of its key in caches."""

from __future__ import annotations

import pytest
import torch
from torch._functorch import config as functorch_config


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.add_(1)
    return x * 2 + y


def inputs(shared: bool) -> tuple[torch.Tensor, torch.Tensor]:
    base = torch.arange(96.0).view(12, 8)
    return base[:6], base[3:9] if shared else base[3:9].clone()


def run(backend: str, *, shared: bool) -> bool:
    """Whether a process that begins now, over the caches of those before, computes what eager mode does."""
    torch._dynamo.reset()
    return torch.equal(torch.compile(add, backend=backend)(*inputs(shared)), add(*inputs(shared)))


@pytest.mark.parametrize("first", [False, True])
def test_a_graph_is_not_taken_for_inputs_that_lie_otherwise(first: bool) -> None:
    with functorch_config.patch(enable_autograd_cache=True):
        assert run("torchport", shared=first)
        assert run("torchport", shared=not first)
        assert run("torchport", shared=first)
