"""Calls operations of PyTorch with floating-point tensors and dtypes widened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["Value", "wide_call", "widened"]

Value: TypeAlias = Any
"""A tensor, a number, None, or a tuple or list of them."""


def widened(value: Value, dtype: torch.dtype = torch.float64) -> Value:
    """Floating-point tensors as ``dtype`` (complex ones with parts of it), also in lists; all else unchanged."""
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            return value.to(torch.promote_types(dtype, torch.complex64))
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return type(value)(widened(element, dtype) for element in value)
    return value


def wide_call(
    node: Mapping[str, Any],
    target: torch._ops.OpOverload,
    args: Sequence[Value],
    kwargs: Mapping[str, Value],
    dtype: torch.dtype,
) -> Value:
    """The result of an operation whose floats are ``dtype``; of one that returns nothing, what it wrote into.

    ``node``: as ``torchport.numerics.graphs.special.RULES`` are called with it. Unless it is marked ``own``, the
    operation writes into copies.
    """
    parameters = target._schema.arguments
    args, kwargs = _as_compared(node, args, kwargs)
    bound = {**{p.name: value for p, value in zip(parameters, args, strict=False)}, **kwargs}
    creates = not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(list(bound.values())))
    for parameter in parameters:
        if _is_dtype(parameter):
            if bound.get(parameter.name) is None and creates and _is_float(node):
                bound[parameter.name] = dtype  # PyTorch's default dtype is another one
            elif parameter.name in bound:
                bound[parameter.name] = _wide_dtype(bound[parameter.name], dtype)
    if bound.get("device") is not None:
        bound["device"] = torch.device("cpu")
    written = [p.name for p in parameters if p.alias_info is not None and p.alias_info.is_write and p.name in bound]
    if not node["own"]:
        bound |= {name: tree_map_only(torch.Tensor, torch.Tensor.clone, bound[name]) for name in written}
    result = _invoke(target, bound)
    if _is_float(node) and isinstance(result, torch.Tensor) and result.is_floating_point() and result.dtype != dtype:
        # All tensors that went in hold integers, so PyTorch's rules gave the default dtype.
        wide = {name: value.to(dtype) if isinstance(value, torch.Tensor) else value for name, value in bound.items()}
        result = _invoke(target, wide) if torch.Tag.pointwise in target.tags else result.to(dtype)
    return bound[written[-1]] if result is None and written else result


def _invoke(target: torch._ops.OpOverload, bound: Mapping[str, Value]) -> Value:
    """Pass leading arguments by position: some parameters, like ``self``, cannot be passed by name."""
    parameters = target._schema.arguments
    leading = 0
    while leading < len(parameters) and not parameters[leading].kwarg_only and parameters[leading].name in bound:
        leading += 1
    positional = [bound[p.name] for p in parameters[:leading]]
    return target(*positional, **{p.name: bound[p.name] for p in parameters[leading:] if p.name in bound})


def _is_dtype(parameter: torch.Argument) -> bool:
    return "ScalarType" in str(parameter.type) or parameter.name in ("dtype", "out_dtype")


def _is_float(node: Mapping[str, Any]) -> bool:
    """Whether the graph says that the node is one floating-point tensor."""
    value = node["value"]
    name = value.get("dtype") if isinstance(value, dict) else None
    return name is not None and bool(getattr(torch, name).is_floating_point)


def _wide_dtype(value: Value, dtype: torch.dtype) -> Value:
    if not isinstance(value, torch.dtype):
        return value
    if value.is_complex:
        return torch.promote_types(dtype, torch.complex64)
    return dtype if value.is_floating_point else value


def _as_compared(node: Mapping[str, Any], args: Sequence[Value], kwargs: Mapping[str, Value]) -> tuple[Any, Any]:
    """Arguments of an operation; numbers that narrow floats are compared with are rounded to f32, as PyTorch does.

    Where a float is equal to such a number, the rounding decides.
    """
    value, first = node["value"], node["first"]
    compares = isinstance(value, dict) and value.get("dtype") == "bool"
    kind = str(first.get("dtype")) if isinstance(first, dict) else ""
    if not compares or not kind.startswith(("float", "bfloat")) or kind == "float64":
        return args, kwargs
    return [_as_f32(value) for value in args], {name: _as_f32(value) for name, value in kwargs.items()}


def _as_f32(value: Value) -> Value:
    if not isinstance(value, float) or abs(value) > torch.finfo(torch.float32).max:
        return value
    return torch.tensor(value, dtype=torch.float32).item()
