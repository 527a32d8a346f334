"""Matrix products of groups of rows, each with a matrix of its own: the tokens of a mixture of experts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "grouped_mm"]

_TILE = {"ROWS": 32, "COLUMNS": 64, "TERMS": 64}


@Kernel
def _forward(x, weight, ends, out, x_row, w_group, w_row, w_column, groups, m, n, k,  # type: ignore[no-untyped-def]
             ROWS: tl.constexpr, COLUMNS: tl.constexpr, TERMS: tl.constexpr):  # fmt: skip
    """A tile of the result. Tiles hold rows of one group: which, follows from the ends of the groups before."""
    tile = tl.program_id(1)
    before, first, last, group = 0, 0, 0, 0  # tiles of groups that are passed; rows and number of this tile's group
    begin = 0
    for index in range(0, groups):
        end = tl.load(ends + index).to(tl.int32)
        tl.device_assert((begin <= end) & (end <= m), "grouped_mm: ends must ascend, and be at most the number of rows")
        end = tl.minimum(tl.maximum(end, begin), m)
        count = (end - begin + ROWS - 1) // ROWS
        here = (tile >= before) & (tile < before + count)
        first = tl.where(here, begin + (tile - before) * ROWS, first)
        last = tl.where(here, end, last)
        group = tl.where(here, index, group)
        before += count
        begin = end
    if first < last:
        rows = tl.cast(first, tl.int64) + tl.arange(0, ROWS)
        columns = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
        weight += tl.cast(group, tl.int64) * w_group
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in range(0, k, TERMS):
            i = start + tl.arange(0, TERMS)
            left = tl.load(x + rows[:, None] * x_row + i[None, :], (rows[:, None] < last) & (i[None, :] < k), 0.0)
            at = weight + i[:, None] * w_row + columns[None, :] * w_column
            right = tl.load(at, (i[:, None] < k) & (columns[None, :] < n), 0.0)
            total = tl.dot(left, right, total, input_precision="ieee")
        inside = (rows[:, None] < last) & (columns[None, :] < n)
        tl.store(out + rows[:, None] * n + columns[None, :], total.to(out.dtype.element_ty), inside)


@Kernel
def _backward(x, grad, ends, out, x_row, grad_row, m, k, n,  # type: ignore[no-untyped-def]
              ROWS: tl.constexpr, COLUMNS: tl.constexpr, TERMS: tl.constexpr):  # fmt: skip
    """A tile of the gradient of one group's matrix: x^T grad over the group's rows, in order."""
    group = tl.program_id(2)
    begin = tl.load(ends + group - 1, group > 0, 0).to(tl.int64)
    end = tl.load(ends + group).to(tl.int64)
    begin, end = tl.maximum(begin, 0), tl.minimum(end, m)
    rows = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(begin, end, TERMS):
        i = start + tl.arange(0, TERMS)
        left = tl.load(x + i[:, None] * x_row + rows[None, :], (i[:, None] < end) & (rows[None, :] < k), 0.0)
        right = tl.load(
            grad + i[:, None] * grad_row + columns[None, :], (i[:, None] < end) & (columns[None, :] < n), 0.0
        )
        total = tl.dot(tl.trans(left), right, total, input_precision="ieee")
    at = out + group.to(tl.int64) * k * n + rows[:, None] * n + columns[None, :]
    tl.store(at, total.to(out.dtype.element_ty), (rows[:, None] < k) & (columns[None, :] < n))


def _product(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    if x.dim() != 2 or weight.dim() != 3 or x.shape[1] != weight.shape[1] or ends.shape != weight.shape[:1]:
        raise ValueError(
            f"grouped_mm: x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}, ends {tuple(ends.shape)}; they "
            "must be [rows, in], [groups, in, out] and [groups]"
        )
    if x.dtype != weight.dtype or ends.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"grouped_mm: x is {x.dtype}, weight {weight.dtype}, ends {ends.dtype}; ends must be integers")
    (rows, k), (groups, _, n) = x.shape, weight.shape
    matrix = rows_of(x)
    out = torch.zeros(rows, n, dtype=x.dtype, device=x.device)  # rows behind the last end stay 0
    grid = -(-n // _TILE["COLUMNS"]), -(-rows // _TILE["ROWS"]) + groups, 1
    args = (matrix, weight, ends.contiguous(), out, matrix.stride(0), *weight.stride(), groups, rows, n, k)
    launch(_forward, grid, args, _TILE)
    return out


def _weight_gradient(grad: torch.Tensor, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    matrix, given = rows_of(x), rows_of(grad)
    k, n, groups = x.shape[1], grad.shape[1], ends.shape[0]
    out = torch.empty(groups, k, n, dtype=x.dtype, device=x.device)
    grid = -(-n // _TILE["COLUMNS"]), -(-k // _TILE["ROWS"]), groups
    args = (matrix, given, ends.contiguous(), out, matrix.stride(0), given.stride(0), x.shape[0], k, n)
    launch(_backward, grid, args, _TILE)
    return out


def _setup(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _grouped_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    x, weight, ends = ctx.saved_tensors
    return _call(grad, weight.mT, ends), _gradient_op(grad, x, ends), None


_SCHEMA = "(Tensor x, Tensor weight, Tensor ends) -> Tensor"
_gradient_op = define("grouped_mm_backward", "(Tensor grad, Tensor x, Tensor ends) -> Tensor", _weight_gradient)
_call = define("grouped_mm", _SCHEMA, _product, backward=_grouped_backward, setup=_setup)


def grouped_mm(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Rows of ``x`` [rows, in] of group g times ``weight[g]``, of [groups, in, out]; added up in float32.

    ends: [groups], int: one behind the last row of each group, ascending, as cumulative counts of tokens are; a group
    may be empty. Rows behind the last end give 0.
    """
    result: torch.Tensor = _call(x, weight, ends)
    return result


def _reference(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    edges = [0, *ends.tolist()]
    parts = [x[begin:end] @ weight[g] for g, (begin, end) in enumerate(itertools.pairwise(edges))]
    return torch.cat((*parts, x[edges[-1] :] @ torch.zeros_like(weight[0])))


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    x, weight, ends = args
    edges = [0, *ends.tolist()]
    spans = list(itertools.pairwise(edges))
    grad = grads[0].abs()
    y = _reference(x.abs(), weight.abs(), ends) * x.shape[1]
    grad_x = _reference(grad, weight.abs().mT, ends) * weight.shape[2]
    terms = [x[begin:end].abs().t() @ grad[begin:end] * (end - begin) for begin, end in spans]
    return y, grad_x, torch.stack(terms)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    yield Sample("prime sizes", (normal(61, 37), normal(3, 37, 71), torch.tensor([5, 43, 61])))
    yield Sample("empty groups, rows behind", (normal(20, 16), normal(4, 16, 8), torch.tensor([0, 7, 7, 18]).int()))
    yield Sample("one group", (normal(40, 130), normal(1, 130, 5), torch.tensor([40])))
    yield Sample("no rows", (normal(0, 16), normal(2, 16, 8), torch.tensor([0, 0])))
    yield Sample("transposed", (normal(16, 40).t(), normal(2, 8, 16).mT, torch.tensor([9, 40])))
    yield Sample("expanded", (normal(1, 16).expand(40, 16), normal(1, 16, 8).expand(2, 16, 8), torch.tensor([9, 40])))


OPERATORS = (
    Operator(
        name="grouped_mm",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x", "weight"),
        source="written",
        call=grouped_mm,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Groups of rows, each times a matrix of its own",
    ),
)
