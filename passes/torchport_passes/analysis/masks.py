"""Derives what booleans and selections are where the results of some comparisons are known."""

from __future__ import annotations

from collections.abc import Mapping

from mlir import ir

from torchport_passes.ir.ops import Coords, constant_splat, element_type, operand_coords, owner_of, shape_of
from torchport_passes.ir.traits import INDEX_MAPS
from torchport_passes.ir.types import Attribute, Op, Value

__all__ = ["Comparison", "Masks"]

Comparison = tuple[Op, Coords]
"""An operation that compares, and the coordinates that it is evaluated at."""


class Masks:
    """What follows from comparisons whose results are known, as in the part of a loop in which a bound holds."""

    def __init__(self, comparisons: Mapping[Comparison, bool] | None = None) -> None:
        self._comparisons = comparisons or {}

    def known(self, value: Value, coords: Coords) -> bool | None:
        """The constant that a boolean is known to be, or None."""
        op = owner_of(value)
        if op is None:
            return None
        if (op, coords) in self._comparisons:
            return self._comparisons[op, coords]
        if op.name in INDEX_MAPS:
            return self.known(op.operands[0], operand_coords(op, coords))
        if op.name == "tp.check":  # it allows nothing that its mask does not
            return False if len(op.operands) > 1 and self.known(op.operands[1], coords) is False else None
        if op.name == "arith.constant":
            attribute = constant_splat(op)
            return None if attribute is None or not _is_boolean(value) else _truth(attribute)
        connective = _CONNECTIVES.get(op.name)
        if connective is not None and _is_boolean(value):
            return connective(*(self._operand(operand, coords) for operand in op.operands))
        return None

    def _operand(self, value: Value, coords: Coords) -> bool | None:
        return self.known(value, coords if shape_of(value) is not None else ())

    def resolve(self, value: Value, coords: Coords) -> tuple[Value, Coords]:
        """The value, with coordinates, that ``value`` equals: looks through index maps and trivial operations."""
        while shape_of(value) is not None:
            op = owner_of(value)
            if op is None:
                break
            if op.name in INDEX_MAPS:
                value, coords = op.operands[0], operand_coords(op, coords)
                continue
            same = self._trivial(op, value, coords)
            if same is None:
                break
            value = same
        return value, coords if shape_of(value) is not None else ()

    def _trivial(self, op: Op, value: Value, coords: Coords) -> Value | None:
        """The operand that a selection or connective equals, None if that is not known."""
        if op.name == "arith.select":
            condition = self._operand(op.operands[0], coords)
            return None if condition is None else op.operands[1 if condition else 2]
        if op.name in ("arith.andi", "arith.ori") and _is_boolean(value):
            neutral = op.name == "arith.andi"
            a, b = (self.known(operand, coords) for operand in op.operands)
            if a is neutral or b is neutral:
                return op.operands[1 if a is neutral else 0]
        return None


# Kleene's three-valued logic: None is a value that is not known.


def _and(a: bool | None, b: bool | None) -> bool | None:
    if a is False or b is False:
        return False
    return True if a and b else None


def _or(a: bool | None, b: bool | None) -> bool | None:
    if a or b:
        return True
    return False if a is False and b is False else None


def _xor(a: bool | None, b: bool | None) -> bool | None:
    return None if a is None or b is None else a != b


_CONNECTIVES = {"arith.andi": _and, "arith.ori": _or, "arith.xori": _xor}


def _is_boolean(value: Value) -> bool:
    return str(element_type(value.type)) == "i1"


def _truth(attribute: Attribute) -> bool:
    if isinstance(attribute, ir.BoolAttr):
        return bool(ir.BoolAttr(attribute).value)
    return bool(ir.IntegerAttr(attribute).value)
