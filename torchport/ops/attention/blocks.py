"""What the attention kernels share: blocks of rows, scores, the running softmax, dropout.

Scores are in powers of two (natural scores times log2(e)), so that weights are ``exp2`` of them. ``rows`` and
``columns`` broadcast against each other, so that scores may be transposed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.ops.kernel import Kernel

if TYPE_CHECKING:
    import triton.language as tl

__all__ = [
    "banded",
    "kept",
    "key_span",
    "load_rows",
    "nothing_seen",
    "one_head",
    "online",
    "row_span",
    "scores_of",
    "sequence",
    "store_rows",
    "weights_of",
    "whole_keys",
]


@Kernel
def sequence(starts, batch, length):  # type: ignore[no-untyped-def]
    """The first token and the length of a sequence: packed ones have ``starts``, others are ``length`` long."""
    first = batch * length
    count = length
    if starts is not None:
        first = tl.load(starts + batch).to(tl.int64)
        count = (tl.load(starts + batch + 1).to(tl.int64) - first).to(tl.int32)
    return first, count


@Kernel
def one_head(tensor, starts, batch, head, first, batch_stride, head_stride, row_stride):  # type: ignore[no-untyped-def]
    """Where the rows of a head of a sequence begin."""
    at = tensor + head.to(tl.int64) * head_stride
    if starts is not None:
        at += first * row_stride
    else:
        at += batch * batch_stride
    return at


@Kernel
def nothing_seen(sinks, head, ROWS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The running maximum and sum before any key: of nothing, or of the head's sink."""
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    if sinks is not None:
        sink = tl.load(sinks + head).to(tl.float32) * 1.4426950408889634
        highest = tl.zeros((ROWS,), tl.float32) + sink
        total += tl.where(sink == float("-inf"), 0.0, 1.0)
    return highest, total


@Kernel
def load_rows(start, rows, stride, count, SIZE: tl.constexpr, BLOCK: tl.constexpr,  # type: ignore[no-untyped-def]
              WHOLE: tl.constexpr = False):  # fmt: skip
    """Rows of a matrix at ``start`` that has ``count`` of them with SIZE elements each: [rows, BLOCK], 0 outside.

    WHOLE: all rows are inside. 8-bit floats become bfloat16, which holds them exactly.
    """
    lane = tl.arange(0, BLOCK)
    at = start + rows.to(tl.int64)[:, None] * stride + lane[None, :]
    if WHOLE and SIZE == BLOCK:
        block = tl.load(at)
    elif WHOLE:
        block = tl.load(at, lane[None, :] < SIZE, 0.0)
    elif SIZE == BLOCK:
        block = tl.load(at, rows[:, None] < count, 0.0)
    else:
        block = tl.load(at, (rows[:, None] < count) & (lane[None, :] < SIZE), 0.0)
    if block.dtype.primitive_bitwidth == 8:
        block = block.to(tl.bfloat16)
    return block


@Kernel
def store_rows(start, rows, stride, count, block, SIZE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """``block`` into rows of a matrix, rounded to its dtype; see ``load_rows``."""
    lane = tl.arange(0, BLOCK)
    inside = rows[:, None] < count
    if SIZE != BLOCK:
        inside = inside & (lane[None, :] < SIZE)
    tl.store(start + rows.to(tl.int64)[:, None] * stride + lane[None, :], block.to(start.dtype.element_ty), inside)


@Kernel
def key_span(first, count, length, keys, shift, left, right, LEFT: tl.constexpr, RIGHT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first key that one of ``count`` rows from ``first`` on may see, and one behind the last."""
    start = 0
    end = keys
    if LEFT:
        start = tl.maximum(0, first + shift - left)
    if RIGHT:
        end = tl.maximum(0, tl.minimum(keys, tl.minimum(first + count, length) + shift + right))
    return start, end


@Kernel
def whole_keys(first, count, begin, end, keys, shift, left, right,  # type: ignore[no-untyped-def]
               LEFT: tl.constexpr, RIGHT: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Of the keys from ``begin`` to ``end``, those that all of ``count`` rows see, in whole blocks: first and end."""
    start = begin
    stop = keys
    if LEFT:
        start = tl.maximum(begin, (first + count - 1 + shift - left + BLOCK - 1) // BLOCK * BLOCK)
    if RIGHT:
        stop = tl.minimum(keys, first + shift + right + 1)
    start = tl.minimum(start, end)
    return start, tl.maximum(start, stop // BLOCK * BLOCK)


@Kernel
def row_span(first, count, length, shift, left, right, LEFT: tl.constexpr, RIGHT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first row that may see one of ``count`` keys from ``first`` on, and one behind the last."""
    start = 0
    end = length
    if RIGHT:
        start = tl.maximum(0, first - shift - right)
    if LEFT:
        end = tl.maximum(0, tl.minimum(length, first + count - shift + left))
    return start, end


@Kernel
def scores_of(product, rows, columns, bias, slope, length, keys, shift, left, right, scale, cap,  # type: ignore[no-untyped-def]
              bias_row, bias_column, CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
              WHOLE: tl.constexpr = False):  # fmt: skip
    """Scores from ``product``, queries times keys: scaled, capped, with a bias, -inf where nothing is to be seen.

    Returns them, and the tangent of capped scores (``product`` if they are not capped).

    scale: of the product; with a cap, scale / cap, else times log2(e). cap: times log2(e).
    bias: at the head's first element, or None; a block of booleans says what is to be seen.
    slope: ALiBi's, or None: takes slope * |row + shift - column| from natural scores.
    shift, left, right: row m sees columns from m + shift - left to m + shift + right.
    WHOLE: every row sees every column, but for a bias of booleans.
    """
    bent = product
    if CAPPED:
        bent = tl.extra.libdevice.tanh(product * scale)
        found = bent * cap
    else:
        found = product * scale
    if slope is not None:
        found -= (slope * 1.4426950408889634) * tl.abs(rows + shift - columns).to(tl.float32)
    if bias is not None:
        at = bias + rows.to(tl.int64) * bias_row + columns.to(tl.int64) * bias_column
        inside = (rows < length) & (columns < keys)
        if bias.dtype.element_ty == tl.int1:
            found = tl.where(tl.load(at, inside, 0), found, float("-inf"))
        else:
            more = tl.load(at, inside, 0.0).to(tl.float32)
            scaled = more * 1.4426950408889634
            # The least float stands for -inf in masks, but a row of it alone is a row of equal scores.
            found += tl.where((scaled == float("-inf")) & (more != float("-inf")), -3.0e38, scaled)
    if not WHOLE:
        found = banded(found, rows, columns, length, keys, shift, left, right, LEFT, RIGHT)
    return found, bent


@Kernel
def banded(scores, rows, columns, length, keys, shift, left, right,  # type: ignore[no-untyped-def]
            LEFT: tl.constexpr, RIGHT: tl.constexpr):  # fmt: skip
    """``scores``, -inf where a row does not see a key, or where there is no such row or key."""
    inside = (rows < length) & (columns < keys)
    if LEFT:
        inside = inside & (columns >= rows + shift - left)
    if RIGHT:
        inside = inside & (columns <= rows + shift + right)
    return tl.where(inside, scores, float("-inf"))


@Kernel
def weights_of(shifted):  # type: ignore[no-untyped-def]
    """Powers of two; 0 below the least normal number, as on GPUs.

    Beside a weight of 1 that is not seen, and on a CPU each operation on a denormal number takes 150 cycles.
    """
    return tl.exp2(tl.where(shifted < -126.0, float("-inf"), shifted))


@Kernel
def online(scores, highest, total, AXIS: tl.constexpr = 1):  # type: ignore[no-untyped-def]
    """Weights of a block of scores, and the running maximum and sum with it, and how sums so far shrink.

    AXIS: that of the keys. The softmax of Milakov and Gimelshein (arXiv 1805.02867), as FlashAttention uses it (Dao,
    arXiv 2307.08691).
    """
    now = tl.maximum(highest, tl.max(scores, AXIS))
    base = tl.where(now == float("-inf"), 0.0, now)  # nothing seen yet: no -inf - -inf
    weights = weights_of(scores - tl.expand_dims(base, AXIS))
    shrunk = tl.exp2(highest - base)
    return weights, now, total * shrunk + tl.sum(weights, AXIS), shrunk


@Kernel
def kept(weights, rows, columns, head, seed, dropout):  # type: ignore[no-untyped-def]
    """``weights`` / (1 - dropout) where a Philox number of (column, row, head) says so, else 0.

    seed: one int64, the key. Numbers are the same on all targets.

    Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011): Philox 4x32-10.
    """
    zero = tl.zeros_like(weights).to(tl.uint32)
    across, down = zero + columns.to(tl.uint32), zero + rows.to(tl.uint32)
    number, _, _, _ = tl.philox(tl.load(seed), across, down, zero + head.to(tl.uint32), zero)
    return tl.where(tl.uint_to_uniform_float(number) >= dropout, weights * (1.0 / (1.0 - dropout)), 0.0)
