"""Division with rounding, as aten's CPU kernels compute it; division of integers by zero is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.upstream.fx import call, value

__all__ = ["DECOMPOSITIONS", "check_divisors"]

_aten = torch.ops.aten


def _floor(a: Any, b: Any) -> Any:
    """Floor division of floats by way of the remainder, as in Python (aten/src/ATen/native/cpu/BinaryOpsKernel.cpp).

    The rounded quotient may be an integer where the true one is below it: 1 / 0.1 is 10, but 0.1 is more than a tenth.
    """
    dtype = torch.result_type(a, b)
    if not dtype.is_floating_point:
        return NotImplemented
    a, b, rounded = _operands(a, b, dtype)
    quotient = rounded(a / b)
    rest = rounded(torch.fmod(a, b))
    exact = rounded(rounded(a - rest) / b)
    exact = torch.where(torch.where(b < 0, rest > 0, rest < 0), rounded(exact - 1), exact)
    floor = torch.floor(exact)
    floor = torch.where(exact - floor > 0.5, floor + 1, floor)
    floor = torch.where(exact == 0, torch.copysign(torch.zeros_like(quotient), quotient), floor)
    return torch.where(torch.eq(b, 0), quotient, floor).to(dtype)


def _trunc(a: Any, b: Any) -> Any:
    """Division of 16-bit floats, rounded to 16 bits before it is rounded towards zero."""
    dtype = torch.result_type(a, b)
    if not (dtype.is_floating_point and dtype.itemsize == 2):
        return NotImplemented
    a, b, rounded = _operands(a, b, dtype)
    return torch.trunc(rounded(a / b)).to(dtype)


def _operands(a: Any, b: Any, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, Callable[..., torch.Tensor]]:
    """Both operands, and how aten rounds what it computes of them on the way.

    It computes in 16 bits where both are tensors, in 32 bits where the divisor is a single number, in that of 32 bits.
    """
    compute = torch.float32 if dtype.itemsize < 4 else dtype
    single = not isinstance(b, torch.Tensor) or all(isinstance(size, int) and size == 1 for size in b.shape)

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return x if single or dtype == compute else x.to(dtype).to(compute)

    return _operand(a, dtype).to(compute), _operand(b, compute if single else dtype).to(compute), rounded


def _operand(value: Any, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if isinstance(value, torch.Tensor) else torch.scalar_tensor(value, dtype=dtype)


def _div_mode(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    return _floor(a, b) if rounding_mode == "floor" else NotImplemented


def _div_trunc(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    return _trunc(a, b) if rounding_mode == "trunc" else NotImplemented


def _remainder(operation: Any) -> Callable[..., Any]:
    """A remainder of 16-bit floats: a number or tensor of another type is rounded to 16 bits before."""

    def decomposition(a: Any, b: Any) -> Any:
        dtype = torch.result_type(a, b)
        if dtype not in (torch.float16, torch.bfloat16) or all(getattr(x, "dtype", None) == dtype for x in (a, b)):
            return NotImplemented
        return operation(_operand(a, dtype), _operand(b, dtype))

    return decomposition


DECOMPOSITIONS: dict[str, dict[Any, Callable[..., Any]]] = {
    "float-floor-division": {
        _aten.div.Tensor_mode: _div_mode,
        _aten.div.Scalar_mode: _div_mode,
        _aten.floor_divide.default: _floor,
        _aten.floor_divide.Scalar: _floor,
    },
    "division-of-16-bits": {
        _aten.div.Tensor_mode: _div_trunc,
        _aten.div.Scalar_mode: _div_trunc,
        **dict.fromkeys(
            (_aten.remainder.Tensor, _aten.remainder.Scalar, _aten.remainder.Scalar_Tensor),
            _remainder(_aten.remainder.Tensor),
        ),
        **dict.fromkeys((_aten.fmod.Tensor, _aten.fmod.Scalar), _remainder(_aten.fmod.Tensor)),
    },
}

_DIVISIONS = {
    _aten.div.Tensor_mode,
    _aten.div.Scalar_mode,
    _aten.floor_divide.default,
    _aten.floor_divide.Scalar,
    _aten.remainder.Tensor,
    _aten.remainder.Scalar,
    _aten.remainder.Scalar_Tensor,
    _aten.fmod.Tensor,
    _aten.fmod.Scalar,
}

_MESSAGE = "division of integers by zero (eager raises ZeroDivisionError)"


def check_divisors(graph: torch.fx.Graph) -> None:
    """Insert an assertion for each division of integers whose divisor may be 0, as eager raises.

    The divisor is looked at as a whole, as eager divides all elements though only some are used.
    """
    for node in list(graph.nodes):
        result = value(node)
        if node.target not in _DIVISIONS or result is None or result.dtype.is_floating_point:
            continue
        divisor = node.args[1]
        if _is_never_zero(graph, divisor):
            continue
        with graph.inserting_before(node.next):
            if value(divisor) is None:  # a Python number: 0, or not known
                divisor = call(graph, node, _aten.full.default, [], divisor, dtype=result.dtype)
            zero = call(graph, node, _aten.eq.Scalar, divisor, 0)
            if not _is_never_empty(result):  # nothing is divided where the other operand is empty
                zero = call(
                    graph, node, _aten.logical_and.default, zero, call(graph, node, _aten.eq.Tensor, node, node)
                )
            none = call(graph, node, _aten.logical_not.default, call(graph, node, _aten.any.default, zero))
            call(graph, node, _aten._assert_async.msg, none, _MESSAGE)


def _is_never_empty(tensor: torch.Tensor) -> bool:
    return all(isinstance(size, int) and size > 0 for size in tensor.shape)


def _is_never_zero(graph: torch.fx.Graph, divisor: Any) -> bool:
    """Whether a divisor is a constant other than 0, or a tensor that is at least 1."""
    if not isinstance(divisor, torch.fx.Node):
        return isinstance(divisor, int) and divisor != 0
    if divisor.op == "get_attr":
        constant = getattr(graph.owning_module, str(divisor.target), None)
        return type(constant) is torch.Tensor and constant.numel() <= 1024 and bool((constant != 0).all())
    match divisor.target:
        case _aten.full.default:
            return isinstance(divisor.args[1], int) and divisor.args[1] != 0
        case _aten.clamp_min.default | _aten.clamp.default:
            least = divisor.args[1] if len(divisor.args) > 1 else None
            return isinstance(least, int) and least >= 1
        case _aten.view.default | _aten.expand.default | _aten.unsqueeze.default:
            return _is_never_zero(graph, divisor.args[0])
    return False
