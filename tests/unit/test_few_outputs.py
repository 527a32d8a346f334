"""Convolutions to few channels as one product and a sum of its shifted rows: right at borders, as exact as aten's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

from torchport.inductor.products import lowering
from torchport.inductor.products.few_outputs import is_narrow

LAST = torch.channels_last


@pytest.fixture(autouse=True)
def fast_products(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU with vectors of 16, whose library multiplies matrices of float32 slower than ``tl.dot``."""
    limits = lowering.limits
    facts = {"fast_products": frozenset({"fp32"}), "simd_width": 16}
    monkeypatch.setattr(lowering, "limits", lambda: (found := limits()) and replace(found, **facts))
    with torch._inductor.config.patch(force_disable_caches=True):
        yield


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Any, bool]:
    """The result, and whether no convolution of aten's is left."""
    torch._dynamo.reset()
    result, code = run_and_get_code(torch.compile(function, backend="torchport", dynamic=False), *args)
    return result, "extern_kernels.convolution(" not in "".join(code)


def last(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes).contiguous(memory_format=LAST)


CASES: dict[str, tuple[Callable[..., torch.Tensor], list[torch.Tensor]]] = {
    "a border, and what follows": (
        lambda x, w, b: F.conv2d(x, w, b, padding=1).tanh(),
        [last(2, 48, 17, 23), torch.randn(3, 48, 3, 3), torch.randn(3)],
    ),
    "axes differ, no bias": (
        lambda x, w: F.conv2d(x, w, None, 1, (0, 3), (1, 2)),
        [last(3, 40, 12, 19), torch.randn(5, 40, 2, 4)],
    ),
    "borders wider than the window": (
        lambda x, w: F.conv2d(x, w, padding=7),
        [torch.randn(1, 128, 5, 6), torch.randn(8, 128, 3, 3)],
    ),
    "a window larger than the image": (
        lambda x, w: F.conv2d(x * 2, w, None, 1, 8, 4),
        [last(1, 256, 3, 4), torch.randn(2, 256, 5, 5)],
    ),
    "one dimension, channels apart": (
        lambda x, w, b: F.conv1d(F.leaky_relu(x), w, b, padding=3),
        [torch.randn(1, 32, 601), torch.randn(1, 32, 7), torch.randn(1)],
    ),
    "one dimension, channels last": (
        lambda x, w: F.conv1d(x.transpose(1, 2), w, None, 1, 4, 2),
        [torch.randn(3, 301, 33), torch.randn(2, 33, 5)],
    ),
    "another convolution reads it": (
        lambda x, w, v: F.conv2d(F.relu(F.conv2d(x, w)) + 1, v, padding=1),
        [last(2, 64, 16, 15), torch.randn(8, 64, 2, 2), torch.randn(4, 8, 1, 1)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_is_as_exact_as_atens(name: str) -> None:
    function, args = CASES[name]
    found, ours = compiled(function, *args)
    exact, eager = function(*(arg.double() for arg in args)), function(*args)
    assert ours or name == "another convolution reads it"
    assert found.shape == eager.shape and found.stride() == eager.stride()
    assert (found.double() - exact).abs().max() <= 1.5 * (eager.double() - exact).abs().max()


def test_infinities_and_nan_reach_their_windows_only() -> None:
    x, w = torch.ones(2, 32, 24, 24), torch.ones(3, 32, 3, 3)
    x[0, 5, 23, 23], x[1, 0, 0, 3] = torch.inf, torch.nan
    x = x.contiguous(memory_format=LAST)
    found, ours = compiled(lambda x, w: F.conv2d(x, w, padding=1), x, w)
    assert ours
    torch.testing.assert_close(found, F.conv2d(x, w, padding=1), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("why", "images", "channels", "sides", "outputs", "window", "lanes"),
    [
        ("as many outputs as most of a vector", 2, 64, (32, 32), 9, 9, 16),
        ("half of AVX2's is fewer", 2, 64, (32, 32), 5, 9, 8),
        ("tiny", 1, 32, (8, 8), 3, 9, 16),
        ("its product would fill memory", 1, 64, (1024, 1024), 3, 9, 16),
        ("a window of 1 is a product already", 2, 64, (32, 32), 3, 1, 16),
        ("few channels are no product", 2, 3, (256, 256), 3, 9, 16),
    ],
)
def test_what_is_left_to_the_library(
    why: str, images: int, channels: int, sides: tuple[int, int], outputs: int, window: int, lanes: int
) -> None:
    assert not is_narrow(images, channels, sides, outputs, window, lanes), why


def test_what_is_taken() -> None:
    assert is_narrow(2, 48, (64, 64), 3, 9, 16) and is_narrow(2, 48, (64, 64), 4, 9, 8)


def test_strides_and_channels_apart_in_batches_stay_atens() -> None:
    def strided(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
        return [F.conv2d(x, w, stride=2), F.conv1d(y, v)]

    args = last(2, 32, 64, 64), torch.randn(2, 32, 900), torch.randn(3, 32, 3, 3), torch.randn(3, 32, 3)
    found, ours = compiled(strided, *args)
    assert not ours
    torch.testing.assert_close(found, strided(*args))
