"""Kernels that store channels last while their loops follow the channels first: blocks hold neighbours in memory."""

from __future__ import annotations

import pytest
import torch
import torch._inductor.config
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

LAST = torch.channels_last


@pytest.mark.parametrize(("channels", "block"), [(64, 64), (96, 32), (20, 1)])
def test_a_pixel_shuffle_that_a_convolution_reads(channels: int, block: int) -> None:
    """Of 20 channels no block holds neighbours alone, so those stay as they were."""
    x, w = torch.randn(2, 4 * channels, 9, 7).contiguous(memory_format=LAST), torch.randn(3, channels, 1, 1) / 8

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.relu(F.pixel_shuffle(x, 2)), w)

    torch._dynamo.reset()
    with torch._inductor.config.patch(force_disable_caches=True):
        found, code = run_and_get_code(torch.compile(function, backend="torchport", dynamic=False), x, w)
    torch.testing.assert_close(found, function(x, w))
    assert f"'ZBLOCK': {block}" in "".join(code)


@pytest.mark.parametrize("name", ["silu", "gelu", "sin"])
def test_functions_where_the_order_changes(name: str) -> None:
    """Squares are turned around a function without a branch; a sine is gathered. Bits are those of the order kept."""
    function = getattr(F, name, None) or getattr(torch, name)
    kept = torch.compile(function, backend="torchport", dynamic=False)
    turned = torch.compile(lambda x: function(x).contiguous(memory_format=LAST), backend="torchport", dynamic=False)
    for shape in ((1, 32, 4, 8), (1, 33, 3, 13)):
        x = 3 * torch.randn(shape)
        x.view(-1)[:6] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-40])
        found = turned(x)
        assert found.is_contiguous(memory_format=LAST)
        torch.testing.assert_close(found, kept(x).contiguous(memory_format=LAST), rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(found.double(), function(x.double()), rtol=1e-4, atol=1e-5, equal_nan=True)
