"""Convolutions of float32: which kernel computes them in a compiled graph, and that it is as right as aten's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import starmap
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

from torchport.inductor.products import lowering
from torchport.inductor.products.rules import choose_windows

LAST = torch.channels_last
FP32 = frozenset({"fp32"})


@pytest.fixture(autouse=True)
def fast_products(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU whose library multiplies matrices of float32 slower than ``tl.dot``."""
    limits = lowering.limits
    changed = {"fast_products": FP32, "ragged_products": frozenset()}
    monkeypatch.setattr(lowering, "limits", lambda: (found := limits()) and replace(found, **changed))
    with torch._inductor.config.patch(force_disable_caches=True):
        yield


def compiled(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, str]:
    """The result, and the code of the graph."""
    torch._dynamo.reset()
    result, code = run_and_get_code(
        torch.compile(function, backend="torchport", **{"dynamic": False, **options}), *args
    )
    return result, "".join(code)


def is_ours(code: str) -> bool:
    """Whether a kernel of torchport's computed the convolution."""
    return "triton_tem" in code and "extern_kernels.convolution(" not in code


def check(function: Callable[..., torch.Tensor], *args: torch.Tensor) -> str:
    """The error against float64 is that of eager up to the order of the sum. Returns the code of the graph."""
    found, code = compiled(function, *args)
    assert is_ours(code)
    exact, eager = function(*(arg.double() for arg in args)), function(*args)
    assert found.shape == eager.shape
    limit = 2 * (eager.double() - exact).abs().max() + 2**-24 * exact.abs().max()
    assert (found.double() - exact).abs().max() <= limit
    return code


def randn(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes)


CASES: dict[str, tuple[Callable[..., torch.Tensor], list[torch.Tensor]]] = {
    "window of 3, a border": (lambda x, w: F.conv2d(x, w, padding=1), [randn(2, 32, 9, 7), randn(32, 32, 3, 3)]),
    "bias, stride": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), [randn(1, 32, 13, 16), randn(64, 32, 3, 3), randn(64)]),
    "dilation": (lambda x, w: F.conv2d(x, w, None, 1, 2, 2), [randn(1, 32, 10, 11), randn(32, 32, 3, 3)]),
    "axes differ": (
        lambda x, w: F.conv2d(x, w, None, (1, 3), (0, 4), (2, 1)),
        [randn(2, 32, 9, 14), randn(32, 32, 2, 5)],
    ),
    "window of 1": (F.conv2d, [randn(3, 64, 5, 5), randn(32, 64, 1, 1)]),
    "window of 1, stride": (lambda x, w: F.conv2d(x, w, None, 2), [randn(2, 96, 9, 8), randn(64, 96, 1, 1)]),
    "window of 1, a border": (lambda x, w: F.conv2d(x, w, padding=2), [randn(1, 32, 4, 4), randn(32, 32, 1, 1)]),
    "patches": (lambda x, w, b: F.conv2d(x, w, b, 4), [randn(2, 32, 16, 16), randn(64, 32, 4, 4), randn(64)]),
    "a window larger than the image": (
        lambda x, w: F.conv2d(x, w, padding=5),
        [randn(1, 32, 3, 2), randn(32, 32, 7, 7)],
    ),
    "channels that fill no block": (F.conv2d, [randn(1, 32, 6, 6), randn(1000, 32, 2, 2)]),
    "many places": (lambda x, w: F.conv2d(x, w, padding=1), [randn(3, 32, 17, 16), randn(32, 32, 3, 3)]),
    "channels last": (
        lambda x, w: F.conv2d(x, w, padding=1),
        [randn(2, 64, 6, 7).contiguous(memory_format=LAST), randn(32, 64, 3, 3).contiguous(memory_format=LAST)],
    ),
    "a part of a larger image": (
        lambda x, w: F.conv2d(x[:, 3:35, 1:-1, ::2], w, padding=1),
        [randn(2, 40, 9, 20).contiguous(memory_format=LAST), randn(32, 32, 3, 3)],
    ),
    "turned weights": (
        lambda x, w: F.conv2d(x, w.transpose(2, 3), padding=1),
        [randn(1, 32, 8, 8), randn(32, 32, 3, 3)],
    ),
    "weights of a norm, one dimension": (
        lambda x, w: F.conv1d(torch.tanh(x), 2 * w / w.norm(dim=(1, 2), keepdim=True), padding=1),
        [randn(2, 32, 40), randn(64, 32, 3)],
    ),
    "computed weights, one dimension, window of 1": (
        lambda x, w: F.conv1d(torch.tanh(x), w.exp()),
        [randn(2, 32, 40), randn(64, 32, 1)],
    ),
    "computed and turned weights, one dimension": (
        lambda x, w: F.conv1d(torch.tanh(x), w.cumsum(0).transpose(0, 1), padding=1),
        [randn(2, 32, 40), randn(32, 32, 3)],
    ),
    "computed and turned weights": (
        lambda x, w: F.conv2d(x, w.exp().transpose(0, 1), padding=1),
        [randn(2, 32, 6, 7), randn(32, 32, 3, 3)],
    ),
    "computed weights, expanded": (
        lambda x, w: F.conv2d(x, (w * 2).expand(64, 32, 3, 3), padding=1),
        [randn(2, 32, 6, 7), randn(64, 1, 1, 1)],
    ),
    "a part of computed weights": (
        lambda x, w: F.conv2d(x, w.exp()[:, 1:33, ::2], padding=1),
        [randn(2, 32, 6, 7), randn(64, 35, 5, 3)],
    ),
    "one image without a batch": (lambda x, w: F.conv2d(x, w, padding="same"), [randn(32, 8, 8), randn(32, 32, 3, 3)]),
    "one dimension, channels last": (
        lambda x, w, b: F.conv1d(x.transpose(1, 2), w, b, 2, 3, 2),
        [randn(2, 41, 32), randn(64, 32, 3), randn(64)],
    ),
    "one dimension, computed": (
        lambda x, w: torch.tanh(F.conv1d(F.pad(x, (2, 0)), w, None, 1, 0, 2)),
        [randn(3, 32, 17), randn(32, 32, 2)],
    ),
    "wrapped borders": (
        lambda x, w: F.conv2d(F.pad(x, (1, 1, 1, 1), "circular"), w),
        [randn(1, 32, 7, 7), randn(32, 32, 3, 3)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_convolutions(name: str) -> None:
    check(CASES[name][0], *CASES[name][1])


@pytest.mark.parametrize("kind", ["normal", "positive", "cancelling"])
def test_they_are_as_exact_as_atens(kind: str) -> None:
    """Their errors against float64, greatest and root mean square, are at most aten's."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(1, 256, 9, 9, generator=generator), torch.randn(64, 256, 3, 3, generator=generator)
    if kind == "positive":
        x, w = x.abs(), w.abs()
    if kind == "cancelling":
        x[:, 128:], w[:, 128:] = x[:, :128], -1.001 * w[:, :128]
    found, code = compiled(lambda x, w: F.conv2d(x, w, padding=1), x, w)
    assert is_ours(code)
    exact = F.conv2d(x.double(), w.double(), padding=1)
    errors = [(result.double() - exact).abs() for result in (found, F.conv2d(x, w, padding=1))]
    assert errors[0].max() <= errors[1].max()
    assert errors[0].square().mean() <= errors[1].square().mean()


def test_infinities_and_nan_reach_their_windows_only() -> None:
    x, w = torch.ones(2, 32, 8, 8), torch.ones(32, 32, 3, 3)
    x[0, 5, 7, 7], x[1, 0, 0, 3] = torch.inf, torch.nan
    found, code = compiled(lambda x, w: F.conv2d(x, w, padding=1), x, w)
    assert is_ours(code)
    torch.testing.assert_close(found, F.conv2d(x, w, padding=1), equal_nan=True, rtol=0, atol=0)


def test_what_follows_is_in_the_same_kernel() -> None:
    norm = torch.nn.BatchNorm2d(32).eval()
    norm.running_mean = torch.randn(32)
    norm.running_var = torch.rand(32) + 0.5
    x, w, rest = (
        randn(*sizes).contiguous(memory_format=LAST) for sizes in ((1, 32, 8, 8), (32, 32, 3, 3), (1, 32, 8, 8))
    )
    with torch.no_grad():
        found, code = compiled(lambda x, w, rest: torch.relu(norm(F.conv2d(x, w, padding=1)) + rest), x, w, rest)
        expected = torch.relu(norm(F.conv2d(x, w, padding=1)) + rest)
    assert is_ours(code) and "triton_poi_fused__native_batch_norm" not in code
    torch.testing.assert_close(found, expected)


def test_a_chain_of_them_with_gradients() -> None:
    """One with a window of 3 x 3 and one of a place; tests of gradients are in test_convolution_gradients."""
    x, w, v = randn(2, 32, 6, 6), randn(64, 32, 3, 3).requires_grad_(), randn(32, 64, 1, 1).requires_grad_()

    def function(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.conv2d(torch.relu(F.conv2d(x, w, padding=1)), v)

    found = torch.compile(function, backend="torchport", dynamic=False)(x, w, v)
    gradients = torch.autograd.grad(found.square().mean(), (w, v))
    expected = torch.autograd.grad(function(x, w, v).square().mean(), (w, v))
    for ours, eager in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)


OTHERS: dict[str, tuple[Callable[..., torch.Tensor], list[torch.Tensor]]] = {
    "groups": (lambda x, w: F.conv2d(x, w, groups=2), [randn(2, 64, 8, 8), randn(64, 32, 3, 3) / 17]),
    "few channels": (F.conv2d, [randn(2, 3, 8, 8), randn(64, 3, 3, 3)]),
    "few places": (F.conv2d, [randn(1, 64, 2, 2), randn(64, 64, 1, 1)]),
    "no images": (F.conv2d, [randn(0, 64, 8, 8), randn(64, 64, 1, 1)]),
    "transposed": (F.conv_transpose2d, [randn(2, 32, 8, 8), randn(32, 32, 3, 3) / 17]),
    "one dimension, channels apart": (F.conv1d, [randn(2, 32, 40), randn(32, 32, 3)]),
    "three dimensions": (F.conv3d, [randn(1, 32, 4, 4, 4), randn(32, 32, 1, 1, 1)]),
    "float64": (F.conv2d, [randn(2, 32, 8, 8).double(), randn(32, 32, 1, 1).double()]),
}


def test_others_are_left_to_aten() -> None:
    found, code = compiled(lambda: [function(*args) for function, args in OTHERS.values()])
    assert "triton_tem" not in code
    for result, (function, args) in zip(found, OTHERS.values(), strict=True):
        torch.testing.assert_close(result, function(*args))


def test_unknown_sizes_are_left_to_aten() -> None:
    w = randn(32, 32, 3, 3) / 17
    function = torch.compile(lambda x: F.conv2d(x, w, padding=1), backend="torchport", dynamic=True)
    for size in (8, 11):
        x = randn(2, 32, size, size)
        torch.testing.assert_close(function(x), F.conv2d(x, w, padding=1))


def test_rules() -> None:
    """Blocks of many places, more than one of them; aten's where blocks would not be full."""
    sizes = ((2048, 64, 64, 9), (49, 512, 512, 9), (128, 64, 96, 1))
    blocks = [
        choice and (choice.rows, choice.columns, choice.terms, choice.apart)
        for choice in starmap(choose_windows, sizes)
    ]
    assert blocks == [(256, 64, 64, False), (64, 64, 256, True), (64, 64, 32, False)]
    assert not any(
        starmap(
            choose_windows,
            (
                (2048, 40, 64, 1),
                (2048, 64, 40, 1),
                (16, 64, 64, 1),
                (0, 64, 64, 1),
                (99, 64, 192, 9),
                (2048, 64, 256, 9),
            ),
        )
    )


@pytest.mark.parametrize("biased", [False, True])
def test_windows_of_one_place_that_fill_no_blocks(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are products of places by channels, with what follows in the same kernel."""
    x, bias = randn(2, 40, 13, 7), randn(24) if biased else None
    x[0, :, 3, 2] = torch.inf
    x[1, :, 0, 0] = 1e-39
    weight = randn(24, 40, 1, 1)

    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.silu(F.conv2d(x, weight, None if bias is None else bias.to(x.dtype)))

    assert not is_ours(compiled(function, x, weight)[1])
    limits = lowering.limits
    monkeypatch.setattr(lowering, "limits", lambda: (found := limits()) and replace(found, ragged_products=FP32))
    for image in (x, x.to(memory_format=LAST), x.transpose(2, 3).contiguous().transpose(2, 3)):
        found, code = compiled(function, image, weight)
        assert is_ours(code) and code.count("triton_tem") > 0 and found.stride() == function(image, weight).stride()
        exact = function(image.double(), weight.double())
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert not is_ours(compiled(partial(F.conv2d, stride=2), x, weight)[1])
