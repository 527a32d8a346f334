"""Gradients of attention in bfloat16 by products of pairs (``backward_pairs``): which calls, and the launches."""

from __future__ import annotations

import functools

import torch

from torchport.ops.attention.backward_pairs import (
    LEAST_GRAD,
    LEAST_VALUE,
    LIFT,
    MOST,
    by_columns_pairs,
    deltas_pairs,
    rounded_pairs,
)
from torchport.ops.attention.bases import bases_of
from torchport.ops.attention.call import Optional, Options, call_of, in_powers_of_two, straight
from torchport.ops.attention.paired import has_pairs
from torchport.ops.launch import PLAIN, launch, runs_on_host, target_of
from torchport.ops.layout import block_for

__all__ = ["gradient_blocks", "gradients_by_pairs"]

_SCALES = 2.0**-40, 2.0**4
"""The least and the largest scale of scores that the kernel's proof is for, but 0."""
_ROWS = 64
"""Of a block of rows."""
_PROGRAMS = 8
"""Program instances that there are at least, by copies of the gradient of queries."""

_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@functools.cache
def gradient_blocks(length: int, keys: int, causal: bool) -> dict[str, int]:
    """Blocks for ``length`` rows and ``keys`` keys: whole ones, and of what these leave (measured, docs/attention.md).

    Causal: narrow blocks have fewer scores that no row sees.
    """
    block = 128 if keys >= 128 and not causal else 64
    return {
        "BLOCK_M": _ROWS,
        "REST_M": _holding(length % _ROWS, block if causal else _ROWS),
        "BLOCK_N": block,
        "REST_N": _holding(keys % block, block) if keys % block else 0,
    }


def _holding(count: int, most: int) -> int:
    """The smallest block of up to ``most`` that holds ``count``; ``most`` if there is nothing to hold."""
    return next((block for block in (16, 32, 64) if 0 < count <= block), most)


def gradients_by_pairs(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor,
    sums: torch.Tensor, mask: Optional, scale: float, causal: bool,
) -> _Three | None:  # fmt: skip
    """Gradients of query, key and value; None where they are to be exact (``backward_pairs``), or by another kernel.

    grad, query, out: [batch, heads, length, size]; key, value: [batch, owners, keys, size], all bfloat16. sums:
    [batch, heads, length], float32, logarithms of the sums of weights. mask: [batch, heads, length, keys], each may be
    1, of numbers or of booleans. causal: row m sees keys up to m.
    """
    tensors = grad, query, key, value, out
    others = (sums,) if mask is None else (sums, mask)
    if (
        any(type(one) not in PLAIN or one.device.type != "cpu" for one in (*tensors, *others))
        or any(one.dtype != torch.bfloat16 or one.dim() != 4 or not one.numel() for one in tensors)
        or len({one.shape[-1] for one in tensors}) > 1
        or not (scale == 0 or _SCALES[0] <= abs(scale) <= _SCALES[1])
        or not (runs_on_host() and has_pairs(target_of(query.device)))
    ):
        return None
    grad, query, key, value, out = (straight(one) for one in tensors)
    batch, heads, length, size = query.shape
    owners, keys = key.shape[1:3]
    sizes = {"SIZE": size, "BLOCK_D": block_for(size)}
    grid = -(-length // _ROWS), heads, batch
    deltas, base = (torch.empty((batch, heads, length), dtype=torch.float32) for _ in range(2))
    unsuited = torch.empty(grid[0] * heads * batch, dtype=torch.int32)
    strides = [stride for one in (query, grad, out) for stride in one.stride()[:3]]
    args = query, grad, out, sums, deltas, base, unsuited, *strides, *sums.stride(), heads, length
    launch(deltas_pairs, grid, args, {"LIFT": LIFT, **sizes, "BLOCK_M": _ROWS, "MOST": MOST, "LEAST": LEAST_GRAD})
    if unsuited.any():
        return None
    rest = None
    if mask is not None and mask.dtype != torch.bool:
        base, rest = _of_large_masks(query, key, value, mask, sums, scale, causal)
    blocks = gradient_blocks(length, keys, causal)
    programs = max(1, min(-(-keys // blocks["BLOCK_N"]), -(-_PROGRAMS // (owners * batch))))
    queries = torch.zeros((programs, batch, heads, length, size), dtype=torch.float32)
    grad_query = torch.empty((batch, length, heads, size), dtype=query.dtype)
    grad_key, grad_value = (torch.empty((batch, keys, owners, size), dtype=query.dtype) for _ in range(2))
    unsuited = torch.empty(programs * owners * batch, dtype=torch.int32)
    strides = [stride for one in (query, key, value, grad) for stride in one.stride()[:3]]
    of_mask = [0] * 4 if mask is None else [0 if n == 1 else s for n, s in zip(mask.shape, mask.stride(), strict=True)]
    factor = scale * 2.0**-LIFT
    args = (
        query, key, value, grad, mask, base, rest, deltas, queries, grad_key, grad_value, unsuited, *strides, *of_mask,
        heads, heads // owners, length, keys, in_powers_of_two(scale, 0.0)[0], factor,
    )  # fmt: skip
    constants = {
        "SIZE": size, "RIGHT": causal, "BLOCK_D": block_for(size), **blocks, "LIFT": LIFT, "MOST": MOST,
        "LEAST": LEAST_VALUE,
    }  # fmt: skip
    launch(by_columns_pairs, (programs, owners, batch), args, constants, pairs=True)
    if unsuited.any():
        return None
    args = queries, grad_query, heads, length, programs, queries.stride(0), factor
    launch(rounded_pairs, grid, args, {**sizes, "BLOCK_M": _ROWS})
    return grad_query.transpose(1, 2), grad_key.transpose(1, 2), grad_value.transpose(1, 2)


def _of_large_masks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, sums: torch.Tensor, scale: float,
    causal: bool,
) -> tuple[torch.Tensor, Optional]:  # fmt: skip
    """What weights under a mask of numbers follow from (``bases``), as [batch, heads, length], less LIFT."""
    options = Options(scale, 0.0, -1, 0 if causal else -1, True, 0.0)
    call = call_of(query, key, value, mask, None, None, None, None, 0, 0, options)
    base, rest = bases_of(call, call.flat(sums))
    assert rest is not None
    turned = [one.view(*query.shape[:1], query.shape[2], query.shape[1]).mT.contiguous() for one in (base, rest)]
    return turned[0], turned[1].sub_(LIFT)
