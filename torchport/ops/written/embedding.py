"""Rows of a table by index; the gradient adds rows up in the order of the indices, not by atomics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import block_for, rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "embedding"]


@Kernel
def _forward(weight, indices, out, weight_row, rows, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """A block of one row of the result."""
    at = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(indices + at).to(tl.int64)
    known = (row >= 0) & (row < rows)
    tl.device_assert(known, "embedding: an index is not a row of the weight")
    tl.store(out + at * n + i, tl.load(weight + row * weight_row + i, (i < n) & known, 0.0), i < n)


@Kernel
def _backward(grad, keys, order, found, grad_row, count, padding, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of sorted indices ``keys``, the first of equal ones: a block of the sum of their gradients, in order."""
    first = tl.program_id(1).to(tl.int64)
    key = tl.load(keys + first)
    before = tl.load(keys + first - 1, first > 0, 0)
    if ((first == 0) | (before != key)) & (key != padding):
        i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        total = tl.zeros((BLOCK,), tl.float32)
        at = first
        same = key
        while same == key:
            place = tl.load(order + at)
            total += tl.load(grad + place * grad_row + i, i < n, 0.0).to(tl.float32)
            at += 1
            same = tl.load(keys + at, at < count, -1).to(tl.int64)
        tl.store(found + key.to(tl.int64) * n + i, total.to(found.dtype.element_ty), i < n)


def _rows(weight: torch.Tensor, indices: torch.Tensor, padding: int) -> torch.Tensor:
    if weight.dim() != 2 or indices.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"embedding: weight has shape {tuple(weight.shape)}, indices are {indices.dtype}; it must be [rows, size], "
            "they int64 or int32"
        )
    table, n = rows_of(weight), weight.shape[1]
    out = torch.empty((*indices.shape, n), dtype=weight.dtype, device=weight.device)
    block = block_for(n)
    args = (table, indices.contiguous(), out, table.stride(0), weight.shape[0], n)
    launch(_forward, (-(-n // block), indices.numel(), 1), args, {"BLOCK": block})
    return out


def _gradient(grad: torch.Tensor, indices: torch.Tensor, rows: int, padding: int) -> torch.Tensor:
    given, n = rows_of(grad), grad.shape[-1]
    keys, order = indices.reshape(indices.numel()).to(torch.int64).sort(stable=True)
    found = torch.zeros(rows, n, dtype=grad.dtype, device=grad.device)
    block = block_for(n)
    args = (given, keys, order, found, given.stride(0), keys.numel(), padding, n)
    launch(_backward, (-(-n // block), keys.numel(), 1), args, {"BLOCK": block})
    return found


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    weight, indices, ctx.padding = inputs
    ctx.rows = weight.shape[0]
    ctx.save_for_backward(indices)


def _embedding_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    return _gradient_op(grad, *ctx.saved_tensors, ctx.rows, ctx.padding), None, None


_SCHEMA = "(Tensor weight, Tensor indices, int padding) -> Tensor"
_gradient_op = define(
    "embedding_backward", "(Tensor grad, Tensor indices, SymInt rows, int padding) -> Tensor", _gradient
)
_call = define("embedding", _SCHEMA, _rows, backward=_embedding_backward, setup=_setup)


def embedding(weight: torch.Tensor, indices: torch.Tensor, padding_idx: int = -1) -> torch.Tensor:
    """Rows of ``weight`` [rows, size] at ``indices`` [...]: [..., size].

    padding_idx: a row that gets no gradient; -1 for none.
    An index that is no row raises KernelAssertionError. Gradients are added up in float32 in the order of the indices,
    so every run gives the same bits.
    """
    result: torch.Tensor = _call(weight, indices, padding_idx)
    return result


def _reference(weight: torch.Tensor, indices: torch.Tensor, padding: int) -> torch.Tensor:
    return torch.nn.functional.embedding(indices, weight, padding_idx=padding if padding >= 0 else None)


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    weight, indices, _ = args
    flat = indices.reshape(-1).long()
    terms = torch.zeros_like(weight).index_add(0, flat, grads[0].reshape(-1, weight.shape[1]).abs())
    counts = torch.bincount(flat, minlength=weight.shape[0])
    return torch.zeros_like(grads[0]), terms * counts[:, None]


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    def indices(*shape: int, rows: int) -> torch.Tensor:
        return torch.randint(0, rows, shape)

    yield Sample("prime sizes", (normal(13, 31), indices(7, 5, rows=13), -1))
    yield Sample("a padding row", (normal(5, 16), indices(40, rows=5).int(), 3))
    yield Sample("rows longer than a block", (normal(3, 5001), indices(6, rows=3), -1))
    yield Sample("one index", (normal(3, 8), torch.tensor(2), -1))
    yield Sample("no index", (normal(3, 8), indices(0, rows=3), -1))
    yield Sample("transposed", (normal(8, 11).t(), indices(2, 9, rows=11).t(), -1))
    yield Sample("one row many times", (normal(4, 8), torch.full((100,), 1), -1))
    yield Sample("expanded", (normal(1, 8).expand(4, 8), indices(1, rows=4).expand(7), -1))


OPERATORS = (
    Operator(
        name="embedding",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("weight",),
        source="written",
        call=embedding,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Rows by index; a deterministic gradient without atomics",
        by_rows=True,
    ),
)
