"""Gated activations, act(gate) * up: SwiGLU and GeGLU (Shazeer, arXiv 2002.05202)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import empty_like, rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "geglu", "swiglu"]

_BLOCK = 1024


@Kernel
def _sigmoid(x):  # type: ignore[no-untyped-def]
    """sigmoid(x) and sigmoid(-x), each as accurate as exp: neither is a difference from 1."""
    small = tl.exp(-tl.abs(x))
    near, far = 1.0 / (1.0 + small), small / (1.0 + small)
    return tl.where(x < 0, far, near), tl.where(x < 0, near, far)


@Kernel
def _activation(x, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """The activation and its derivative. gelu's tanh form is x sigmoid(2 z): 1 + tanh(z) would cancel."""
    if KIND == "gelu":
        normal = 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)
        return x * normal, normal + x * (0.3989422804014327 * tl.exp(-0.5 * x * x))
    inner, slope = x, 1.0
    if KIND == "gelu_tanh":
        square = x * x
        inner = 1.5957691216057308 * (x * (1.0 + 0.044715 * square))
        slope = 1.5957691216057308 * (1.0 + 0.134145 * square)
    up, down = _sigmoid(inner)
    return x * up, up * (1.0 + x * down * slope)


@Kernel
def _forward(gate, up, out, gate_row, up_row, n, KIND: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """A block of a row of out = act(gate) * up."""
    row = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(gate + row * gate_row + i, i < n, 0.0).to(tl.float32)
    active, _ = _activation(value, KIND)
    found = active * tl.load(up + row * up_row + i, i < n, 0.0).to(tl.float32)
    tl.store(out + row * n + i, found.to(out.dtype.element_ty), i < n)


@Kernel
def _backward(grad, gate, up, grad_gate, grad_up, grad_row, gate_row, up_row, n,  # type: ignore[no-untyped-def]
              KIND: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """A block of a row of both gradients."""
    row = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    given = tl.load(grad + row * grad_row + i, i < n, 0.0).to(tl.float32)
    value = tl.load(gate + row * gate_row + i, i < n, 0.0).to(tl.float32)
    active, slope = _activation(value, KIND)
    other = tl.load(up + row * up_row + i, i < n, 0.0).to(tl.float32)
    tl.store(grad_gate + row * n + i, (given * other * slope).to(grad_gate.dtype.element_ty), i < n)
    tl.store(grad_up + row * n + i, (given * active).to(grad_up.dtype.element_ty), i < n)


def _matrices(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """The tensors as matrices of the same shape: one row each where all are contiguous."""
    if all(tensor.is_contiguous() for tensor in tensors) or tensors[0].dim() == 0:
        return [tensor.reshape(1, tensor.numel()) for tensor in tensors]
    return [rows_of(tensor) for tensor in tensors]


def _grid(matrix: torch.Tensor) -> tuple[int, int, int]:
    return -(-matrix.shape[1] // _BLOCK), matrix.shape[0], 1


def _apply(kind: str, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ValueError(f"gate is {gate.dtype} {tuple(gate.shape)}, up {up.dtype} {tuple(up.shape)}; they must agree")
    left, right = _matrices(gate, up)
    out = empty_like(gate)
    args = (left, right, out, left.stride(0), right.stride(0), left.shape[1])
    launch(_forward, _grid(left), args, {"KIND": kind, "BLOCK": _BLOCK})
    return out


def _gradients(
    kind: str, grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    given, left, right = _matrices(grad, gate, up)
    grads = empty_like(gate), empty_like(up)
    strides = given.stride(0), left.stride(0), right.stride(0)
    args = (given, left, right, *grads, *strides, left.shape[1])
    launch(_backward, _grid(left), args, {"KIND": kind, "BLOCK": _BLOCK})
    return grads


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    gate, up, *rest = inputs
    ctx.tanh = bool(rest and rest[0])
    ctx.save_for_backward(gate, up)


def _swiglu_backward(ctx: Any, grad: torch.Tensor) -> Any:
    return _swiglu_gradients(grad, *ctx.saved_tensors)


def _geglu_backward(ctx: Any, grad: torch.Tensor) -> Any:
    return *_geglu_gradients(grad, *ctx.saved_tensors, ctx.tanh), None


def _kind(tanh: bool) -> str:
    return "gelu_tanh" if tanh else "gelu"


_SWIGLU = "(Tensor gate, Tensor up) -> Tensor"
_GEGLU = "(Tensor gate, Tensor up, bool tanh) -> Tensor"
_swiglu_gradients = define(
    "swiglu_backward",
    "(Tensor grad, Tensor gate, Tensor up) -> (Tensor, Tensor)",
    lambda grad, gate, up: _gradients("silu", grad, gate, up),
)
_geglu_gradients = define(
    "geglu_backward",
    "(Tensor grad, Tensor gate, Tensor up, bool tanh) -> (Tensor, Tensor)",
    lambda grad, gate, up, tanh: _gradients(_kind(tanh), grad, gate, up),
)
_swiglu = define("swiglu", _SWIGLU, lambda gate, up: _apply("silu", gate, up), backward=_swiglu_backward, setup=_setup)
_geglu = define(
    "geglu", _GEGLU, lambda gate, up, tanh: _apply(_kind(tanh), gate, up), backward=_geglu_backward, setup=_setup
)


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, computed in float32 and rounded once; both of any one shape, also halves of one tensor."""
    result: torch.Tensor = _swiglu(gate, up)
    return result


def geglu(gate: torch.Tensor, up: torch.Tensor, tanh: bool = False) -> torch.Tensor:
    """gelu(gate) * up, computed in float32 and rounded once; ``tanh``: in gelu's approximate form."""
    result: torch.Tensor = _geglu(gate, up, tanh)
    return result


def _swiglu_reference(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate) * up


def _geglu_reference(gate: torch.Tensor, up: torch.Tensor, tanh: bool) -> torch.Tensor:
    if not tanh:
        return torch.nn.functional.gelu(gate) * up
    inner = math.sqrt(8 / math.pi) * (gate + 0.044715 * gate**3)
    return gate * torch.sigmoid(inner) * up  # torch's form cancels in float64 as well


def _sigmoid_bound(gate: torch.Tensor, up: torch.Tensor, grad: torch.Tensor, inner: Any, slope: Any) -> Tensors:
    """Of gate sigmoid(inner) up: exp is given 2 units; an error of ``inner`` is relative, so exp multiplies it."""
    wide = 8 + (0 if inner is gate else 6) * inner.abs()
    active, other = torch.sigmoid(inner), torch.sigmoid(-inner)
    y = (gate * active * up).abs() * (wide + 2)
    derivative = active * (1 + (gate * other * slope).abs()) * (2 * wide + 12)
    return y, (grad * up).abs() * derivative, (grad * gate * active).abs() * (wide + 2)


def _swiglu_bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    gate, up = args
    return _sigmoid_bound(gate, up, grads[0], gate, 1.0)


def _geglu_bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    gate, up, tanh = args
    if tanh:
        slope = 1.5957691216057308 * (1 + 0.134145 * gate * gate)
        inner = 1.5957691216057308 * (gate + 0.044715 * gate**3)
        return _sigmoid_bound(gate, up, grads[0], inner, slope)
    y = gate.abs() * 6  # 0.5 + 0.5 erf cancels: an absolute error
    density = torch.exp(-gate * gate / 2) / math.sqrt(2 * math.pi)
    slope = 8 + gate.abs() * density * (8 + 2 * gate * gate)
    return y * up.abs(), (grads[0] * up).abs() * slope, grads[0].abs() * y


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(shape) * 2).to(dtype)

    yield Sample("prime sizes", (normal(7, 131), normal(7, 131)))
    yield Sample("several blocks", (normal(3, 1031), normal(3, 1031)))
    yield Sample("one number", (normal(), normal()))
    yield Sample("empty", (normal(0, 5), normal(0, 5)))
    yield Sample("halves of one tensor", normal(5, 3, 80).chunk(2, -1))
    yield Sample("transposed", (normal(40, 17).t(), normal(17, 40)))
    yield Sample("expanded", (normal(1, 40).expand(9, 40), normal(9, 1).expand(9, 40)))
    yield Sample("far from zero", (torch.linspace(-30, 30, 97).to(dtype), normal(97)))


def _geglu_samples(dtype: torch.dtype) -> Iterator[Sample]:
    for tanh in (False, True):
        for sample in _samples(dtype):
            about = f"{sample.about}, {'tanh' if tanh else 'erf'}"
            if sample.about != "far from zero":
                yield Sample(about, (*sample.args, tanh))
            else:
                yield Sample(about, (sample.args[0].clamp(-5, 30), sample.args[1], tanh))


OPERATORS = (
    Operator(
        name="swiglu",
        schema=_SWIGLU,
        dtypes=FLOATS,
        differentiable=("gate", "up"),
        source="written",
        call=swiglu,
        reference=_swiglu_reference,
        bound=_swiglu_bound,
        samples=_samples,
        doc="silu(gate) * up",
    ),
    Operator(
        name="geglu",
        schema=_GEGLU,
        dtypes=FLOATS,
        differentiable=("gate", "up"),
        source="written",
        call=geglu,
        reference=_geglu_reference,
        bound=_geglu_bound,
        samples=_geglu_samples,
        doc="gelu(gate) * up, exact or by tanh",
    ),
)
