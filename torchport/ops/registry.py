"""The operators of the library, as data; ``define`` makes one known to torch."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.compat import FunctionalTensorMode, forward_ad, functorch, len_torch_dispatch_stack
from torchport.ops.launch import PLAIN
from torchport.registering import registering
from torchport.runtime.operators import tensors_in

__all__ = [
    "ATTENTION",
    "FLOATS",
    "WRITTEN",
    "Operator",
    "Sample",
    "Tensors",
    "added",
    "added_rows",
    "define",
    "of_sum",
    "operators",
    "unobserved",
]

WRITTEN = (
    "rms_norm",
    "layer_norm",
    "gated",
    "rope",
    "cross_entropy",
    "fused_linear_cross_entropy",
    "softmax",
    "router_topk",
    "reshape_and_cache",
    "quantize",
    "embedding",
    "adamw",
    "sample",
    "quantized_linear",
    "int8_linear",
    "int4_linear",
    "grouped_mm",
)
"""Modules of ``torchport.ops.written``; each has the functions that it is named for and a tuple ``OPERATORS``."""

ATTENTION = ("flash", "totals", "piecewise", "paged")
"""Those of ``torchport.ops.attention``."""

FLOATS = (torch.float32, torch.bfloat16, torch.float16)

"""Dtypes of operators that compute in float32."""

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Sample:
    """One call to test an operator with.

    about: sizes, layouts or values that it is about.
    args: positional arguments, tensors among them in the dtype that was asked for.
    """

    about: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Operator:
    """One operator.

    name: its name in ``torchport.ops`` and in ``torch.ops.torchport``.
    schema: its arguments and results, as torch writes schemas.
    dtypes: dtypes of its floating-point tensors.
    differentiable: names of the arguments that have a gradient.
    source: ``written`` for a kernel of the library's own, ``generated`` for one that Inductor makes.
    call: the function of ``torchport.ops``.
    reference: the same function in plain torch operators, called with float64 tensors; autograd gives its gradients.
    bound: called with a sample's arguments and the gradients of its results, all in float64, and with the unit roundoff
        of the sample's dtype; returns how far each element of the results, then of the gradients of
        ``differentiable``, may be from the reference before it is rounded to its dtype. Errors are in units of 2^-24,
        float32's unit roundoff, in which kernels compute.
    samples: the calls that it is tested with, for a dtype.
    doc: one line about what it computes.
    mutates: names of the arguments that it writes to.
    by_rows: whether its kernels are compiled for each power of two that holds a row (the last dimension of its first
        tensor).
    """

    name: str
    schema: str
    dtypes: tuple[torch.dtype, ...]
    differentiable: tuple[str, ...]
    source: str
    call: Callable[..., Any]
    reference: Callable[..., Any]
    bound: Callable[..., Tensors]
    samples: Callable[[torch.dtype], Iterator[Sample]]
    doc: str
    mutates: tuple[str, ...] = ()
    by_rows: bool = False


def added(count: int) -> float:
    """The error of a sum of ``count`` terms, in units of 2^-24 of the sum of their magnitudes.

    A block is added up in at least four lanes, which are added in pairs (Higham, Accuracy and Stability of Numerical
    Algorithms, section 4.2: an error for each addition that a term goes through).
    """
    return count / 4 + 8


def added_rows(count: int) -> float:
    """The error of a sum over ``count`` rows, which are added up in parts (``torchport.ops.layout.parts_of``)."""
    return min(count, 64) + count / 64 + 2


def of_sum(reference: Callable[..., Any], bound: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Reference and bound of an operator on ``x + residual`` that returns the sum, too, from those on ``x`` alone.

    The sum is exact (samples see to that). Its gradient is the operator's and the sum's own, added.
    """

    def both(x: torch.Tensor, residual: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        total = x + residual
        return reference(total, *rest), total

    def bounds(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
        x, residual, *rest = args
        y, grad_x, *others = bound((x + residual, *rest), grads, rounded)
        grad_x = grad_x + grads[1].abs() * 2
        return y, torch.zeros_like(x), grad_x, grad_x, *others

    return both, bounds


def operators() -> tuple[Operator, ...]:
    """Every operator of the library, in the order of ``WRITTEN`` and ``ATTENTION``."""
    names = *(f"written.{name}" for name in WRITTEN), *(f"attention.{name}" for name in ATTENTION)
    modules = (importlib.import_module(f"torchport.ops.{name}") for name in names)
    return tuple(operator for module in modules for operator in module.OPERATORS)


class _Library(torch.library.Library):
    """Where operators are registered. Their autograd records gradients; tangents it would lose are refused."""

    def impl(self, op_name: str, fn: Any, dispatch_key: str = "", **options: Any) -> None:
        def refusing(keys: Any, *args: Any) -> Any:
            _refuse_tangents(op_name, args)
            return fn(keys, *args)

        kernel = refusing if dispatch_key == "Autograd" else fn
        torch.library.Library.impl(self, op_name, kernel, dispatch_key, **options)


_library: Any = _Library("torchport", "FRAGMENT")  # type: ignore[no-untyped-call]


def define(
    name: str,
    schema: str,
    body: Callable[..., Any],
    *,
    backward: Callable[..., Any] | None = None,
    setup: Callable[..., None] | None = None,
    below_autograd: bool = False,
) -> Callable[..., Any]:
    """Define ``torchport::name``, whose body serves eager and compiled mode; returns a function that calls it.

    schema: arguments and results, as ``(Tensor x, float eps=1e-6) -> Tensor``.
    body: computes the results by torch operators and ``launch``; must be traceable.
    below_autograd: it stands in graphs that autograd has been through, and is one call there.
    backward, setup: as in ``torch.library.register_autograd``; ``backward`` calls defined operators only. There are no
        forward-mode derivatives: a tangent is an error.

    As ``torch.library.triton_op``, which imports Triton to look for kernels in the body's source: torch.compile sees
    the body's operators and kernels, not one opaque call. An operator that writes to its arguments stays one call:
    Inductor of torch 2.13 loses what kernels write to two views of one tensor.

    A call that nobody observes (no gradient, no dispatch mode, no transform) runs the body without torch's dispatcher,
    which takes longer than a small kernel.
    """
    body = _without_float64(name, body)
    _library.define(f"{name}{schema}")
    _library.impl(name, body, "CompositeExplicitAutograd")
    qualified = f"torchport::{name}"
    with registering():
        torch.library.register_fake(qualified, body, lib=_library)
    if "!" not in schema and not below_autograd:
        torch.library.register_torch_dispatch(qualified, FunctionalTensorMode, _decompose(body), lib=_library)
        torch.library.register_autograd(qualified, backward or _no_gradient(name), setup_context=setup, lib=_library)
    overload = getattr(torch.ops.torchport, name).default

    def call(*args: Any) -> Any:
        if forward_ad._current_level >= 0:
            _refuse_tangents(name, args)
        if not unobserved(args):
            return overload(*args)
        return body(*args)

    return call


def _without_float64(name: str, body: Callable[..., Any]) -> Callable[..., Any]:
    """``body``, which raises TypeError for a tensor of float64: kernels would lose half of its digits."""

    @functools.wraps(body)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if any(map(_is_wide, args)):
            raise TypeError(
                f"torchport::{name} computes in float32, and is given float64: convert its tensors, or use torch's own "
                "operators"
            )
        return body(*args, **kwargs)

    return checked


def _is_wide(value: Any) -> bool:
    if type(value) is list:
        return any(map(_is_wide, value))
    return isinstance(value, torch.Tensor) and value.dtype is torch.float64


def _decompose(body: Callable[..., Any]) -> Callable[..., Any]:
    """What torch.compile's functionalization does with an operator: it traces the body.

    On a torch device the operator stays one call, which launches its kernels: Inductor's code for kernels of a user's
    asks Triton for the one active driver.
    """

    def decompose(mode: Any, operator: Any, types: Sequence[type], args: Any, kwargs: Any) -> Any:
        from torchport.compat import triton_ops_are_kept

        if triton_ops_are_kept() or any(_on_device(value) for value in args):
            return mode.__torch_dispatch__(operator, types, args, kwargs)
        with mode:
            return body(*args, **(kwargs or {}))

    return decompose


def _on_device(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == "torchport"


def _no_gradient(name: str) -> Callable[..., Any]:
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        raise NotImplementedError(
            f"torchport::{name} has no gradient; if it computes a gradient, a second one was asked for: "
            "compute it with torch's own operators"
        )

    return backward


def _refuse_tangents(name: str, args: Sequence[Any]) -> None:
    """Raises NotImplementedError if an argument has a tangent of forward-mode differentiation."""
    for tensor in tensors_in(args):
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"torchport::{name} has no forward-mode derivative, and an argument has a tangent: compute it with "
                "torch's own operators, or use backward()"
            )


def unobserved(args: Sequence[Any]) -> bool:
    """Whether the call needs no dispatcher: plain tensors, no gradient wanted, no mode and no transform active."""
    if torch.compiler.is_compiling():
        return False
    if len_torch_dispatch_stack() or functorch.peek_interpreter_stack() is not None:
        return False
    recording = torch.is_grad_enabled()
    for value in args:
        if isinstance(value, list) and not unobserved(value):
            return False
        if isinstance(value, torch.Tensor) and (type(value) not in PLAIN or (recording and value.requires_grad)):
            return False
    return True
