"""Models of equal layers compiled by regions: the layer's kernels are compiled once, and results are eager's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch._dynamo.utils import counters
from torch._inductor.utils import run_and_get_code

WIDTH, LAYERS = 52, 4


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.wide, self.back = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(3 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.back(torch.nn.functional.gelu(self.wide(self.norm(x))))


class MarkedLayer(Layer):
    forward = torch.compiler.nested_compile_region(Layer.forward)


def _equal(kind: type[Layer], layers: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(*(kind() for _ in range(layers)))


def each_layer(layers: int) -> tuple[torch.nn.Module, Callable[..., Any]]:
    model = _equal(Layer, layers)
    compiled = [torch.compile(layer, backend="torchport", options={"fallback": "error"}) for layer in model]
    return model, torch.nn.Sequential(*compiled)


def in_place(layers: int) -> tuple[torch.nn.Module, Callable[..., Any]]:
    model = _equal(Layer, layers)
    for layer in model:
        layer.compile(backend="torchport", options={"fallback": "error"})
    return model, model


def nested(layers: int) -> tuple[torch.nn.Module, Callable[..., Any]]:
    model = _equal(MarkedLayer, layers)
    return model, torch.compile(model, backend="torchport", options={"fallback": "error"}, fullgraph=True)


def _step(model: torch.nn.Module, call: Callable[..., Any], x: torch.Tensor, train: bool) -> list[torch.Tensor]:
    """The result and, with ``train``, the gradients of all parameters and of ``x``."""
    x = x.clone().requires_grad_(train)
    with torch.set_grad_enabled(train):
        result = call(x)
    if not train:
        return [result]
    model.zero_grad()
    result.square().mean().backward()
    return [result.detach(), *(one.grad for one in (x, *model.parameters()) if one.grad is not None)]


def _kernels(regions: Callable[..., Any], layers: int, train: bool) -> int:
    """How many kernels the generated code defines; results and gradients are checked against eager."""
    torch._dynamo.reset()
    counters.clear()
    model, call = regions(layers)
    x = torch.randn(24, WIDTH)
    got, codes = run_and_get_code(_step, model, call, x, train)
    with torch.compiler.set_stance("force_eager"):
        exact = _step(model, call, x, train)
    torch.testing.assert_close(got, exact)
    assert len(got) == (2 + 6 * layers if train else 1)
    assert counters["stats"]["unique_graphs"] == 1, "a layer was compiled for itself"
    assert len(codes) == (2 if train else 1)
    return sum(code.count("= torchport_kernel(") + code.count("= async_compile.triton(") for code in codes)


@pytest.mark.usefixtures("no_fallback")
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("regions", [each_layer, in_place, nested])
def test_four_equal_layers_need_the_kernels_of_one(regions: Callable[..., Any], train: bool) -> None:
    with (
        torch._inductor.config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
    ):
        one = _kernels(regions, 1, train)
        assert one > 2
        assert _kernels(regions, LAYERS, train) == one
