"""Evaluates symbolic sizes of a dumped graph (``s27``, ``2*s0 + 1``, ``(s3//2)``) for one call."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["same_order", "size_of", "symbols_of"]

_LONGEST = 2000  # characters of an expression


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > 64:  # a size has no more bits
        raise OverflowError(f"{base} ** {exponent}")
    return base**exponent


_OPERATORS: Mapping[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: _power, ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}  # fmt: skip
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "Max": max, "Min": min, "FloorDiv": operator.floordiv, "CleanDiv": operator.floordiv, "Mod": operator.mod,
    "PythonMod": operator.mod, "CeilDiv": lambda a, b: -(-a // b), "IntTrueDiv": operator.truediv, "TruncToInt": int,
    "CeilToInt": math.ceil, "FloorToInt": math.floor, "ceiling": math.ceil, "floor": math.floor, "Abs": abs,
    "ToFloat": float, "IntTrunc": int, "PowByNatural": _power,
}  # fmt: skip


def symbols_of(
    nodes: Mapping[str, Mapping[str, Any]], inputs: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Symbols' values from a graph's ``inputs`` and their ``shapes``, by placeholder."""
    found: dict[str, int] = {}
    for name, node in nodes.items():
        value = node["value"]
        if node["op"] != "placeholder" or not isinstance(value, Mapping):
            continue
        if isinstance(inputs.get(name), int):
            found[str(value.get("symbol"))] = inputs[name]
        for one, size in zip(value.get("shape", ()), shapes.get(name, ()), strict=False):
            if isinstance(one, str) and one.isidentifier():
                found.setdefault(one, size)
    return found


def size_of(size: int | str, symbols: Mapping[str, int]) -> int | None:
    """A size as a number; None if one of its symbols is not known, or it is not an expression of sizes."""
    if isinstance(size, int):
        return size
    if len(size) > _LONGEST:
        return None
    try:
        value = _value(ast.parse(size, mode="eval").body, symbols)
        return int(value) if value == int(value) else None
    except (SyntaxError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _value(node: ast.AST, symbols: Mapping[str, int]) -> Any:
    match node:
        case ast.Constant(value=int() | float()):
            return node.value
        case ast.Name():
            return symbols[node.id]
        case ast.UnaryOp():
            return _OPERATORS[type(node.op)](_value(node.operand, symbols))
        case ast.BinOp():
            return _OPERATORS[type(node.op)](_value(node.left, symbols), _value(node.right, symbols))
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            return _FUNCTIONS[name](*(_value(one, symbols) for one in node.args))
    raise KeyError(ast.dump(node))


def same_order(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether one shape is the other with dimensions of size 1 inserted or neighbours merged."""
    a, b = tuple(one for one in a if one != 1), tuple(one for one in b if one != 1)
    if a == b:
        return True
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    position = 0
    for size in shorter:
        product = 1
        while product < size and position < len(longer):
            product *= longer[position]
            position += 1
        if product != size:
            return False
    return position == len(longer)
