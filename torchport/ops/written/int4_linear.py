"""A linear layer with 4-bit weights and a scale for each group of them in a row.

A byte holds two weights of a group, element t in its low half and element t + group / 2 in its high half: both halves
of a group's bytes meet neighbouring elements of x. A half h stands for h - 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "int4_linear", "int4_pack"]

_FEW = 8
"""Rows that are multiplied one by one; more are left to torch's product of the unpacked weight."""


@Kernel
def _one_by_one(x, packed, scales, bias, out, x_row, n, groups, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """One element of the result: HALF bytes of the weight make a group."""
    column, row = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    i = tl.arange(0, HALF)
    x += row * x_row
    packed += column * groups * HALF
    total = tl.zeros((HALF,), tl.float32)
    for group in range(0, groups):
        both = tl.load(packed + group * HALF + i).to(tl.int32)
        low = tl.load(x + group * 2 * HALF + i).to(tl.float32) * ((both & 15) - 8).to(tl.float32)
        high = tl.load(x + group * 2 * HALF + HALF + i).to(tl.float32) * ((both >> 4) - 8).to(tl.float32)
        total += (low + high) * tl.load(scales + column * groups + group)
    found = tl.sum(total)
    if bias is not None:
        found += tl.load(bias + column).to(tl.float32)
    tl.store(out + row * n + column, found.to(out.dtype.element_ty))


@Kernel
def _unpack(packed, scales, out, groups, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """One group of a row of the weight in float32."""
    group, row = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    i = tl.arange(0, HALF)
    both = tl.load(packed + (row * groups + group) * HALF + i).to(tl.int32)
    scale = tl.load(scales + row * groups + group)
    out += (row * groups + group) * 2 * HALF
    tl.store(out + i, ((both & 15) - 8).to(tl.float32) * scale)
    tl.store(out + HALF + i, ((both >> 4) - 8).to(tl.float32) * scale)


def _group_of(packed: torch.Tensor, scales: torch.Tensor) -> int:
    """Elements of a group. Raises ValueError if the tensors do not fit, or a group is no power of two from 2 on."""
    groups = scales.shape[1] if scales.dim() == 2 else 0
    group = 2 * packed.shape[1] // groups if groups and packed.dim() == 2 else 0
    if group < 2 or group & (group - 1) or groups * group != 2 * packed.shape[1] or packed.dtype != torch.uint8:
        raise ValueError(
            f"int4_linear: packed is {packed.dtype} of shape {tuple(packed.shape)}, scales have shape "
            f"{tuple(scales.shape)}; they come from int4_pack: uint8 [out, in / 2] and [out, in / group]"
        )
    return group


def _weight(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    group, (rows, groups) = _group_of(packed, scales), scales.shape
    out = torch.empty(rows, 2 * packed.shape[1], dtype=torch.float32, device=packed.device)
    launch(_unpack, (groups, rows, 1), (packed.contiguous(), scales.contiguous(), out, groups), {"HALF": group // 2})
    return out


def _product(x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    group, wide = _group_of(packed, scales), scales.to(torch.float32).contiguous()
    if x.dim() == 0 or x.shape[-1] != 2 * packed.shape[1] or scales.shape[0] != packed.shape[0]:
        raise ValueError(
            f"int4_linear: rows of x have {tuple(x.shape)[-1:]} elements, the weight {2 * packed.shape[1]}"
        )
    matrix, n = rows_of(x), packed.shape[0]
    if matrix.shape[0] > _FEW:
        found = torch.mm(matrix.to(torch.float32), _weight(packed, wide).t())
        found = found if bias is None else found + bias
        return found.to(x.dtype).reshape(*x.shape[:-1], n)
    out = torch.empty((*x.shape[:-1], n), dtype=x.dtype, device=x.device)
    shift = bias.contiguous() if bias is not None else None
    args = (matrix, packed.contiguous(), wide, shift, out, matrix.stride(0), n, scales.shape[1])
    launch(_one_by_one, (n, matrix.shape[0], 1), args, {"HALF": group // 2})
    return out


def _gradient(grad: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Of x, in grad's dtype."""
    found = torch.mm(rows_of(grad).to(torch.float32), _weight(packed, scales.to(torch.float32)))
    return found.to(grad.dtype).reshape(*grad.shape[:-1], 2 * packed.shape[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, packed, scales, bias = inputs
    if scales.requires_grad or (bias is not None and bias.requires_grad):
        raise ValueError("int4_linear: only x has a gradient; detach the scales and the bias")
    ctx.save_for_backward(packed, scales)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    return _gradient_op(grad, *ctx.saved_tensors), None, None, None


_SCHEMA = "(Tensor x, Tensor packed, Tensor scales, Tensor? bias) -> Tensor"
_gradient_op = define("int4_linear_backward", "(Tensor grad, Tensor packed, Tensor scales) -> Tensor", _gradient)
_call = define("int4_linear", _SCHEMA, _product, backward=_backward, setup=_setup)


def int4_pack(weight: torch.Tensor, group: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """``weight`` [out, in] in 4 bits: uint8 [out, in / 2] and float32 scales [out, in / group], for ``int4_linear``.

    group: neighbouring weights of a row that share a scale, a power of two that divides in. The scale maps the largest
    magnitude of a group to 7.
    """
    if weight.dim() != 2 or group < 2 or group & (group - 1) or weight.shape[1] % group:
        raise ValueError(f"int4_pack: weight has shape {tuple(weight.shape)}; groups of {group} do not divide its rows")
    parts = weight.detach().to(torch.float32).reshape(weight.shape[0], -1, group)
    scales = parts.abs().amax(-1) / 7
    scales = torch.where(scales == 0, 1.0, scales)
    whole = (torch.round(parts / scales.unsqueeze(-1)).clamp(-8, 7) + 8).to(torch.uint8)
    packed = whole[..., : group // 2] | (whole[..., group // 2 :] << 4)
    return packed.reshape(weight.shape[0], -1), scales


def int4_linear(
    x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """linear(x, weight, bias) in x's dtype, added up in float32; the weight [out, in] as ``int4_pack`` returns it.

    x: [..., in]; bias: [out]. Only x has a gradient.
    """
    result: torch.Tensor = _call(x, packed, scales, bias)
    return result


def _wide_weight(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    parts = packed.reshape(*scales.shape, -1).long()
    halves = torch.cat((parts & 15, parts >> 4), -1) - 8
    return (halves * scales.double().unsqueeze(-1)).reshape(packed.shape[0], -1)


def _reference(x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.linear(x, _wide_weight(packed, scales), bias)


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    x, packed, scales, bias = args
    weight = _wide_weight(packed, scales).abs()
    y = x.abs() @ weight.t() * (added(x.shape[-1]) + 5) + (0 if bias is None else 2 * bias.abs())
    return y, grads[0].abs() @ weight * (added(weight.shape[0]) + 3)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    for rows, group in ((1, 32), (3, 8), (17, 64)):
        weight = int4_pack(torch.randn(67, 192), group)
        yield Sample(f"{rows} rows, groups of {group}", (normal(rows, 192), *weight, normal(67)))
    yield Sample("pairs", (normal(2, 1, 10), *int4_pack(torch.randn(3, 10), 2), None))
    yield Sample("zeros", (normal(2, 64), *int4_pack(torch.zeros(3, 64)), None))
    yield Sample("no rows", (normal(0, 64), *int4_pack(torch.randn(3, 64)), None))
    yield Sample("one vector", (normal(64), *int4_pack(torch.randn(3, 64)), None))
    yield Sample("transposed", (normal(64, 7).t(), *int4_pack(torch.randn(5, 64)), None))
    yield Sample("expanded", (normal(1, 64).expand(3, 64), *int4_pack(torch.randn(5, 64)), None))


OPERATORS = (
    Operator(
        name="int4_linear",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x",),
        source="written",
        call=int4_linear,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="A linear layer with 4-bit weights and a scale a group",
    ),
)
