"""Attention of one query: generated kernels compute it, and as exactly as one rounding allows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._inductor.utils import run_and_get_code

attention = torch.nn.functional.scaled_dot_product_attention


def compiled(function: Any, *args: Any) -> tuple[torch.Tensor, bool]:
    """The result, and whether generated kernels computed the attention."""
    torch._dynamo.reset()
    result, code = run_and_get_code(torch.compile(function, backend="torchport", dynamic=False), *args)
    return result, "aten._scaled_dot_product_flash_attention_for_cpu.default(" not in "".join(code)


def inputs(heads: int, keys: int, size: int, dtype: torch.dtype, shared: int = 1) -> list[torch.Tensor]:
    query = torch.randn(2, heads * shared, 1, size).to(dtype)
    return [query, *(torch.randn(2, heads, keys, size).to(dtype) for _ in range(2))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_masks(dtype: torch.dtype) -> None:
    """Also one under which a query sees nothing: it gets zeros."""
    tensors, seen = inputs(3, 70, 40, dtype), torch.rand(2, 1, 1, 70) < 0.7
    seen[1] = False

    def several(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        bias = torch.where(seen, 0.5, -3.0).to(q.dtype)
        found = [attention(q, k, v), attention(q, k, v, attn_mask=seen, scale=0.3), attention(q, k, v, attn_mask=bias)]
        return torch.stack(found)

    found, ours = compiled(several, *tensors, seen)
    assert ours and found.dtype == dtype and not found[1, 1].any()
    exact = several(*(one.double() for one in tensors), seen)
    eager = (several(*tensors, seen).double() - exact).abs().max()
    assert (found.double() - exact).abs().max() <= eager + torch.finfo(dtype).eps * exact.abs().max()


def test_heads_that_share_keys_and_a_mask_of_all_heads() -> None:
    q, k, v = inputs(2, 33, 64, torch.float32, shared=3)
    bias = torch.randn(1, 33)

    def shared(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        k, v = (one[:, :, None].expand(2, 2, 3, 33, 64).reshape(2, 6, 33, 64) for one in (k, v))
        return attention(q, k, v, attn_mask=bias).transpose(1, 2).reshape(2, 1, 384)

    found, ours = compiled(shared, q, k, v, bias)
    assert ours
    torch.testing.assert_close(
        found.double(), shared(q.double(), k.double(), v.double(), bias.double()), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fewer_heads_of_keys_than_of_queries(dtype: torch.dtype) -> None:
    """Queries next to each other share a head, whatever the keys' layout, and no copy of keys is made."""
    query = torch.randn(2, 6, 1, 64).to(dtype)
    k, v = (torch.randn(2, 33, 2, 64).to(dtype).transpose(1, 2) for _ in range(2))
    seen = torch.rand(2, 6, 1, 33) < 0.7

    def shared(*tensors: torch.Tensor) -> torch.Tensor:
        return attention(*tensors[:3], attn_mask=tensors[3], enable_gqa=True)

    torch._dynamo.reset()
    found, code = run_and_get_code(torch.compile(shared, backend="torchport", dynamic=False), query, k, v, seen)
    assert "flash_attention_for_cpu" not in code[0] and "(2, 6, 33, 64)" not in code[0]
    exact = shared(query.double(), k.double(), v.double(), seen)
    eager = (shared(query, k, v, seen).double() - exact).abs().max()
    assert (found.double() - exact).abs().max() <= eager + torch.finfo(dtype).eps * exact.abs().max()


def test_infinite_and_missing_numbers_go_where_atens_go() -> None:
    q, k, v = inputs(2, 20, 16, torch.float32)
    k[0, 0, 3, 2], v[0, 1, 4, 5], v[1, 0, 6, 7] = float("nan"), float("inf"), float("nan")
    found, ours = compiled(attention, q, k, v)
    assert ours
    torch.testing.assert_close(found, attention(q, k, v), equal_nan=True, rtol=1e-5, atol=1e-5)


def test_what_stays_atens() -> None:
    """Two queries; a causal mask, under which one query sees the first key alone; gradients."""
    q, k, v = inputs(2, 20, 16, torch.float32)
    for function, query in (
        (attention, q.expand(2, 2, 2, 16).contiguous()),
        (lambda *a: attention(*a, is_causal=True), q),
    ):
        found, ours = compiled(function, query, k, v)
        assert not ours
        torch.testing.assert_close(found, function(query, k, v))
    k.requires_grad_()
    found, ours = compiled(attention, q, k, v)
    assert not ours
    torch.testing.assert_close(found, attention(q, k, v))
