"""Group norms of images with channels last are summed channel by channel, and are as exact as eager's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

LAST = torch.channels_last


@pytest.fixture(autouse=True)
def no_caches() -> Iterator[None]:
    with torch._inductor.config.patch(force_disable_caches=True):
        yield


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Any, bool]:
    """The result, and whether channels were summed by themselves, in float64."""
    torch._dynamo.reset()
    result, code = run_and_get_code(torch.compile(function, backend="torchport", dynamic=False), *args)
    return result, "tl.float64" in "".join(code)


def last(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes).contiguous(memory_format=LAST)


def uneven(*sizes: int) -> torch.Tensor:
    """Channels far apart from each other, the first place farther from all others, one channel constant."""
    x = last(*sizes)
    x = x + 100 * torch.randn(1, sizes[1], 1, 1)
    x[:, :, 0, 0] += 1000
    x[:, 1] = 12345.678
    return x


def norm(groups: int) -> Callable[..., torch.Tensor]:
    return lambda x, w, b: F.silu(F.group_norm(x, groups, w, b))


CASES: dict[str, tuple[int, torch.Tensor]] = {
    "groups of 6, odd sides": (3, last(2, 18, 9, 11)),
    "a channel is a group": (20, last(3, 20, 8, 9)),
    "one group": (1, last(2, 33, 8, 8)),
    "uneven": (4, uneven(2, 20, 16, 17)),
}


@pytest.mark.parametrize("name", CASES)
def test_errors_are_at_most_eagers(name: str) -> None:
    groups, x = CASES[name]
    w, b = torch.randn(x.shape[1]), torch.randn(x.shape[1])
    found, ours = compiled(norm(groups), x, w, b)
    assert ours
    exact, eager = norm(groups)(x.double(), w.double(), b.double()), norm(groups)(x, w, b)
    errors = [(one.double() - exact).abs().max() for one in (found, eager)]
    assert errors[0] <= 1.5 * errors[1] + 2**-23 * exact.abs().max()


def test_constant_images_have_no_variance() -> None:
    """Large constants, where squares of float32 would leave a variance larger than epsilon."""
    x = torch.full((2, 16, 16, 16), 1e6).contiguous(memory_format=LAST)
    (_, mean, rstd), ours = compiled(lambda x: torch.native_group_norm(x, None, None, 2, 16, 256, 4, 1e-5), x)
    assert ours
    torch.testing.assert_close(mean, torch.full((2, 4), 1e6), rtol=0, atol=0)
    torch.testing.assert_close(rstd, torch.full((2, 4), 1e-5).rsqrt())


def test_infinities_and_nan_stay_in_their_groups() -> None:
    x = last(2, 16, 8, 8)
    x[0, 3, 0, 0], x[1, 15, 7, 7], x[1, 0, 2, 2] = torch.inf, -torch.inf, torch.nan
    found, ours = compiled(lambda x: F.group_norm(x, 4), x)
    assert ours
    torch.testing.assert_close(found, F.group_norm(x, 4), equal_nan=True)


def test_results_of_convolutions_and_what_is_computed_of_them() -> None:
    """Their layout is chosen by Inductor, with channels last; of bf16, too."""

    def block(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        first = F.conv2d(x, w, padding=1)
        second = F.group_norm(first, 4) + first
        return F.group_norm(second, 8)

    for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        x, w = torch.randn(2, 16, 9, 9).to(dtype), torch.randn(16, 16, 3, 3).to(dtype)
        found, ours = compiled(block, x, w)
        assert ours
        assert (found.double() - block(x.double(), w.double())).abs().max() <= limit


def test_gradients() -> None:
    x, w, b = last(2, 16, 9, 8), torch.randn(16), torch.randn(16)
    results = []
    for function in (norm(4), torch.compile(norm(4), backend="torchport", dynamic=False)):
        torch._dynamo.reset()
        args = [one.clone().requires_grad_() for one in (x, w, b)]
        function(*args).square().sum().backward()
        results.append([one.grad for one in args])
    for eager, found in zip(*results, strict=True):
        torch.testing.assert_close(found, eager, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.group_norm(x.contiguous(), 4),
        lambda x: F.group_norm(x[:, :, :7, :7], 4),
        lambda x: F.group_norm(x.contiguous(memory_format=LAST).transpose(0, 1), 4),
        lambda x: torch.var_mean(x.view(16, 4, 4, -1), (2, 3), correction=0)[0],
    ],
    ids=["channels apart", "few places", "images for channels", "no norm"],
)
def test_others_are_inductors(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.randn(16, 16, 16, 16) * (1 + torch.arange(16)[:, None, None, None])
    found, _ = compiled(function, x)
    torch.testing.assert_close(found, function(x), rtol=1e-5, atol=1e-5)
