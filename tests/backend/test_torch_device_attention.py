"""Attention on the torch device of a target with memory of its own: by one kernel where that is faster."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import torchport
from torchport.ops import flash_attention
from torchport.ops.attention import flash
from torchport.ops.attention.configurations import blocks_of_lanes, lanes_of
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")


@pytest.fixture
def device() -> torch.device:
    found = torchport.device(0)
    if not lanes_of(found):
        pytest.skip("the device's program instances are no single threads with vectors")
    return found


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that attention launches."""
    names: list[str] = []

    def noting(kernel: Any, *args: Any) -> Any:
        names.append(kernel.name)
        return launch(kernel, *args)

    launch = flash.launch
    monkeypatch.setattr(flash, "launch", noting)
    return names


FUSED = ["forward_lanes_forward_lanes"]


def tensors(query: tuple[int, ...], key: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.randn(shape).to(dtype) for shape in (query, key, key)]


def close(got: torch.Tensor, host: list[torch.Tensor], **options: Any) -> None:
    """Against float64: the result of up to 200 terms of order 1 in float32, rounded once to its dtype."""
    want = scaled_dot_product_attention(*(one.double() for one in host), **options)
    error = (got.cpu().double() - want).abs()
    rounded = 0.0 if got.dtype == torch.float32 else torch.finfo(got.dtype).eps / 2
    assert (error <= 3e-6 + rounded * want.abs()).all(), error.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_sdpa_is_one_kernel(device: torch.device, launched: list[str], dtype: torch.dtype) -> None:
    """Lengths that no block divides; the same kernel for all dtypes."""
    host = tensors((2, 4, 131, 64), (2, 4, 150, 64), dtype)
    got = scaled_dot_product_attention(*(one.to(device) for one in host), is_causal=True)
    assert got.dtype == dtype
    close(got, host, is_causal=True)
    assert launched == FUSED


@pytest.mark.slow
@pytest.mark.parametrize(("size", "causal"), [(32, False), (64, False), (128, False), (128, True)])
def test_sizes_of_heads(device: torch.device, launched: list[str], size: int, causal: bool) -> None:
    """Heads that share one of keys."""
    host = tensors((1, 4, 200, size), (1, 2, 128, size))
    there = [one.to(device) for one in host]
    close(
        scaled_dot_product_attention(*there, is_causal=causal, enable_gqa=True), host, is_causal=causal, enable_gqa=True
    )
    assert launched == FUSED


def test_what_sdpa_composes(device: torch.device, launched: list[str]) -> None:
    """Few rows, and whatever has a gradient: products are faster there."""
    few = tensors((1, 2, 16, 64), (1, 2, 80, 64))
    close(scaled_dot_product_attention(*(one.to(device) for one in few)), few)
    host = tensors((1, 2, 128, 64), (1, 2, 128, 64))
    there = [one.to(device).requires_grad_() for one in host]
    here = [one.double().requires_grad_() for one in host]
    grads = torch.autograd.grad(scaled_dot_product_attention(*there).square().sum(), there)
    wanted = torch.autograd.grad(scaled_dot_product_attention(*here).square().sum(), here)
    for got, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got.cpu().double(), want, rtol=1e-4, atol=1e-5)
    assert not launched


def test_a_compiled_graph_on_the_device(device: torch.device, launched: list[str]) -> None:
    host = tensors((1, 2, 131, 64), (1, 2, 131, 64))

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(q * 1.0, k, v, is_causal=True).relu()

    compiled = torch.compile(model, backend="torchport", fullgraph=True, options={"fallback": "error"})
    with torch.no_grad():
        got = compiled(*(one.to(device) for one in host))
    want = scaled_dot_product_attention(*(one.double() for one in host), is_causal=True).relu()
    assert (got.cpu().double() - want).abs().max() <= 3e-6
    assert set(launched) == set(FUSED)  # while it is traced, more than once


def test_windows(device: torch.device, launched: list[str]) -> None:
    """Rows that see nothing give 0, and -inf as the logarithm of their sum."""
    q, k, v = tensors((1, 2, 90, 64), (1, 2, 40, 64))
    options: dict[str, Any] = {"window": (7, 3), "top_left": True, "return_lse": True}
    got = flash_attention(*(one.to(device) for one in (q, k, v)), **options)
    want = flash_attention(q, k, v, **options)
    torch.testing.assert_close(got[0].cpu(), want[0], rtol=0, atol=3e-6)
    torch.testing.assert_close(got[1].cpu(), want[1], rtol=0, atol=3e-6)
    assert torch.isneginf(want[1]).any()
    assert launched[0] == FUSED[0]


@pytest.mark.parametrize(
    ("lanes", "size", "keys"), [(16, 64, 32), (16, 128, 16), (8, 64, 16), (16, 24, 32), (4, 128, 4)]
)
def test_blocks(lanes: int, size: int, keys: int) -> None:
    blocks = blocks_of_lanes(lanes, size)
    assert blocks is not None and (blocks.rows, blocks.keys) == (lanes, keys)
    assert blocks_of_lanes(lanes, 129) is None
