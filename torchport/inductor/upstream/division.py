"""Division with rounding, as aten's CPU kernels compute it; division of integers by zero is an error."""

from __future__ import annotations

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
    compute = torch.float32 if dtype.itemsize < 4 else dtype
    a, b = _operand(a, dtype, compute), _operand(b, dtype, compute)
    quotient = a / b
    rest = torch.fmod(a, b)
    exact = (a - rest) / b
    exact = torch.where((rest != 0) & ((b < 0) != (rest < 0)), exact - 1, exact)
    floor = torch.floor(exact)
    floor = torch.where(exact - floor > 0.5, floor + 1, floor)
    floor = torch.where(exact == 0, torch.copysign(torch.zeros_like(quotient), quotient), floor)
    return torch.where(torch.eq(b, 0), quotient, floor).to(dtype)


def _operand(value: Any, dtype: torch.dtype, compute: torch.dtype) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        return torch.scalar_tensor(value, dtype=compute)
    return value.to(dtype).to(compute)


def _div_mode(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    return _floor(a, b) if rounding_mode == "floor" else NotImplemented


DECOMPOSITIONS = {
    "float-floor-division": {
        _aten.div.Tensor_mode: _div_mode,
        _aten.div.Scalar_mode: _div_mode,
        _aten.floor_divide.default: _floor,
        _aten.floor_divide.Scalar: _floor,
    }
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
