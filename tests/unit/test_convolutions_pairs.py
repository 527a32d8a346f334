"""Convolutions of bfloat16 by pairs: which kernel computes them, and that it is as right as aten's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._inductor.config
from test_convolutions import CASES, LAST, compiled, is_ours, randn
from torch.nn import functional as F
from torchport_cpu.host import host_info

from torchport.inductor.products.lowering import flushes
from torchport.inductor.products.rules import choose_windows

pytestmark = pytest.mark.skipif(
    not (host_info().bf16_pairs and host_info().is_zen and flushes()), reason="aten's convolutions are faster, or exact"
)


def found_by_ours(function: Callable[..., torch.Tensor], *args: torch.Tensor) -> torch.Tensor:
    """The result, which a kernel of torchport's computed."""
    with torch._inductor.config.patch(force_disable_caches=True):
        found, code = compiled(function, *args)
    assert is_ours(code)
    assert "# torchport bf16 pairs" in code
    return found


def as_right_as_atens(found: torch.Tensor, function: Callable[..., torch.Tensor], *args: torch.Tensor) -> None:
    """The greatest and the mean square error against float64, of the same bfloat16 operands; both round their sums."""
    exact = function(*(arg.double() for arg in args))
    eager = function(*args)
    assert (found.shape, found.dtype) == (eager.shape, torch.bfloat16)
    errors = [(result.double() - exact).abs() for result in (found, eager)]
    unit = 2.0**-8 * exact.abs().max()
    assert errors[0].max() <= errors[1].max() + unit / 2
    assert errors[0].square().mean() <= 1.05 * errors[1].square().mean() + 1e-4 * unit**2


@pytest.mark.parametrize("name", [name for name in CASES if "comput" not in name and "norm" not in name])
def test_convolutions(name: str) -> None:
    function, operands = CASES[name]
    args = [operand.bfloat16() for operand in operands]
    as_right_as_atens(found_by_ours(function, *args), function, *args)


@pytest.mark.parametrize("channels", [128, 192, 384])
@pytest.mark.parametrize("window", [1, 3])
def test_many_terms(channels: int, window: int) -> None:
    torch.manual_seed(0)
    x, w = randn(1, channels, 9, 11).bfloat16(), randn(96, channels, window, window).bfloat16()

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, w, padding=window // 2)

    as_right_as_atens(found_by_ours(function, x, w), function, x, w)


def test_infinities_nan_and_denormals() -> None:
    """Numbers that are none reach their windows only; denormals are zeros, as with the library."""
    x, w = (torch.ones(*sizes, dtype=torch.bfloat16) for sizes in ((2, 32, 8, 8), (32, 32, 3, 3)))
    x[0, 5, 7, 7], x[1, 0, 0, 3], x[1, :, 4:, 4:] = torch.inf, torch.nan, 1e-39
    found = found_by_ours(lambda x, w: F.conv2d(x, w, padding=1), x, w)
    torch.testing.assert_close(found, F.conv2d(x, w, padding=1), equal_nan=True, rtol=0, atol=0)


def test_what_follows_is_in_the_same_kernel() -> None:
    x, w, rest = (
        randn(*sizes).bfloat16().contiguous(memory_format=LAST)
        for sizes in ((1, 64, 8, 8), (64, 64, 3, 3), (1, 64, 8, 8))
    )

    def function(x: torch.Tensor, w: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        return torch.relu(F.conv2d(x, w, padding=1) + rest)

    found, code = compiled(function, x, w, rest)
    assert is_ours(code) and "triton_poi_fused_add" not in code
    torch.testing.assert_close(found, function(x, w, rest), rtol=2**-7, atol=2**-7)


def test_exact_products_are_atens() -> None:
    x, w = randn(1, 64, 8, 8).bfloat16(), randn(64, 64, 1, 1).bfloat16()
    found, code = compiled(F.conv2d, x, w, options={"bf16_products": "exact"})
    assert "triton_tem" not in code
    torch.testing.assert_close(found, F.conv2d(x, w))


def test_gradients() -> None:
    x, w = randn(2, 64, 6, 6).bfloat16(), randn(64, 64, 3, 3).bfloat16().requires_grad_()
    found = torch.compile(F.conv2d, backend="torchport", dynamic=False)(x, w)
    ours, eager = (torch.autograd.grad(one.square().mean(), w)[0] for one in (found, F.conv2d(x, w)))
    torch.testing.assert_close(ours, eager, rtol=2**-6, atol=2**-8)


def test_rules() -> None:
    """Steps of 128 terms; windows over many places only where a step is whole."""
    assert (choice := choose_windows(2048, 64, 256, 9, pairs=True)) and (choice.terms, choice.apart) == (128, False)
    assert choose_windows(2048, 64, 192, 9, pairs=True) is None
    assert choose_windows(99999, 64, 128, 9, pairs=True)
    assert choose_windows(99999, 64, 64, 9, pairs=True) is None
    assert choose_windows(99999, 64, 96, 1, pairs=True)
    assert choose_windows(2048, 64, 40, 1, pairs=True) is None
