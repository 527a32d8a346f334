"""Finds how many rows of a dot are stored, where a block reaches beyond the last row of the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from mlir import ir
from mlir.dialects import arith

from torchport_passes.ir.ops import (
    behind_index_maps,
    constant_behind,
    counts_along,
    function_of,
    index_source,
    matching,
    owner_of,
    shape_of,
)
from torchport_passes.ir.traits import INDEX_MAPS, is_elementwise
from torchport_passes.ir.types import Block, Module, Op, Value

__all__ = ["MarkRows"]

_Bound: TypeAlias = tuple[Value, "Value | int"]
"""Of rows ``first + i``, those below a limit are stored: (first, limit), both i64."""


@dataclass(frozen=True)
class MarkRows:
    """Give ``tt.dot`` a fourth operand where masks of all stores say so: the number of rows that are stored.

    Takes and leaves scalarized tensors. A block of rows begins at ``first``, and ``first + i < limit`` masks what is
    stored: then ``limit - first`` rows of the product are computed, and what follows sees anything in the others. Only
    elementwise operations, loops and masked stores may read the product. Rows are numbered by i64, which never wraps.
    """

    name: ClassVar[str] = "mark-rows"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "tt.dot".__eq__):
                if len(shape_of(op.results[0]) or ()) == 2 and not {"emulate", "chained"} & set(op.attributes):
                    _mark(op)


def _mark(op: Op) -> None:
    for first, limit in sorted(_stored(op.results[0]) or (), key=str):
        with ir.InsertionPoint(op):
            start = _known(first, op)
            stop = arith.ConstantOp(first.type, limit).result if isinstance(limit, int) else _known(limit, op)
            if start is None or stop is None:
                continue
            operands, attributes = [*op.operands, arith.SubIOp(stop, start).result], dict(op.attributes.items())
            new = ir.Operation.create(op.name, [op.results[0].type], operands, attributes)
        op.results[0].replace_all_uses_with(new.results[0])
        op.erase()
        return


def _known(value: Value, op: Op) -> Value | None:
    """A scalar where ``op`` stands, at the current insertion point: computed again if need be; None if it cannot be."""
    if _precedes(value, op):
        return value
    owner = owner_of(value)
    if owner is None or not owner.name.startswith("arith."):
        return None
    operands = [_known(operand, op) for operand in owner.operands]
    if any(operand is None for operand in operands):
        return None
    return ir.Operation.create(owner.name, [value.type], operands, dict(owner.attributes.items())).results[0]


def _stored(value: Value) -> set[_Bound] | None:
    """The bounds of rows that all stores of what is computed from ``value`` have; None if anything else sees it."""
    found: set[_Bound] | None = None
    seen: set[Value] = set()
    work = [value]
    while work:
        value = work.pop()
        if value in seen:
            continue
        seen.add(value)
        for use in value.uses:
            op, number = use.owner.operation, use.operand_number
            if op.name == "tt.store" and number == 1 and len(op.operands) > 2:
                bounds = set(_bounds(op.operands[2], 0))
                found = bounds if found is None else found & bounds
                continue
            followers = _followers(value, op, number)
            if followers is None:
                return None
            work.extend(followers)
    return found


def _followers(value: Value, op: Op, number: int) -> list[Value] | None:
    """What has rows of ``value``, operand ``number`` of ``op``, as its rows; None if ``op`` may mix them."""
    if op.name == "scf.for" and number >= 3:
        return [op.results[number - 3], op.regions[0].blocks[0].arguments[number - 2]]
    if op.name == "scf.yield" and (parent := op.block.owner.operation).name in ("scf.for", "scf.if"):
        carried = [parent.regions[0].blocks[0].arguments[number + 1]] if parent.name == "scf.for" else []
        return [parent.results[number], *carried]
    same = is_elementwise(op.name) and shape_of(op.results[0]) == shape_of(value)
    return list(op.results) if same or (op.name == "tt.dot" and number == 2) else None


def _bounds(mask: Value, dim: int) -> Iterator[_Bound]:
    """The bounds along a dimension that a mask is a conjunction of."""
    op = owner_of(mask)
    if op is None:
        return
    if op.name == "arith.andi":
        for operand in op.operands:
            yield from _bounds(operand, dim)
    elif op.name in INDEX_MAPS:
        source = index_source(op, dim)
        if source is not None:
            yield from _bounds(op.operands[0], source)
    elif op.name == "arith.cmpi" and ir.IntegerAttr(op.attributes["predicate"]).value == arith.CmpIPredicate.slt.value:
        rows, limits = op.operands
        limit = constant_behind(limits)
        if limit is None:
            limit = behind_index_maps(limits)
        first = _first(rows, dim)
        if first is not None and (isinstance(limit, int) or shape_of(limit) is None):
            yield first, limit


def _first(rows: Value, dim: int) -> Value | None:
    """The scalar i64 that a dimension's index is added to."""
    op = owner_of(rows)
    if op is None:
        return None
    if op.name in INDEX_MAPS:
        source = index_source(op, dim)
        return None if source is None else _first(op.operands[0], source)
    if op.name != "arith.addi" or str(op.results[0].type.element_type) != "i64":
        return None
    for base, index in (op.operands, reversed(op.operands)):
        scalar = behind_index_maps(base)
        if shape_of(scalar) is None and counts_along(index, dim):
            return scalar
    return None


def _precedes(value: Value, op: Op) -> bool:
    """Whether ``value`` is known where ``op`` stands."""
    owner = owner_of(value)
    block: Block = value.owner if owner is None else owner.block
    around = op
    while around.block != block:
        around = around.block.owner.operation
        if around == function_of(op):
            return False
    if owner is None:
        return True
    order = [view.operation for view in block.operations]
    return order.index(owner) < order.index(around)
