"""Draws tokens from rows of logits, by temperature, top-k and top-p, without sorting them.

Which logits remain is found by bisection of the float32 numbers themselves, seen as ordered integers: 32 passes over a
row that lies in cache, where sorting moves all of it (FlashInfer samples without sorting, too: arXiv 2501.01005).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import row_block, rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "sample"]


@Kernel
def _keys(x, i, n):  # type: ignore[no-untyped-def]
    """Logits, and integers in the same order. NaN counts as -inf."""
    value = tl.load(x + i, i < n, float("-inf")).to(tl.float32)
    value = tl.where(value == value, value, float("-inf")) + 0.0  # -0 is 0
    bits = value.to(tl.int32, bitcast=True)
    return value, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@Kernel
def _above(x, weights, n, key, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """How many logits are not below ``key``; with ``weights``, the sum of those of theirs."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        _, keys = _keys(x, i, n)
        weight = 1.0 if weights is None else tl.load(weights + i, i < n, 0.0)
        total += tl.where((keys >= key.to(tl.int32)) & (i < n), weight, 0.0)
    return tl.sum(total)


@Kernel
def _threshold(x, weights, n, least, low, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The largest key of which ``_above`` is at least ``least``; ``low`` is one of them."""
    high = tl.full((), 0x80000000, tl.int64)
    while high - low > 1:
        middle = low + (high - low) // 2
        enough = _above(x, weights, n, middle, BLOCK) >= least
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    return low


@Kernel
def _draw(logits, uniform, weights, out, row_stride, n, factor, k, p, TOP_K: tl.constexpr, TOP_P: tl.constexpr,  # type: ignore[no-untyped-def]
          BLOCK: tl.constexpr):  # fmt: skip
    """One row: the first token at which the sum of the ``weights`` of those that remain exceeds its random share."""
    factor = tl.cast(factor, tl.float32)
    p = tl.cast(p, tl.float32)
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    weights += row * n
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    for start in range(0, n, BLOCK):
        value, _ = _keys(logits, start + tl.arange(0, BLOCK), n)
        highest = tl.maximum(highest, value)
    top = tl.max(highest)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value, _ = _keys(logits, i, n)
        tl.store(weights + i, tl.where(value > float("-inf"), tl.exp((value - top) * factor), 0.0), i < n)
    low = tl.full((), -0x80000000, tl.int64)
    if TOP_K:
        low = _threshold(logits, None, n, k.to(tl.float32), low, BLOCK)
    if TOP_P:
        low = _threshold(logits, weights, n, p * _above(logits, weights, n, low, BLOCK), low, BLOCK)
    wanted = tl.load(uniform + row) * _above(logits, weights, n, low, BLOCK)
    before = tl.zeros((), tl.float32)
    place = tl.full((), 0x7FFFFFFF, tl.int32)
    last = tl.zeros((), tl.int32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        _, keys = _keys(logits, i, n)
        weight = tl.where((keys >= low.to(tl.int32)) & (i < n), tl.load(weights + i, i < n, 0.0), 0.0)
        sums = before + tl.cumsum(weight, 0)
        place = tl.minimum(place, tl.min(tl.where((weight > 0.0) & (sums > wanted), i, 0x7FFFFFFF)))
        last = tl.maximum(last, tl.max(tl.where(weight > 0.0, i, 0)))
        before += tl.sum(weight)
    tl.store(out + row, tl.minimum(place, last).to(tl.int64))  # the last, where rounding leaves nothing above


def _tokens(logits: torch.Tensor, uniform: torch.Tensor, temperature: float, k: int, p: float) -> torch.Tensor:
    if logits.dim() != 2 or uniform.shape != logits.shape[:1] or logits.shape[1] == 0:
        raise ValueError(
            f"sample: logits have shape {tuple(logits.shape)}, uniform {tuple(uniform.shape)}; "
            "they must be [rows, tokens] and [rows]"
        )
    if not temperature > 0 or k < 0 or not 0 < p <= 1:
        raise ValueError(f"sample: temperature {temperature} and top_p {p} must be positive, top_k {k} not negative")
    rows, n = logits.shape
    matrix = rows_of(logits)
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    weights = torch.empty(rows, n, dtype=torch.float32, device=logits.device)
    args = (matrix, uniform.to(torch.float32).contiguous(), weights, out, matrix.stride(0), n, 1.0 / temperature, k, p)
    constants = {"TOP_K": 0 < k < n, "TOP_P": p < 1.0, "BLOCK": row_block(matrix)}
    launch(_draw, (rows, 1, 1), args, constants)
    return out


_SCHEMA = "(Tensor logits, Tensor uniform, float temperature, int top_k, float top_p) -> Tensor"
_call = define("sample", _SCHEMA, _tokens)


def sample(
    logits: torch.Tensor,
    uniform: torch.Tensor | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> torch.Tensor:
    """A token (int64) of each row of ``logits`` [rows, tokens], with the probabilities softmax(logits / temperature).

    uniform: random numbers in [0, 1), one a row; ``torch.rand`` if None. The same numbers give the same tokens.
    top_k: of the k largest logits only, and those equal to the last of them; 0 for all.
    top_p: of the fewest largest ones whose probabilities, among those that remain, sum up to at least ``top_p``.
    NaN counts as -inf.
    """
    if uniform is None:
        uniform = torch.rand(logits.shape[0], device=logits.device)
    with torch.no_grad():
        result: torch.Tensor = _call(logits, uniform, temperature, top_k, top_p)
    return result


def _reference(logits: torch.Tensor, uniform: torch.Tensor, temperature: float, k: int, p: float) -> torch.Tensor:
    kept = torch.ones_like(logits, dtype=torch.bool)
    ordered = logits.sort(dim=1, descending=True).values
    if 0 < k < logits.shape[1]:
        kept &= logits >= ordered[:, k - 1 : k]
    weights = torch.softmax((logits / temperature).masked_fill(~kept, float("-inf")), 1)
    if p < 1:
        sums = weights.gather(1, logits.sort(dim=1, descending=True).indices).cumsum(1)
        last = (sums < p).sum(1, keepdim=True).clamp(max=logits.shape[1] - 1)
        kept &= logits >= ordered.gather(1, last)
        weights = torch.where(kept, weights, 0.0)
    sums = weights.cumsum(1)
    return (sums <= uniform[:, None] * sums[:, -1:]).sum(1)


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    return (torch.zeros(args[0].shape[0]),)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def drawn(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        return (torch.randn(shape) * 3).to(dtype), torch.rand(shape[0])

    yield Sample("all", (*drawn(31, 131), 1.0, 0, 1.0))
    yield Sample("top-k", (*drawn(31, 131), 0.7, 5, 1.0))
    yield Sample("top-p", (*drawn(31, 131), 1.3, 0, 0.8))
    yield Sample("both, several blocks", (*drawn(9, 3001), 1.0, 50, 0.9))
    yield Sample("the largest", (*drawn(9, 60), 1.0, 1, 1.0))
    yield Sample("one token", (*drawn(3, 1), 1.0, 0, 1.0))
    yield Sample("no rows", (*drawn(0, 5), 1.0, 0, 1.0))
    yield Sample("transposed", (drawn(40, 17)[0].t(), torch.rand(17), 1.0, 3, 0.9))


OPERATORS = (
    Operator(
        name="sample",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=(),
        source="written",
        call=sample,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Tokens by temperature, top-k and top-p, without sorting",
        by_rows=True,
    ),
)
