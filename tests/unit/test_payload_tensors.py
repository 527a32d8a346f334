"""PyTorch's functions on tensors of payloads: by their decompositions, and refused by name where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from torchport.arithmetic.payload.field import MINUS_INFINITY
from torchport.numerics.algebra.aten import Payloads
from torchport.numerics.algebra.launch import NotProvable
from torchport.numerics.algebra.nodes import node_values
from torchport.numerics.algebra.payloads import alike, drawn_like
from torchport.numerics.algebra.tensor import NoAlgebra, payloads
from torchport.numerics.graphs.dump import dump

aten = torch.ops.aten


def made(*shape: int, seed: int = 0) -> torch.Tensor:
    return Payloads(drawn_like(torch.zeros(shape), seed))


X, Y, W, B = made(4, 8), made(4, 8, seed=1), made(8, 8, seed=2), made(8, seed=3)


def centred(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(-1, keepdim=True)


LAWS: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
    "a product's rows": lambda: ((X @ W)[1:3], X[1:3] @ W),
    "a product in parts": lambda: (X @ W, X[:, :3] @ W[:3] + X[:, 3:] @ W[3:]),
    "linear": lambda: (F.linear(X, W, B), X @ W.t() + B),
    "softmax's shift": lambda: (torch.softmax(X + 3.0, -1), torch.softmax(X, -1)),
    "log_softmax": lambda: (
        torch.log_softmax(X, -1), X - X.amax(-1, True) - torch.exp(X - X.amax(-1, True)).sum(-1, keepdim=True).log(),
    ),
    "gelu": lambda: (F.gelu(X), X * 0.5 * (1 + torch.erf(X / 2**0.5))),
    "gelu by tanh": lambda: (
        F.gelu(X, approximate="tanh"), 0.5 * X * (1 + torch.tanh(0.7978845608028654 * (X + 0.044715 * X**3)))
    ),
    "silu": lambda: (F.silu(X), X * torch.sigmoid(X)),
    "layer_norm": lambda: (
        F.layer_norm(X, (8,), B, B, 1e-5),
        centred(X) / torch.sqrt(X.var(-1, unbiased=False, keepdim=True) + 1e-5) * B + B,
    ),
    "variance by squares": lambda: (X.var(-1, unbiased=False), (X * X).mean(-1) - X.mean(-1) * X.mean(-1)),
    "relu": lambda: (F.relu(X), torch.where(X > 0, X, 0.0)),
    "maxima of parts": lambda: (X.amax(-1), torch.maximum(X[:, :5].amax(-1), X[:, 5:].max(-1).values)),
    "running sums": lambda: (X.cumsum(-1)[:, -1], X.sum(-1)),
    "an index": lambda: (F.embedding(torch.tensor([2, 0]), W), W[torch.tensor([2, 0])]),
    "padding": lambda: (F.pad(X, (1, 2), value=0.5)[:, 0], torch.full((4,), 0.5) * (X[:, 0] / X[:, 0])),
    "floats of integers": lambda: (X * torch.arange(8), X * torch.arange(8).float()),
    "conversions": lambda: (X.to(torch.bfloat16).float(), X),
}  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_laws(name: str) -> None:
    a, b = LAWS[name]()
    assert isinstance(a, Payloads) and isinstance(b, Payloads)
    assert bool(alike(payloads(a), payloads(b)).all())


def test_masked_softmax() -> None:
    mask = torch.ones(8, 8, dtype=torch.bool).tril()
    weights = torch.softmax(torch.where(mask, W, float("-inf")), -1)
    assert bool((payloads(weights)[~mask] == 0).all())
    assert bool((payloads(weights.sum(-1)) & 0xFFFFFFFF == 1).all())
    nothing = torch.where(torch.zeros(8, dtype=torch.bool), W, float("-inf"))
    assert bool((payloads(nothing.amax(-1)) == MINUS_INFINITY).all())


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(NoAlgebra, match="_fft_r2c"):
        torch.fft.rfft(X)


def test_nodes_of_a_graph() -> None:
    def model(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x @ w, -1).sum(0) + torch.arange(8) / 4

    graph = dump(make_fx(model)(torch.randn(4, 8), torch.randn(8, 8)).graph)
    inputs = [node["name"] for node in graph["nodes"] if node["op"] == "placeholder"]
    (output,) = graph["outputs"]
    values = node_values(graph, [output], dict(zip(inputs, (X, W), strict=True)))
    expected = torch.softmax(X @ W, -1).sum(0) + torch.arange(8) * 0.25
    assert bool(alike(payloads(values[output]), payloads(expected)).all())
    with pytest.raises(NotProvable, match="does not read this input"):
        node_values(graph, [output], {inputs[0]: X})
