"""Which products torchport's kernels compute faster than aten, by shapes, types and the CPU's vectors alone.

Measured by tools/bench_products.py; the table is in docs/performance/products.md. float32 stays with aten where its
library is as fast (``Capabilities.fast_products``); up to three rows, that reads weights as fast as memory gives them.
On CPUs without instructions for 16-bit floats, aten's products of these take 5 to 45 times as long as those of float32,
torchport's 1.0 to 1.2 times.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torchport.inductor.compat import next_power_of_2

__all__ = [
    "FEW", "FEW_ROWS", "MOST_BATCHED", "WIDENED", "Choice", "choose", "choose_computed", "choose_integer",
    "choose_unpacked", "choose_windows", "worth_of_batches",
]  # fmt: skip

_MOST_ROWS = 16
"""Of a product whose time is that of reading the weights."""

FEW = 8
"""Rows of a product that computes its weight on the way: for more, the weight is computed once and stored."""

WIDENED = 1 << 20
"""Products of two numbers for which rows of 16-bit floats are widened once, and not for each block of columns."""

FEW_ROWS = 4
"""Rows of a matrix whose sums stay in registers, where a row of the weight is read at a time; not of batches."""

_EXACT = 512
"""Products of two bytes, one of them signed, whose sum float32 holds: 255 * 128 * 512 is less than 2^24."""

_LANES = 16
"""float32 elements of the widest vectors."""

_NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Choice:
    """A kernel of ``templates``; its block, ``rows`` by ``columns`` of the result; ``terms`` of a step of its loop.

    ``apart``: the terms of a step are added up by themselves. ``parts``: terms that steps leave, (first, how many).
    ``spread``: the columns of a block lie as far from each other as there are blocks.
    """

    kernel: str
    rows: int
    columns: int
    terms: int
    apart: bool = False
    parts: tuple[tuple[int, int], ...] = ()
    spread: bool = False


_SUMS = {8: 8, 16: 16}
"""Vectors of sums in registers, by lanes: half of the registers."""
_STREAMS = 4
"""Rows of a weight that one thread reads best at a time, where they lie far apart."""
_LARGE = 600_000
"""Weights of float32 that caches do not hold from one product to the next."""
_SMALL = 65_536
"""The same where the library is slow with few rows: less is left to it for the cost of a launch."""
_FEWER = 2
"""Rows of float32 for which reading the weights sets the time with AVX2, too."""
_TERMS = 64
_LARGE_PRODUCT = 8_000_000
"""Multiplications of one product of a batch from which ours are as fast as the library's."""
_SHORT = 1024
"""Terms up to which sums of 64 may be added to one total, and be as exact as the library's."""
_MOST = 256
"""Rows of a block of float32: packing weights takes a fortieth of the time then, and sums stay in the second cache."""
_CHANNELS = 128
"""Channels whose sums over a window of 3 x 3 are as exact as the library's, added to one total."""
_FEW, _PLACES, _NARROWEST = 1024, 4096, 64
"""Places of windows larger than 1 up to which ours win in models: of any channels; of as few as _NARROWEST."""
_WHOLE_PAIRS = 128
"""Terms of a step by pairs, with which windows over any number of places are faster than the library's."""
_FEWEST, _SHARES = 64, 4
"""Rows of a block of a convolution at least, where there are fewer blocks than that for threads to share. Blocks of
products are halved there: 256 rows by 96 columns are 3 blocks of 32 columns, of which one of two threads has 2."""
_RAGGED = 64
"""Terms beyond whole steps are at most one part of so many of all."""
MOST_BATCHED = 64
"""Rows of each of several products by pairs up to which ours are faster."""
_RESTS = 2
"""Parts of what steps leave, at most: each has its own code."""
_WASTE = 16
"""Sizes may be filled up to whole blocks by one part of so many."""
_WASTE_RAGGED = 0.6
"""Columns that may be added to these, in times of them, where ``Facts.ragged`` says so."""
_LEAST_RAGGED = 24
"""Terms of a product from which on that is faster."""
_PACKING = 12
"""Time to pack a block of weights, in rows of the block's product."""


@dataclass(frozen=True)
class Facts:
    """What decides about products of one type on one CPU.

    ``lanes``: float32 elements of a vector register. ``slow``: aten has no fast product of the type. ``fast``:
    ``tl.dot`` is faster than the library. ``pairs``: it adds up pairs of bfloat16, as the library does. ``dots``:
    ``tl.dot`` is faster for 5 to 16 rows of a 16-bit type. ``spread``: a thread reads rows of memory that lie far
    apart faster than neighbours. ``ragged``: ``tl.dot`` is faster where blocks are not full, too.
    """

    lanes: int
    slow: bool = False
    fast: bool = False
    pairs: bool = False
    dots: bool = True
    spread: bool = False
    ragged: bool = False


def choose(
    m: int, n: int, k: int, strides: tuple[int, int], dtype: torch.dtype, cpu: Facts, turned: bool = False
) -> Choice | None:
    """The kernel for [m, k] x [k, n] of ``dtype``, where the second operand has ``strides``; None for aten's product.

    ``turned``: columns of the first operand are contiguous, as in the gradient of a weight.
    """
    if min(m, n, k) <= 0 or cpu.lanes not in _SUMS or dtype not in (*_NARROW, torch.float32):
        return None
    if dtype == torch.float32:
        return _wide(m, n, k, strides, cpu, turned)
    if m <= FEW_ROWS and min(n, k) >= cpu.lanes:
        if strides[0] == 1:
            return _rows(m, k, cpu)
        if strides[1] == 1:
            return _columns(m, n, cpu.lanes)
    if cpu.pairs and (paired := _paired(m, n, k, strides, turned)) is not None:
        return paired
    if cpu.slow:
        return Choice("DOT", _block_rows(m), 64, _TERMS)
    if cpu.dots and FEW_ROWS < m <= _MOST_ROWS and strides[0] == 1 and k >= _TERMS and n >= cpu.lanes:
        return Choice("DOT", next_power_of_2(m), 32, _TERMS)
    return None


def worth_of_batches(m: int, n: int, k: int) -> bool:
    """Whether batches of products [m, k] x [k, n] of float32 are ours where products of single matrices are.

    The library's take 0.8 to 1.0 of our time for matrices as small as those of attention's heads.
    """
    return m > _MOST_ROWS and m * n * k >= _LARGE_PRODUCT


def choose_computed(m: int, lanes: int, length: int) -> Choice | None:
    """The kernel for ``m`` rows and a weight that is computed from a narrower one; None for a wide weight in memory.

    ``length``: terms that are computed alike. Few columns at a time are few streams of memory, and so many terms.
    """
    if not 0 < m <= FEW or lanes not in _SUMS:
        return None
    block: int = next_power_of_2(m)
    vectors = _SUMS[lanes] // block  # of one row's sums
    columns = 2 if m == 1 or block == 8 else 4 if lanes == 16 else 2
    across = max(1, vectors // columns)
    while across > 1 and across * lanes > length:
        across //= 2
    return Choice("COMPUTED", block, max(1, vectors // across), across * lanes)


def choose_unpacked(length: int, parts: int) -> int:
    """Terms of a step that unpacks weights of ``parts`` in a word, ``length`` of them alike: up to four vectors."""
    return min(int(next_power_of_2(length)), _LANES * 4 // parts)


def choose_integer(m: int, k: int, by_row: bool, cpu: Facts) -> Choice:
    """The kernel for ``m`` rows of 8-bit integers, multiplied as float32. Sums of 512 products are exact in that.

    On x86-64 the pass ``pair-bytes`` makes pairs of 16-bit integers of those that ``tl.dot`` adds up.

    ``by_row``: neighbours of the second operand are terms of one sum, and all sizes are known.
    """
    if by_row and m <= FEW_ROWS and cpu.lanes in _SUMS and k <= _EXACT * cpu.lanes:
        return _rows(m, k, cpu)  # each lane adds up the products of its own terms
    return Choice("DOT", _block_rows(m), 64, 256 if k % 256 == 0 else _TERMS)


def _rows(m: int, k: int, cpu: Facts) -> Choice:
    """A block of as many sums as half of the registers hold: of neighbouring columns, or of few that lie far apart."""
    block: int = next_power_of_2(m)
    vectors = _SUMS[cpu.lanes] // block
    if not cpu.spread:
        return Choice("ROWS", block, vectors, cpu.lanes)
    columns = min(vectors, _STREAMS)
    across = vectors // columns
    while across > 1 and across * cpu.lanes > k:
        across //= 2
    return Choice("ROWS", block, columns, across * cpu.lanes, spread=columns > 1)


def _columns(m: int, n: int, lanes: int) -> Choice:
    block: int = next_power_of_2(m)
    return Choice("COLUMNS", block, min(max(lanes, 16 * lanes // block), 1 << (n.bit_length() - 1)), _TERMS)


def _block_rows(m: int) -> int:
    """Rows of a block: packing weights takes as long as computing some rows, and rows beyond m are wasted."""
    return min((128, 64, 32, 16, 8), key=lambda rows: -(-m // rows) * (rows + _PACKING))


def _wide(m: int, n: int, k: int, strides: tuple[int, int], cpu: Facts, turned: bool) -> Choice | None:
    """Of float32: where weights come from memory and the library waits not for it alone, or where it is slower."""
    fewest, least = (1, _SMALL) if cpu.fast else (4, _LARGE)
    most = _MOST_ROWS if cpu.lanes >= 16 else _FEWER if cpu.fast else 0
    if m <= most and n * k >= least and min(n, k) >= cpu.lanes:
        if m >= fewest and strides[0] == 1:
            return Choice("DOT", next_power_of_2(m), 32, _TERMS) if m > 8 else _rows(m, k, cpu)
        if cpu.fast and 2 <= m <= FEW_ROWS and strides[1] == 1 and cpu.lanes >= 16:
            return _columns(m, n, cpu.lanes)
    if not cpu.fast or m <= _MOST_ROWS or 1 not in strides:
        return None
    columns = _block_columns(n, cpu.ragged)
    steps = (256, 128, 64, 32) if k > _SHORT else (64, 32)
    terms = next((terms for terms in steps if k % terms == 0), None)
    terms = terms or next((terms for terms in steps if k % terms * _RAGGED <= k), None)
    if terms is None and cpu.ragged and k >= _LEAST_RAGGED and not turned:
        terms = next((terms for terms in (*steps, 16) if terms <= k and len(_parts(k, terms)) <= _RESTS), None)
    rows: int | None = min(_MOST, next_power_of_2(m))
    if turned:  # rows of a block are read together, and must not reach beyond the last
        rows = next((rows for rows in (256, 128, 64, 32) if m % rows == 0 and k >= _TERMS), None)
    if columns is None or terms is None or rows is None:
        return None
    if rows == _MOST and not turned and -(-m // rows) * -(-n // columns) < _SHARES:
        rows //= 2
    return Choice("DOT", rows, columns, terms, k > _SHORT, _parts(k, terms))


def _paired(m: int, n: int, k: int, strides: tuple[int, int], turned: bool) -> Choice | None:
    """Of bfloat16 by pairs: in steps as long as a tile's sums stay in registers. Odd numbers of terms are masked.

    Longer ones would leave more terms to parts of their own, whose weights nothing prefetches.
    """
    columns = _block_columns(n)
    steps = [terms for terms in (128, 64, 32) if terms <= k]
    terms = next((terms for terms in steps if k % 2 or len(_parts(k, terms)) <= _RESTS), None)
    if turned or 1 not in strides or columns is None or terms is None:  # gradients of weights: 0.9 of aten's speed
        return None
    return Choice("DOT", min(_MOST, next_power_of_2(m)), columns, terms, parts=() if k % 2 else _parts(k, terms))


def choose_windows(places: int, outputs: int, channels: int, window: int, pairs: bool = False) -> Choice | None:
    """The kernel for a convolution of float32 where ``tl.dot`` is faster than the library; None for aten's.

    ``places``: of all images of the result. ``window``: elements of a channel that each of them reads. ``pairs``: the
    type is bfloat16, added up by pairs.
    """
    if min(places, outputs, channels, window) <= 0 or places <= _MOST_ROWS:
        return None
    most = _PLACES if channels <= _NARROWEST else _FEW
    if window > 1 and places > most and not (pairs and channels % _WHOLE_PAIRS == 0):
        return None
    apart = not pairs and channels > _CHANNELS and channels * window >= _SHORT
    columns = _block_columns(outputs)
    steps = (256, 128, 64, 32) if apart else (128, 64, 32) if pairs else (64, 32)
    terms = next((terms for terms in steps if channels % terms == 0), None)
    if columns is None or terms is None or (apart and window > 1 and terms < _CHANNELS):
        return None
    rows = min(_MOST, next_power_of_2(places))
    while rows > _FEWEST and -(-places // rows) * -(-outputs // columns) < _SHARES:
        rows //= 2
    return Choice("WINDOWS", rows, columns, terms, apart)


def _parts(k: int, block: int) -> tuple[tuple[int, int], ...]:
    """What blocks of ``k`` terms leave, in powers of 2: (first term, how many)."""
    found, start = [], k // block * block
    while start < k:
        terms = 1 << ((k - start).bit_length() - 1)
        found.append((start, terms))
        start += terms
    return tuple(found)


def _block_columns(n: int, ragged: bool = False) -> int | None:
    """The widest block that fills ``n`` columns; None if there is none. ``ragged``: it need not fill them."""
    full = next((columns for columns in (64, 32) if _filled(n, columns)), None)
    return full or (32 if ragged and -n % 32 <= n * _WASTE_RAGGED else None)


def _filled(size: int, block: int) -> bool:
    """Whether whole blocks are little more than ``size``."""
    return (-size % block) * _WASTE <= size
