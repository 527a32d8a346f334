"""Quantization of rows to int8 or 8-bit floats, with a scale each, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import block_for, row_block, rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "dequantize", "quantize"]

_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@Kernel
def _quantize(x, q, scales, x_row, n, LIMIT: tl.constexpr, WHOLE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row: scale = max |x| / LIMIT (1 for a row of zeros), q = x / scale, rounded to nearest, ties to even."""
    row = tl.program_id(0).to(tl.int64)
    x += row * x_row
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.abs(tl.load(x + i, i < n, 0.0).to(tl.float32))
        largest = tl.maximum(largest, value, propagate_nan=tl.PropagateNan.ALL)
    broken = tl.sum(tl.where(largest == largest, 0, 1)) > 0
    top = tl.where(broken, float("nan"), tl.max(largest))
    scale = tl.where(top == 0.0, 1.0, top / LIMIT)
    tl.store(scales + row, scale)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.load(x + i, i < n, 0.0).to(tl.float32) / scale
        value = tl.where(value > LIMIT, LIMIT, tl.where(value < -LIMIT, -LIMIT, value))
        if WHOLE:
            value = (value + 12582912.0) - 12582912.0  # 1.5 * 2^23: what is behind the point is rounded away
        tl.store(q + row * n + i, value.to(q.dtype.element_ty), i < n)


@Kernel
def _dequantize(q, scales, x, q_row, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(q + row * q_row + i, i < n, 0.0).to(tl.float32) * tl.load(scales + row).to(tl.float32)
    tl.store(x + row * n + i, value.to(x.dtype.element_ty), i < n)


def _to_rows(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    if x.dim() == 0 or dtype not in _LARGEST:
        raise ValueError(
            f"quantize: x has {x.dim()} dimensions, at least 1 needed; {dtype} is not int8 or float8_e4m3fn"
        )
    matrix, n = rows_of(x), x.shape[-1]
    q = torch.empty(x.shape, dtype=dtype, device=x.device)
    scales = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    constants = {"LIMIT": _LARGEST[dtype], "WHOLE": dtype == torch.int8, "BLOCK": row_block(matrix)}
    launch(_quantize, (matrix.shape[0], 1, 1), (matrix, q, scales, matrix.stride(0), n), constants)
    return q, scales


def _from_rows(q: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if q.dim() == 0 or scales.shape != q.shape[:-1]:
        raise ValueError(f"dequantize: scales have shape {tuple(scales.shape)}, not {tuple(q.shape[:-1])}: one a row")
    matrix, n = rows_of(q), q.shape[-1]
    x = torch.empty(q.shape, dtype=dtype, device=q.device)
    block = block_for(n)
    args = (matrix, scales.contiguous(), x, matrix.stride(0), n)
    launch(_dequantize, (-(-n // block), matrix.shape[0], 1), args, {"BLOCK": block})
    return x


_QUANTIZE = "(Tensor x, ScalarType dtype) -> (Tensor, Tensor)"
_DEQUANTIZE = "(Tensor q, Tensor scales, ScalarType dtype) -> Tensor"
_quantize_call = define("quantize", _QUANTIZE, _to_rows)
_dequantize_call = define("dequantize", _DEQUANTIZE, _from_rows)


def quantize(x: torch.Tensor, dtype: torch.dtype = torch.int8) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` [..., n] in int8 or float8_e4m3fn, and the float32 scale of each row [...]: x is about q * scale.

    A row is a token of activations, or an output channel of a weight [out, in]. The scale maps the row's largest
    magnitude to the largest number of ``dtype`` (127, 448); a row of zeros has scale 1.
    """
    result: tuple[torch.Tensor, torch.Tensor] = _quantize_call(x, dtype)
    return result


def dequantize(q: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """q * scales in ``dtype``: of int8 or 8-bit floats [..., n] and a scale for each row [...]."""
    result: torch.Tensor = _dequantize_call(q, scales, dtype)
    return result


def _quantize_reference(x: torch.Tensor, dtype: torch.dtype) -> Tensors:
    top = x.abs().amax(-1) if x.shape[-1] else x.new_zeros(x.shape[:-1])
    scales = torch.where(top == 0, 1.0, top / _LARGEST[dtype])
    q = x / scales.unsqueeze(-1)
    return torch.round(q).clamp(-127, 127) if dtype == torch.int8 else q.clamp(-448, 448), scales


def _quantize_bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """A quotient has 3 roundings; near a tie, int8 may go either way."""
    x, dtype = args
    scales = _quantize_reference(x, dtype)[1]
    exact = x / scales.unsqueeze(-1)
    if dtype == torch.int8:
        tie = (exact.abs() % 1 - 0.5).abs() <= 4 * exact.abs() * 2.0**-24
        return torch.where(tie, 2.0**24, 0.0), scales * 2
    return exact.abs() * 4, scales * 2


def _dequantize_reference(q: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return q.double() * scales.unsqueeze(-1)


def _dequantize_bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    return (_dequantize_reference(*args).abs() * 2,)


def _quantize_samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    for to in _LARGEST:
        about = str(to).removeprefix("torch.")
        yield Sample(f"prime sizes, {about}", (normal(7, 131), to))
        yield Sample(f"three dimensions, {about}", (normal(2, 3, 40) * 100, to))
        yield Sample(f"rows longer than a block, {about}", (normal(3, 5001), to))
        yield Sample(f"zeros, {about}", (torch.zeros(3, 8, dtype=dtype), to))
        yield Sample(f"no rows, {about}", (normal(0, 16), to))
        yield Sample(f"transposed, {about}", (normal(40, 17).t(), to))
        yield Sample(f"expanded, {about}", (normal(1, 40).expand(9, 40), to))


def _dequantize_samples(dtype: torch.dtype) -> Iterator[Sample]:
    def integers(*shape: int) -> torch.Tensor:
        return torch.randint(-127, 128, shape, dtype=torch.int8)

    yield Sample("int8", (integers(7, 131), torch.rand(7), dtype))
    yield Sample("8-bit floats", ((torch.randn(2, 3, 40) * 100).to(torch.float8_e4m3fn), torch.rand(2, 3), dtype))
    yield Sample("rows longer than a block", (integers(3, 5001), torch.rand(3), dtype))
    yield Sample("no rows", (integers(0, 16), torch.rand(0), dtype))
    yield Sample("transposed", (integers(40, 17).t(), torch.rand(17), dtype))


OPERATORS = (
    Operator(
        name="quantize",
        schema=_QUANTIZE,
        dtypes=FLOATS,
        differentiable=(),
        source="written",
        call=quantize,
        reference=_quantize_reference,
        bound=_quantize_bound,
        samples=_quantize_samples,
        doc="Rows in int8 or 8-bit floats, with a scale each",
        by_rows=True,
    ),
    Operator(
        name="dequantize",
        schema=_DEQUANTIZE,
        dtypes=FLOATS,
        differentiable=(),
        source="written",
        call=dequantize,
        reference=_dequantize_reference,
        bound=_dequantize_bound,
        samples=_dequantize_samples,
        doc="Quantized rows times their scales",
        by_rows=True,
    ),
)
