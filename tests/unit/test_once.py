"""Functions of small tensors that larger ones read are computed once, where that saves work and changes no bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch._inductor.utils import run_and_get_code

from torchport.inductor import session


def kernels(function: Callable[..., Any], *args: torch.Tensor) -> tuple[torch.Tensor, list[str]]:
    """The result, and the source of each kernel."""
    torch._dynamo.reset()
    with torch._inductor.config.patch(force_disable_caches=True):
        result, code = run_and_get_code(torch.compile(function, backend="torchport", dynamic=False), *args)
    return result, [part.split("'''")[0] for part in "".join(code).split("@triton.jit")[1:]]


def norm(x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    return torch.relu(torch.nn.functional.batch_norm(x, mean, variance))


def scaled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(y + 0.5)[:, None, None]


ONCE = {
    "norm": (norm, [torch.randn(2, 32, 24, 24), torch.randn(32), torch.rand(32) + 0.5], "tl.sqrt_rn("),
    "scale": (scaled, [torch.randn(2, 32, 24, 24), torch.rand(32)], "libdevice.rsqrt("),
}

SIZES = ("576", "1152", "18432", "36864")
"""Of the images: what a kernel over pixels has in its text, and one over channels has not."""


@pytest.mark.parametrize("name", ONCE)
def test_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, args, call = ONCE[name]
    found, sources = kernels(function, *args)
    (source,) = [source for source in sources if call in source]
    assert sum(size in source for size in SIZES) == 0
    monkeypatch.setattr(session, "_AFTER", {})
    again, sources = kernels(function, *args)
    (source,) = [source for source in sources if call in source]
    assert sum(size in source for size in SIZES) > 0
    assert torch.equal(found, again)


def layer_norm(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:])


INLINE = {
    "it comes from a reduction of the same kernel": (layer_norm, [torch.randn(64, 1024)]),
    "it would be rounded": (
        lambda x, y: x * torch.rsqrt(y),
        [torch.randn(64, 1024).bfloat16(), torch.rand(1024).bfloat16()],
    ),
    "little is saved": (lambda x, y: x * torch.rsqrt(y), [torch.randn(64, 64), torch.rand(64)]),
    "nothing is larger": (lambda x, y: x * torch.rsqrt(y), [torch.randn(64, 1024), torch.rand(64, 1024)]),
}


@pytest.mark.parametrize("name", INLINE)
def test_what_stays_in_one_kernel(name: str) -> None:
    function, args = INLINE[name]
    found, sources = kernels(function, *args)
    assert len(sources) == 1
    torch.testing.assert_close(found, function(*args))
