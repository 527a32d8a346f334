"""Arithmetic of integers as MLIR has it, on Python's numbers and numpy's arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = ["INTEGERS", "compared", "wrapped"]


def _bits(type_: str) -> int:
    return int(type_[1:]) if type_[:1] == "i" and type_[1:].isdigit() else 64


def wrapped(value: Any, type_: str) -> Any:
    """``value`` as a signed number of its type; booleans are 0 and 1."""
    bits = _bits(type_)
    if bits == 1:
        return value & 1
    if bits >= 64 and isinstance(value, np.ndarray):
        return value
    half = 1 << bits - 1
    if isinstance(value, np.ndarray):
        return ((value + half) & ((1 << bits) - 1)) - half
    return ((int(value) + half) & ((1 << bits) - 1)) - half


def _unsigned(value: Any, type_: str) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(np.uint64) & np.uint64((1 << _bits(type_)) - 1)
    return int(value) & ((1 << _bits(type_)) - 1)


def _quotient(a: Any, b: Any) -> Any:
    """Rounded to 0, as hardware divides."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        quotient = np.abs(a) // np.maximum(np.abs(b), 1)
        return np.where(np.sign(a) * np.sign(b) < 0, -quotient, quotient)
    if b == 0:
        return 0
    quotient = abs(a) // abs(b)
    return -quotient if (a < 0) != (b < 0) else quotient


def _largest(a: Any, b: Any) -> Any:
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def _smallest(a: Any, b: Any) -> Any:
    return np.minimum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else min(a, b)


def _signed(value: Any) -> Any:
    """Back from numpy's unsigned numbers."""
    return value.astype(np.int64) if isinstance(value, np.ndarray) else value


def _on_unsigned(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda type_, a, b: _signed(function(_unsigned(a, type_), _unsigned(b, type_)))


INTEGERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "arith.addi": lambda _, a, b: a + b,
        "arith.subi": lambda _, a, b: a - b,
        "arith.muli": lambda _, a, b: a * b,
        "arith.andi": lambda _, a, b: a & b,
        "arith.ori": lambda _, a, b: a | b,
        "arith.xori": lambda _, a, b: a ^ b,
        "arith.shli": lambda _, a, b: a << b,
        "arith.shrsi": lambda _, a, b: a >> b,
        "arith.shrui": _on_unsigned(lambda a, b: a >> b),
        "arith.divsi": lambda _, a, b: _quotient(a, b),
        "arith.divui": _on_unsigned(lambda a, b: a // b),
        "arith.remsi": lambda _, a, b: a - _quotient(a, b) * b,
        "arith.remui": _on_unsigned(lambda a, b: a % b),
        "arith.maxsi": lambda _, a, b: _largest(a, b),
        "arith.minsi": lambda _, a, b: _smallest(a, b),
        "arith.maxui": _on_unsigned(_largest),
        "arith.minui": _on_unsigned(_smallest),
        "arith.extsi": lambda type_, a: -a if type_ == "i1" else a,
        "arith.extui": lambda type_, a: _signed(_unsigned(a, type_)),
        "arith.trunci": lambda _, a: a,
        "arith.index_cast": lambda _, a: a,
        "arith.index_castui": lambda _, a: a,
    }
)
"""By name: functions of the first operand's type and of the operands. Results are wrapped by the caller."""

_PREDICATES = (
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "less", "less_equal", "greater",
    "greater_equal",
)  # fmt: skip
_UNSIGNED_FROM = 6


def compared(predicate: int, a: Any, b: Any, type_: str) -> Any:
    """``arith.cmpi``: 0 or 1."""
    if predicate >= _UNSIGNED_FROM:
        a, b = _unsigned(a, type_), _unsigned(b, type_)
    found = getattr(np, _PREDICATES[predicate])(a, b)
    return found.astype(np.int64) if isinstance(found, np.ndarray) else int(found)
