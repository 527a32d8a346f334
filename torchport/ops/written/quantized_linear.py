"""A linear layer with weights of int8 or 8-bit floats and a scale for each output.

Few rows, as in generation, are bound by reading the weight: each output is one sum over its row. A few more go through
``tl.dot`` on tiles of the weight. Many are left to torch's product of the dequantized weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, define
from torchport.ops.written.quantize import dequantize

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "multiply", "quantized_linear"]

_FEW, _SOME = 4, 32
"""Rows that are multiplied one by one, and by tiles."""
_TERMS = 256
_TILE = {"ROWS": 16, "COLUMNS": 64, "TERMS": 64}


@Kernel
def _one_by_one(x, q, scales, bias, out, x_row, q_row, n, k, TERMS: tl.constexpr):  # type: ignore[no-untyped-def]
    """One element of the result."""
    column, row = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    total = tl.zeros((TERMS,), tl.float32)
    for start in range(0, k, TERMS):
        i = start + tl.arange(0, TERMS)
        left = tl.load(x + row * x_row + i, i < k, 0.0).to(tl.float32)
        total += left * tl.load(q + column * q_row + i, i < k, 0.0).to(tl.float32)
    found = tl.sum(total) * tl.load(scales + column)
    if bias is not None:
        found += tl.load(bias + column).to(tl.float32)
    tl.store(out + row * n + column, found.to(out.dtype.element_ty))


@Kernel
def _by_tiles(x, q, scales, bias, out, x_row, q_row, m, n, k,  # type: ignore[no-untyped-def]
              ROWS: tl.constexpr, COLUMNS: tl.constexpr, TERMS: tl.constexpr):  # fmt: skip
    columns = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, k, TERMS):
        i = start + tl.arange(0, TERMS)
        left = tl.load(x + rows[:, None] * x_row + i[None, :], (rows[:, None] < m) & (i[None, :] < k), 0.0)
        right = tl.load(q + columns[:, None] * q_row + i[None, :], (columns[:, None] < n) & (i[None, :] < k), 0.0)
        total = tl.dot(left.to(tl.float32), tl.trans(right.to(tl.float32)), total, input_precision="ieee")
    found = total * tl.load(scales + columns, columns < n, 0.0)[None, :]
    if bias is not None:
        found += tl.load(bias + columns, columns < n, 0.0).to(tl.float32)[None, :]
    at = out + rows[:, None] * n + columns[None, :]
    tl.store(at, found.to(out.dtype.element_ty), (rows[:, None] < m) & (columns[None, :] < n))


def multiply(one_by_one: Kernel, by_tiles: Kernel, tensors: tuple[Any, ...], m: int, n: int, k: int) -> None:
    """Launch the kernel for m rows of k terms and n columns: ``tensors`` are its arguments before these sizes."""
    if m <= _FEW:
        launch(one_by_one, (n, m, 1), (*tensors, n, k), {"TERMS": _TERMS})
    else:
        grid = -(-n // _TILE["COLUMNS"]), -(-m // _TILE["ROWS"]), 1
        launch(by_tiles, grid, (*tensors, m, n, k), _TILE)


def _product(x: torch.Tensor, q: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if q.dim() != 2 or x.dim() == 0 or x.shape[-1] != q.shape[1] or scales.shape != q.shape[:1]:
        raise ValueError(
            f"quantized_linear: x has shape {tuple(x.shape)}, q {tuple(q.shape)}, scales {tuple(scales.shape)}; they "
            "must be [..., in], [out, in] and [out]"
        )
    matrix, weight, factors = rows_of(x), rows_of(q), scales.to(torch.float32).contiguous()
    (m, k), n = matrix.shape, q.shape[0]
    if m > _SOME:
        found = torch.mm(matrix.to(torch.float32), dequantize(weight, factors).t())
        found = found if bias is None else found + bias
        return found.to(x.dtype).reshape(*x.shape[:-1], n)
    out = torch.empty((*x.shape[:-1], n), dtype=x.dtype, device=x.device)
    shift = bias.contiguous() if bias is not None else None
    tensors = matrix, weight, factors, shift, out, matrix.stride(0), weight.stride(0)
    multiply(_one_by_one, _by_tiles, tensors, m, n, k)
    return out


def _gradient(grad: torch.Tensor, q: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Of x, in grad's dtype."""
    rows = rows_of(grad)
    found = torch.mm(rows.to(torch.float32), dequantize(q, scales.to(torch.float32)))
    return found.to(grad.dtype).reshape(*grad.shape[:-1], q.shape[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, q, scales, bias = inputs
    if any(one is not None and one.requires_grad for one in (q, scales, bias)):
        raise ValueError("quantized_linear: only x has a gradient; detach the scales and the bias")
    ctx.save_for_backward(q, scales)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    return _gradient_op(grad, *ctx.saved_tensors), None, None, None


_SCHEMA = "(Tensor x, Tensor q, Tensor scales, Tensor? bias) -> Tensor"
_gradient_op = define("quantized_linear_backward", "(Tensor grad, Tensor q, Tensor scales) -> Tensor", _gradient)
_call = define("quantized_linear", _SCHEMA, _product, backward=_backward, setup=_setup)


def quantized_linear(
    x: torch.Tensor, q: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """linear(x, q * scales, bias) in x's dtype, added up in float32; ``q`` and ``scales`` from ``quantize(weight)``.

    x: [..., in]; q: [out, in], int8 or float8_e4m3fn; scales: [out]; bias: [out]. Only x has a gradient.
    """
    result: torch.Tensor = _call(x, q, scales, bias)
    return result


def _reference(x: torch.Tensor, q: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.linear(x, q.double() * scales[:, None], bias)


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    x, q, scales, bias = args
    weight, shift = (q.double() * scales[:, None]).abs(), 0 if bias is None else bias.abs()
    y = x.abs() @ weight.t() * (added(x.shape[-1]) + 3) + shift * 2
    return y, grads[0].abs() @ weight * (added(weight.shape[0]) + 3)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def weight(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randint(-127, 128, shape, dtype=torch.int8), torch.rand(shape[0]) / 100

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    for rows in (1, 3, 17, 40):
        yield Sample(f"{rows} rows", (normal(rows, 131), *weight(67, 131), normal(67)))
    narrow = torch.randn(33, 300).to(torch.float8_e4m3fn)
    yield Sample("8-bit floats", (normal(2, 1, 300), narrow, torch.rand(33), None))
    yield Sample("no rows", (normal(0, 8), *weight(5, 8), None))
    yield Sample("one vector", (normal(24), *weight(5, 24), normal(5)))
    q, scales = weight(24, 40)
    yield Sample("transposed", (normal(24, 7).t(), q.t(), torch.rand(40), None))
    yield Sample("expanded", (normal(1, 40).expand(3, 40), q, scales, None))


OPERATORS = (
    Operator(
        name="quantized_linear",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x",),
        source="written",
        call=quantized_linear,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="A linear layer with int8 or 8-bit float weights",
    ),
)
