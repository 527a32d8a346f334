"""A linear layer of int8 activations and weights with a scale a row: sums of integers, which are exact.

Few rows, as in generation, are bound by reading the weight: each output is one sum over its row. More go through
``tl.dot`` on tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.layout import rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, define
from torchport.ops.written.quantized_linear import multiply

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "int8_linear"]

_MOST = 1 << 17
"""Terms of a sum: 127 * 127 times as many are below 2**31."""


@Kernel
def _one_by_one(q, factors, weight, scales, bias, out, q_row, weight_row, n, k, TERMS: tl.constexpr):  # type: ignore[no-untyped-def]
    """One element of the result."""
    column, row = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    total = tl.zeros((TERMS,), tl.int32)
    for start in range(0, k, TERMS):
        i = start + tl.arange(0, TERMS)
        left = tl.load(q + row * q_row + i, i < k, 0).to(tl.int32)
        total += left * tl.load(weight + column * weight_row + i, i < k, 0).to(tl.int32)
    found = tl.sum(total).to(tl.float32) * tl.load(factors + row) * tl.load(scales + column)
    if bias is not None:
        found += tl.load(bias + column).to(tl.float32)
    tl.store(out + row * n + column, found.to(out.dtype.element_ty))


@Kernel
def _by_tiles(q, factors, weight, scales, bias, out, q_row, weight_row, m, n, k,  # type: ignore[no-untyped-def]
              ROWS: tl.constexpr, COLUMNS: tl.constexpr, TERMS: tl.constexpr):  # fmt: skip
    columns = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, k, TERMS):
        i = start + tl.arange(0, TERMS)
        left = tl.load(q + rows[:, None] * q_row + i[None, :], (rows[:, None] < m) & (i[None, :] < k), 0)
        right = tl.load(
            weight + columns[:, None] * weight_row + i[None, :], (columns[:, None] < n) & (i[None, :] < k), 0
        )
        total = tl.dot(left, tl.trans(right), total, out_dtype=tl.int32)
    factor = tl.load(factors + rows, rows < m, 0.0)[:, None] * tl.load(scales + columns, columns < n, 0.0)[None, :]
    found = total.to(tl.float32) * factor
    if bias is not None:
        found += tl.load(bias + columns, columns < n, 0.0).to(tl.float32)[None, :]
    at = out + rows[:, None] * n + columns[None, :]
    tl.store(at, found.to(out.dtype.element_ty), (rows[:, None] < m) & (columns[None, :] < n))


def _product(
    q: torch.Tensor,
    factors: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    if q.dtype != torch.int8 or weight.dtype != torch.int8 or dtype not in FLOATS:
        raise ValueError(f"int8_linear: {q.dtype} times {weight.dtype} in {dtype}; they must be int8, in a float type")
    if weight.dim() != 2 or q.dim() == 0 or q.shape[-1] != weight.shape[1] or q.shape[-1] > _MOST:
        raise ValueError(
            f"int8_linear: q has shape {tuple(q.shape)}, weight {tuple(weight.shape)}; they must be [..., in] and "
            f"[out, in], with at most {_MOST} in"
        )
    if factors.shape != q.shape[:-1] or scales.shape != weight.shape[:1]:
        raise ValueError(
            f"int8_linear: factors have shape {tuple(factors.shape)}, scales {tuple(scales.shape)}; they must be "
            f"{tuple(q.shape[:-1])} and {tuple(weight.shape[:1])}: one a row"
        )
    left, right = rows_of(q), rows_of(weight)
    (m, k), n = left.shape, weight.shape[0]
    out = torch.empty((*q.shape[:-1], n), dtype=dtype, device=q.device)
    numbers = [each.to(torch.float32).contiguous() for each in (factors, scales)]
    shift = bias.contiguous() if bias is not None else None
    tensors = left, numbers[0], right, numbers[1], shift, out, left.stride(0), right.stride(0)
    multiply(_one_by_one, _by_tiles, tensors, m, n, k)
    return out


_SCHEMA = "(Tensor q, Tensor factors, Tensor weight, Tensor scales, Tensor? bias, ScalarType dtype) -> Tensor"
_call = define("int8_linear", _SCHEMA, _product)


def int8_linear(
    q: torch.Tensor,
    factors: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """linear(q * factors, weight * scales, bias) in ``dtype``; int8 and scales from ``quantize`` of both.

    q: [..., in], int8; factors: [...]; weight: [out, in], int8; scales: [out]; bias: [out]. Sums are exact in int32,
    for at most 131,072 in.
    """
    result: torch.Tensor = _call(q, factors, weight, scales, bias, dtype)
    return result


def _reference(
    q: torch.Tensor,
    factors: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    product = torch.nn.functional.linear(q.double(), weight.double()) * factors.unsqueeze(-1) * scales
    return product if bias is None else product + bias


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """A sum above 2^24 is rounded once, then two products, and the sum with the bias."""
    q, factors, weight, scales, bias, dtype = args
    product = _reference(q, factors, weight, scales, None, dtype).abs()
    return (product * 5 + (0 if bias is None else bias.abs() * 2),)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def rows(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randint(-127, 128, shape, dtype=torch.int8), torch.rand(shape[:-1]) / 100

    def normal(n: int) -> torch.Tensor:
        return torch.randn(n).to(dtype)

    for count in (1, 3, 17):
        yield Sample(f"{count} rows", (*rows(count, 131), *rows(67, 131), normal(67), dtype))
    yield Sample("no bias", (*rows(2, 3, 300), *rows(33, 300), None, dtype))
    yield Sample("no rows", (*rows(0, 8), *rows(5, 8), None, dtype))
    yield Sample("one vector", (*rows(24), *rows(5, 24), normal(5), dtype))
    large = torch.full((6, 5000), 127, dtype=torch.int8)
    yield Sample("large sums", (large, torch.rand(6), large, torch.rand(6), None, dtype))
    (q, factors), (weight, _) = rows(24, 7), rows(24, 40)
    yield Sample("transposed", (q.t(), torch.rand(7), weight.t(), torch.rand(40), None, dtype))
    yield Sample("expanded", (q[:1].expand(9, 7), factors[:1].expand(9), *rows(5, 7), None, dtype))


OPERATORS = (
    Operator(
        name="int8_linear",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=(),
        source="written",
        call=int8_linear,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="A linear layer of int8 activations and weights",
    ),
)
