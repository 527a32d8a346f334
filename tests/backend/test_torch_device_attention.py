"""Attention on the torch device of a target with memory of its own: by one kernel where that is faster."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import torchport
from torchport.ops import flash_attention
from torchport.ops.attention import gradients, launches
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

    launch = launches.launch
    monkeypatch.setattr(launches, "launch", noting)
    monkeypatch.setattr(gradients, "launch", noting)
    return names


FUSED = ["forward_lanes_forward_lanes"]
GRADIENTS = ["backward_delta", "backward_lanes_by_columns_lanes", "backward_lanes_by_rows_lanes"]


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
    """Few rows, dropout, sizes that were not measured: products."""
    few = tensors((1, 2, 16, 64), (1, 2, 80, 64))
    close(scaled_dot_product_attention(*(one.to(device) for one in few)), few)
    odd = tensors((1, 2, 80, 40), (1, 2, 80, 40))
    close(scaled_dot_product_attention(*(one.to(device) for one in odd)), odd)
    there = [one.to(device) for one in tensors((1, 2, 80, 64), (1, 2, 80, 64))]
    assert scaled_dot_product_attention(*there, dropout_p=0.5).shape == (1, 2, 80, 64)
    assert not launched


def masks(length: int, keys: int) -> dict[str, torch.Tensor]:
    """By what is in them. The first row of the boolean ones sees nothing."""
    seen = torch.rand(2, 1, length, keys) < 0.7
    seen[:, :, 0] = False
    added = torch.randn(2, 4, length, keys)
    added[0, 1, 5] = -torch.inf
    return {
        "seen": seen,
        "padding": (torch.arange(keys) < keys - 9)[None],
        "added": added,
        "one for all": torch.randn(length, keys).t().contiguous().t(),
        "narrow": torch.randn(1, 4, length, keys).to(torch.bfloat16),
    }


SLOW = pytest.mark.slow  # a driver compiles kernels for seconds


@pytest.mark.parametrize(
    "name", ["seen", "added", *(pytest.param(name, marks=SLOW) for name in ("padding", "one for all", "narrow"))]
)
def test_masks(device: torch.device, launched: list[str], name: str) -> None:
    host = tensors((2, 4, 70, 32), (2, 4, 131, 32))
    mask = masks(70, 131)[name]
    got = scaled_dot_product_attention(*(one.to(device) for one in host), attn_mask=mask.to(device))
    close(got, host, attn_mask=mask if mask.dtype == torch.bool else mask.double())
    assert launched == FUSED


@pytest.mark.parametrize(
    "name", ["causal", "added", *(pytest.param(name, marks=SLOW) for name in ("shared", "seen", "large"))]
)
def test_gradients(device: torch.device, launched: list[str], name: str) -> None:
    """Two kernels, whose results are the same bits in a second run; that of a mask, too."""
    size, owners = (128 if name == "large" else 32), (2 if name == "shared" else 4)
    host = tensors((2, 4, 70, size), (2, owners, 97, size))
    options: dict[str, Any] = {"is_causal": name in ("causal", "large"), "enable_gqa": owners == 2}
    mask = masks(70, 97).get(name)
    given = torch.randn(2, 4, 70, size)

    def grads(convert: Any) -> tuple[torch.Tensor, ...]:
        inputs = [convert(one).requires_grad_() for one in host]
        kwargs = dict(options)
        if mask is not None:
            kwargs["attn_mask"] = mask.to(inputs[0].device) if mask.dtype == torch.bool else convert(mask)
            if mask.dtype != torch.bool:
                inputs.append(kwargs["attn_mask"].requires_grad_())
        return torch.autograd.grad(scaled_dot_product_attention(*inputs[:3], **kwargs), inputs, convert(given))

    first, wanted = grads(lambda one: one.to(device)), grads(torch.Tensor.double)
    assert launched == FUSED + GRADIENTS
    for got, again, want in zip(first, grads(lambda one: one.to(device)), wanted, strict=True):
        assert torch.equal(got.cpu(), again.cpu())
        assert torch.isfinite(want).all()
        # Sums of at most 4 heads * 97 terms of order 1, errors of scores times these.
        assert (got.cpu().double() - want).abs().max() <= 2e-6 * max(1.0, float(want.abs().max()))


@SLOW
@pytest.mark.parametrize("options", [{"window": (7, 3)}, {"softcap": 3.0, "causal": True}], ids=["window", "softcap"])
def test_gradients_of_flash_attention(device: torch.device, launched: list[str], options: dict[str, Any]) -> None:
    """Against the kernels of the CPU."""
    host = [*tensors((1, 4, 40, 64), (1, 2, 70, 64)), torch.randn(1, 4, 40, 64)]

    def grads(place: Any) -> tuple[torch.Tensor, ...]:
        inputs = [one.to(place).requires_grad_() for one in host[:3]]
        out, sums = flash_attention(*inputs, return_lse=True, **options)
        finite = torch.where(sums == -torch.inf, 0.0, sums)
        return torch.autograd.grad((out * host[3].to(place)).sum() + finite.sum(), inputs)

    first, wanted = grads(device), grads("cpu")
    assert launched[1:4] == GRADIENTS
    for got, want in zip(first, wanted, strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-5, atol=4e-6)


@SLOW
def test_rows_under_a_mask_of_large_numbers(device: torch.device) -> None:
    """As on the CPU (test_attention_gradients.py)."""
    host = [*tensors((1, 2, 70, 32), (1, 2, 97, 32)), torch.randn(1, 2, 70, 32)]
    seen = torch.rand(70, 97) < 0.5
    seen[[3, 69]] = False
    mask = torch.where(seen, 0.0, -1e9)

    def grads(place: Any) -> tuple[torch.Tensor, ...]:
        inputs = [one.to(place).requires_grad_() for one in host[:3]]
        out = flash_attention(*inputs, bias=mask.to(place))
        return torch.autograd.grad(out, inputs, host[3].to(place))

    for got, want in zip(grads(device), grads("cpu"), strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-5, atol=4e-6)


@SLOW
def test_gradients_of_packed_sequences(device: torch.device, launched: list[str]) -> None:
    """One of them empty."""
    host = [torch.randn(90, heads, 32) for heads in (4, 2, 2, 4)]
    starts = torch.tensor([0, 41, 41, 90], dtype=torch.int32)

    def grads(place: Any) -> tuple[torch.Tensor, ...]:
        q, k, v = inputs = [one.to(place).requires_grad_() for one in host[:3]]
        there = starts.to(place)
        out = flash_attention(q, k, v, causal=True, cu_seqlens_q=there, cu_seqlens_k=there)
        return torch.autograd.grad(out, inputs, host[3].to(place))

    for got, want in zip(grads(device), grads("cpu"), strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-5, atol=4e-6)
    assert launched[1:4] == GRADIENTS


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


@pytest.mark.parametrize("masked", [False, pytest.param(True, marks=SLOW)])
def test_training_a_compiled_graph_on_the_device(device: torch.device, launched: list[str], masked: bool) -> None:
    host = tensors((1, 2, 70, 32), (1, 2, 70, 32))
    mask = (torch.rand(70, 70) < 0.7) if masked else None

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return scaled_dot_product_attention(q * 1.0, k, v, attn_mask=mask, is_causal=mask is None).sin()

    compiled = torch.compile(model, backend="torchport", fullgraph=True, options={"fallback": "error"})
    there = [one.to(device).requires_grad_() for one in host]
    here = [one.double().requires_grad_() for one in host]
    got = torch.autograd.grad(compiled(*there, None if mask is None else mask.to(device)).sum(), there)
    want = torch.autograd.grad(model(*here, mask).sum(), here)
    for one, other in zip(got, want, strict=True):
        assert (one.cpu().double() - other).abs().max() <= 2e-6 * max(1.0, float(other.abs().max()))
    assert set(launched) == {*FUSED, *GRADIENTS}


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
