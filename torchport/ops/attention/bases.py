"""Weights of rows whose scores are far from 0, as under a mask that adds -1e9 to all of them.

The logarithm of such a row's sum has no bits left for the sum itself: -1e9 + log(300) is -1e9 in float32, and weights
that follow from it are 300 times too large. So backward passes take two numbers a row where there is such a mask: the
largest score, and the logarithm of the sum of what is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchport.ops.attention.backward import sums_of
from torchport.ops.attention.blocks import (
    key_span,
    load_rows,
    nothing_seen,
    one_head,
    online,
    scores_of,
    sequence,
)
from torchport.ops.attention.call import Call, Optional
from torchport.ops.attention.configurations import lanes_of
from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["bases_of"]


@Kernel
def bases(query, key, bias, sinks, slopes, query_starts, key_starts, sums, base, rest,  # type: ignore[no-untyped-def]
          q_batch, q_head, q_row, k_batch, k_head, k_row, b_batch, b_head, b_row, b_column,
          slope_batch, heads, group, length, keys, left, right, scale, cap,
          SIZE: tl.constexpr, CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, TOP_LEFT: tl.constexpr,
          BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, TURNED: tl.constexpr):  # fmt: skip
    """base and rest, [tokens, heads], in powers of two: base + rest is the logarithm of a row's sum.

    rest is 0 where ``sums`` has enough bits: up to 128, whose last bit is a 65,536th. TURNED: blocks of scores are
    [keys, rows]. Grid: blocks of rows, heads, batch.
    """
    scale = tl.cast(scale, tl.float32)
    cap = tl.cast(cap, tl.float32)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    token, length = sequence(query_starts, batch, length)
    first = tl.program_id(0) * BLOCK_M
    if first < length:
        rows = first + tl.arange(0, BLOCK_M)
        start = token * heads + head
        known = sums_of(sums + start, rows, heads, length)
        far = tl.abs(known) > 128.0
        highest, total = nothing_seen(sinks, head, BLOCK_M)
        if tl.max(far.to(tl.int32), 0) > 0:
            query = one_head(query, query_starts, batch, head, token, q_batch, q_head, q_row)
            key_token, keys = sequence(key_starts, batch, keys)
            key = one_head(key, key_starts, batch, head // group, key_token, k_batch, k_head, k_row)
            shift = 0 if TOP_LEFT else keys - length
            bias += batch * b_batch + head.to(tl.int64) * b_head
            slope = None
            if slopes is not None:
                slope = tl.load(slopes + batch * slope_batch + head)
            wanted = load_rows(query, rows, q_row, length, SIZE, BLOCK_D)
            begin, end = key_span(first, BLOCK_M, length, keys, shift, left, right, LEFT, RIGHT)
            for at in range(begin // BLOCK_N * BLOCK_N, end, BLOCK_N):
                columns = at + tl.arange(0, BLOCK_N)
                block = load_rows(key, columns, k_row, keys, SIZE, BLOCK_D)
                if TURNED:
                    product = tl.dot(block, tl.trans(wanted), input_precision="ieee")
                    scores, _ = scores_of(product, rows[None, :], columns[:, None], bias, slope, length, keys, shift,
                                          left, right, scale, cap, b_row, b_column, CAPPED, LEFT, RIGHT)  # fmt: skip
                    _, highest, total, _ = online(scores, highest, total, 0)
                else:
                    product = tl.dot(wanted, tl.trans(block), input_precision="ieee")
                    scores, _ = scores_of(product, rows[:, None], columns[None, :], bias, slope, length, keys, shift,
                                          left, right, scale, cap, b_row, b_column, CAPPED, LEFT, RIGHT)  # fmt: skip
                    _, highest, total, _ = online(scores, highest, total)
        at = rows.to(tl.int64) * heads + start
        far = far & (highest != float("-inf"))
        tl.store(base + at, tl.where(far, highest, known), rows < length)
        tl.store(rest + at, tl.where(far, tl.log2(tl.where(far, total, 1.0)), 0.0), rows < length)


def bases_of(call: Call, sums: torch.Tensor) -> tuple[torch.Tensor, Optional]:
    """What backward passes take weights from, [tokens, heads]: ``sums`` and None, or ``base`` and ``rest``.

    sums: logarithms of the rows' sums, [tokens, heads].
    """
    if call.bias is None or call.bias.dtype == torch.bool:
        return sums, None
    base, rest = torch.empty_like(sums), torch.empty_like(sums)
    blocks = call.blocks("totals")
    args = (
        call.query, call.key, call.bias, call.sinks, call.slopes, call.query_starts, call.key_starts, sums, base, rest,
        *call.strides(call.query), *call.strides(call.key), *call.bias_strides(), *call.sizes(), *call.window(),
        *call.scaling(),
    )  # fmt: skip
    shape = {name: value for name, value in call.shape().items() if name not in ("VSIZE", "DROPS", "BLOCK_V")}
    turned = {"TURNED": bool(lanes_of(sums.device))}
    grid = -(-call.length // blocks.rows), call.heads, call.batch
    launch(bases, grid, args, shape | blocks.constants() | turned, blocks.tuning())
    return base, rest
