"""Concatenations that convolutions read: where their buffer has channels last, and that results stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

WHOLE, LAST, APART = "(2, 24, 8, 8)", "(1536, 1, 192, 24)", "(1536, 64, 8, 1)"


def check(function: Callable[..., Any], *args: torch.Tensor, **options: Any) -> str:
    """Results are eager's, strides too. Returns the code of the graph."""
    torch._dynamo.reset()
    with torch._inductor.config.patch(force_disable_caches=True):
        result, codes = run_and_get_code(torch.compile(function, backend="torchport", **options), *args)
    expected = function(*args)
    torch.testing.assert_close(result, expected, check_stride=True)
    return "".join(codes)


def allocated(strides: str, size: str = WHOLE) -> str:
    return f"empty_strided_cpu({size}, {strides}"


def images(channels: int, side: int = 8) -> torch.Tensor:
    return torch.randn(2, channels, side, side)


def weights(outputs: int, inputs: int, side: int = 3) -> torch.Tensor:
    return torch.randn(outputs, inputs, side, side) / (inputs * side * side) ** 0.5


def skip(low: torch.Tensor, high: torch.Tensor, first: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The end of a U-Net: what was computed and pooled before is read again beside what was enlarged."""
    high = F.silu(F.conv2d(high, first, padding=1))
    low = F.interpolate(F.avg_pool2d(high, 2)[:, :8] * low, scale_factor=2.0, mode="bilinear")
    whole = torch.cat([low, high], dim=1)
    return F.conv2d(whole, weight, padding=1) + F.conv2d(whole, weight[:, :, :1, :1])


def test_skips_are_written_where_the_convolution_reads_them() -> None:
    code = check(skip, images(8, 4), images(16), weights(16, 16), weights(8, 24))
    assert code.count(allocated(LAST)) == 1
    assert allocated(APART) not in code


@pytest.mark.parametrize(
    ("dim", "sizes"), [(0, [(1, 6, 5, 7), (2, 6, 5, 7)]), (-1, [(2, 6, 5, 3), (2, 6, 5, 4)]), (1, [(2, 3, 5, 7)] * 3)]
)
def test_other_dimensions_and_several_tensors(dim: int, sizes: list[tuple[int, ...]]) -> None:
    def function(weight: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        return F.conv2d(torch.cat([one.sin() for one in tensors], dim).relu(), weight)

    tensors = [torch.randn(size) for size in sizes]
    whole = torch.cat(tensors, dim)
    batch, channels, height, width = whole.shape
    code = check(function, weights(4, channels), *tensors)
    strides = (channels * height * width, 1, width * channels, channels)
    assert allocated(str(strides), str((batch, channels, height, width))) in code


def test_one_tensor_twice_and_views() -> None:
    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y = x.exp()
        return F.conv2d(torch.cat([y, y, y.flip(3).transpose(2, 3)], 1), weight) + y.mean()

    assert allocated(LAST) in check(function, images(8), weights(4, 24))


def test_sizes_that_change() -> None:
    def function(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.conv2d(torch.cat([x.sin(), y.cos()], 1), weight)

    for side in (8, 11):
        x, y = (torch.randn(side - 5, channels, side, side + 1) for channels in (16, 8))
        check(function, x, y, weights(4, 24), dynamic=True)


def test_gradients() -> None:
    def function(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.conv2d(torch.cat([x.sin(), y.cos()], 1).sigmoid(), weight).square().sum()

    operands = [one.requires_grad_() for one in (images(16), images(8), weights(4, 24))]
    torch._dynamo.reset()
    found = torch.autograd.grad(torch.compile(function, backend="torchport")(*operands), operands)
    torch.testing.assert_close(found, torch.autograd.grad(function(*operands), operands))


def test_results_keep_their_strides() -> None:
    def function(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        whole = torch.cat([x.sin(), y.cos()], 1)
        return whole, F.conv2d(whole, weight)

    assert allocated(APART) in check(function, images(16), images(8), weights(4, 24))


def test_what_no_convolution_reads_is_left_alone() -> None:
    def function(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        heads = F.conv2d(x, weight)
        whole = torch.cat([heads.sin(), y.cos()], 1)
        return torch.softmax(whole @ whole.transpose(2, 3), -1) @ whole

    assert allocated(LAST) not in check(function, images(16), images(8), weights(16, 16, 1))
