"""Tiles that are turned in registers and reach beyond a bound: channels and places that squares do not divide."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

LAST = torch.channels_last
SHAPES = ((2, 3, 9, 7), (1, 24, 5, 13), (1, 37, 7, 7))
VALUES = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-40])


def _filled(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(shape) * 50
    x.view(-1)[: len(VALUES)] = VALUES if dtype.is_floating_point else 1.0
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool])
def test_copies_are_exact_and_write_nothing_else(dtype: torch.dtype) -> None:
    """Both ways; what lies beside a result's channels in memory stays as it was."""

    def copied(x: torch.Tensor, last: torch.Tensor, y: torch.Tensor, first: torch.Tensor) -> None:
        last.copy_(x)
        first.copy_(y)

    call = torch.compile(copied, backend="torchport", dynamic=False)
    for shape in SHAPES:
        images, channels, height, width = shape
        x = _filled(shape, dtype)
        last, first = (_filled(wide, dtype) for wide in (
            (images, height, width, channels + 5), (images, channels + 2, height, width)
        ))  # fmt: skip
        expected = last.clone(), first.clone()
        call(x, last[..., 2:-3].permute(0, 3, 1, 2), x.contiguous(memory_format=LAST), first[:, 1:-1])
        expected[0][..., 2:-3].copy_(x.permute(0, 2, 3, 1))
        expected[1][:, 1:-1].copy_(x)
        torch.testing.assert_close((last, first), expected, rtol=0, atol=0, equal_nan=True)


def test_arithmetic_around_which_the_order_changes() -> None:
    """A norm by channel, an activation and a second operand that lies the other way, against float64."""

    def function(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return (F.silu(x * scale[:, None, None]) + y).contiguous(memory_format=LAST)

    call = torch.compile(function, backend="torchport", dynamic=False)
    for shape in SHAPES:
        x, y, scale = torch.randn(shape), torch.randn(shape).contiguous(memory_format=LAST), torch.randn(shape[1])
        x[0, 0, 0, 0] = torch.nan
        found = call(x, y, scale)
        assert found.is_contiguous(memory_format=LAST)
        wanted = function(x.double(), y.double(), scale.double())
        torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=2e-6, equal_nan=True)


def test_integers_divided_by_what_is_read_under_the_mask() -> None:
    """Rows beyond the bound divide by nothing that traps."""

    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.div(x, y, rounding_mode="trunc").contiguous(memory_format=LAST)

    x, y = torch.randint(-99, 99, SHAPES[0]), torch.randint(1, 9, SHAPES[0])
    found = torch.compile(function, backend="torchport", dynamic=False)(x, y)
    torch.testing.assert_close(found, function(x, y), rtol=0, atol=0)


def test_sizes_that_change() -> None:
    """Bounds that are known when the kernel runs."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return (x + 1).permute(0, 2, 1).contiguous()

    call = torch.compile(function, backend="torchport", dynamic=True)
    for rows, columns in ((40, 23), (17, 33)):
        x = torch.randn(3, rows, columns)
        torch.testing.assert_close(call(x), x.permute(0, 2, 1) + 1, rtol=0, atol=0)
