"""Finds floats whose bits are moved as integers, and not computed with: Triton's sorts exchange elements so."""

from __future__ import annotations

from mlir import ir

from torchport_passes.arithmetic.types import shaped
from torchport_passes.ir.ops import element_type, matching, owner_of
from torchport_passes.ir.types import Module, Op, Type, Value

__all__ = ["MOVED", "widen_moved_bits"]

MOVED = "tp.moved"
"""Marks the bitcasts from and to bits that are only moved."""

_MOVES = frozenset({"tt.reshape", "tt.broadcast", "tt.expand_dims", "tt.trans", "tt.splat", "arith.select"})
_CASTS = frozenset({"tt.bitcast", "arith.bitcast"})


def widen_moved_bits(module: Module) -> None:
    """Make integers i64 that are bits of floats, and only moved, xored with each other, and made floats again.

    Takes a module whose floats are not retyped yet. Bitcasts from and to them are
    marked: there are payloads on both sides.
    """
    done: set[Value] = set()
    for cast in matching(module, _CASTS.__contains__):
        bits = cast.results[0]
        if _is_float(cast.operands[0].type) and not _is_float(bits.type) and bits not in done:
            found = _moved_with(bits)
            if found is not None:
                _widen(found)
                done |= found


def _is_float(type_: Type) -> bool:
    return isinstance(element_type(type_), ir.FloatType)


def _moved_with(start: Value) -> set[Value] | None:
    """All integers that these bits are moved to and come from; None if something else is done with one."""
    element, found, todo = element_type(start.type), set(), [start]
    while todo:
        value = todo.pop()
        if value in found:
            continue
        found.add(value)
        owners = [use.owner.operation for use in value.uses]
        owner = owner_of(value)
        if owner is not None:
            owners.append(owner)
        for op in owners:
            near = _neighbours(op)
            if near is None:
                return None
            todo += [one for one in near if element_type(one.type) == element and one not in found]
    return found


def _neighbours(op: Op) -> list[Value] | None:
    """The values that an operation moves bits between; None if it does something else."""
    if op.name in _CASTS:
        is_end = _is_float(op.operands[0].type) != _is_float(op.results[0].type)
        return [] if is_end else None
    if op.name == "arith.constant":
        value = op.attributes["value"]
        zero = ir.DenseElementsAttr.isinstance(value) and value.is_splat
        return [] if zero and int(ir.IntegerAttr(value.get_splat_value()).value) == 0 else None
    if op.name in _MOVES or op.name == "arith.xori":
        return [*op.operands, *op.results]
    if op.name == "tt.reduce":
        block = op.regions[0].blocks[0]
        inner, end = ([one.operation for one in block.operations] + [None])[:2]
        if inner.name == "arith.xori" and end is not None and end.name == "tt.reduce.return":
            return [*op.operands, *op.results, *block.arguments]
        return None
    return [] if op.name == "tt.reduce.return" else None


def _widen(values: set[Value]) -> None:
    i64 = ir.IntegerType.get_signless(64)
    for value in values:
        owner = owner_of(value)
        if owner is not None and owner.name == "arith.constant":
            zero = ir.DenseElementsAttr.get_splat(shaped(value.type, i64), ir.IntegerAttr.get(i64, 0))
            owner.attributes["value"] = zero
        casts = [use.owner.operation for use in value.uses] + ([owner] if owner is not None else [])
        for cast in casts:
            if cast.name in _CASTS:
                cast.attributes[MOVED] = ir.UnitAttr.get()
        value.set_type(shaped(value.type, i64))
