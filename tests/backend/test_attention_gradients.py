"""``torch.autograd.gradcheck`` of attention: finite differences against the gradients of our kernels.

The kernels compute in float32, in which finite differences have no digits left. So the function that is differentiated
numerically is the float64 reference, and its gradient is that of the kernels on the same numbers. FlexAttention takes
float64 itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import torchport.ops
from torchport.ops.attention.reference import reference
from torchport.ops.registry import operators

PIECEWISE = next(one for one in operators() if one.name == "piecewise_attention")
_OFF = 1e-5
"""Inputs are of the order of 1; a gradient is a sum of some tens of products, each with roundings of 2^-24."""


def checked(operator: Callable[..., Any], exact: Callable[..., Any], *tensors: torch.Tensor) -> None:
    """gradcheck of a function whose values are ``exact``'s and whose gradients are ``operator``'s."""

    class Both(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: torch.Tensor) -> Any:
            ctx.save_for_backward(*inputs)
            return exact(*inputs)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> Any:
            with torch.enable_grad():
                inputs = [one.detach().float().requires_grad_() for one in ctx.saved_tensors]
                results = operator(*inputs)
                found = torch.autograd.grad(results, inputs, [one.float() for one in grads])
            return tuple(one.double() for one in found)

    inputs = [one.double().requires_grad_() for one in tensors]
    assert torch.autograd.gradcheck(Both.apply, inputs, eps=1e-6, atol=_OFF, rtol=_OFF)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape).double()


@pytest.mark.parametrize(
    "options",
    [
        {"causal": True},
        {"window": (3, 1), "softcap": 2.0},
        {"causal": True, "top_left": True, "scale": 0.7},
        {"alibi_slopes": torch.tensor([0.3, 0.6])},
    ],
    ids=lambda options: "-".join(options),
)
def test_flash_attention(options: dict[str, Any]) -> None:
    left, right = options.get("window", (-1, -1))
    right = 0 if options.get("causal") else right
    slopes = options.get("alibi_slopes")
    numbers = options.get("scale", 8**-0.5), options.get("softcap", 0.0), left, right, options.get("top_left", False)

    def operator(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sinks: torch.Tensor) -> Any:
        return torchport.ops.flash_attention(q, k, v, sinks=sinks, return_lse=True, **options)

    def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sinks: torch.Tensor) -> Any:
        return reference(q, k, v, None, sinks, slopes, None, None, None, 0, 0, *numbers, 0.0)

    checked(operator, exact, normal(1, 2, 5, 8), normal(1, 1, 7, 8), normal(1, 1, 7, 4), normal(2))


def test_the_bias() -> None:
    def operator(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> Any:
        return torchport.ops.flash_attention(q, k, v, bias=bias)

    def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> Any:
        return reference(q, k, v, bias, *(None,) * 5, 0, 0, 8**-0.5, 0.0, -1, -1, False, 0.0)[0]

    checked(operator, exact, normal(2, 2, 3, 8), normal(2, 2, 5, 8), normal(2, 2, 5, 8), normal(1, 2, 3, 5))


@pytest.mark.parametrize("least", [-1e9, -1e30, torch.finfo(torch.float32).min])
def test_rows_under_a_mask_of_large_numbers(least: float) -> None:
    """They see all keys alike, as no score is left beside the mask, and have gradients all the same.

    The logarithm of such a row's sum is the mask's number, to the last bit.
    """
    tensors = [torch.randn(1, 2, rows, 16) for rows in (40, 150, 150)]
    seen = torch.rand(1, 1, 40, 150) < 0.5
    seen[:, :, [3, 39]] = False
    given = torch.randn(1, 2, 40, 16)

    def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw = q @ k.mT / 4
        alike = raw - raw.detach()
        weights = torch.softmax(torch.where(seen.any(-1, keepdim=True), raw.masked_fill(~seen, -torch.inf), alike), -1)
        return weights @ v, weights.sum(-2)

    def grads(function: Any, convert: Any) -> tuple[torch.Tensor, ...]:
        inputs = [convert(one).requires_grad_() for one in tensors]
        out, totals = function(*inputs)
        return totals.detach(), *torch.autograd.grad(out, inputs, convert(given))

    mask = torch.where(seen, 0.0, least)
    found = grads(
        lambda *x: torchport.ops.flash_attention(*x, bias=mask, return_total_attention=True), torch.Tensor.clone
    )
    for got, want in zip(found, grads(exact, torch.Tensor.double), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=_OFF, atol=_OFF)


@pytest.mark.parametrize("threshold", [3, -100, 100])
def test_piecewise_attention(threshold: int) -> None:
    numbers = threshold, True, 8**-0.5
    shapes = (1, 2, 6, 8), (1, 1, 8, 8), (1, 2, 6, 8), (1, 1, 8, 8), (1, 1, 8, 4)
    checked(
        lambda *x: PIECEWISE.call(*x, *numbers),
        lambda *x: PIECEWISE.reference(*x, *numbers),
        *(normal(*shape) for shape in shapes),
    )


def test_flex_attention(compile_backend: str) -> None:
    mask = create_block_mask(lambda b, h, m, n: m + 2 >= n, None, None, 5, 7, device="cpu", BLOCK_SIZE=16)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        return flex_attention(q, k, v, lambda score, b, h, m, n: score.tanh() + slopes[h] * (n - m), mask)

    inputs = [normal(1, 2, 5, 16), normal(1, 2, 7, 16), normal(1, 2, 7, 16), normal(2)]
    compiled = torch.compile(attend, backend=compile_backend, fullgraph=True)
    assert torch.autograd.gradcheck(compiled, [one.requires_grad_() for one in inputs], nondet_tol=1e-12)


def test_a_second_derivative_is_refused() -> None:
    q, k, v = (torch.randn(1, 1, 5, 16, requires_grad=True) for _ in range(3))
    for call in (
        lambda: torchport.ops.flash_attention(q, k, v),
        lambda: torchport.ops.piecewise_attention(q, k, q, k, v, 2),
    ):
        (grad,) = torch.autograd.grad(call().square().sum(), q, create_graph=True)
        with pytest.raises(NotImplementedError, match="a second one was asked for"):
            grad.sum().backward()
