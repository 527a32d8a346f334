"""Marks the parts of dots that masks fill with zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith

from torchport_passes.ir.ops import (
    behind_index_maps,
    constant_behind,
    constant_splat,
    counts_along,
    index_source,
    matching,
    owner_of,
    shape_of,
)
from torchport_passes.ir.traits import INDEX_MAPS, is_elementwise
from torchport_passes.ir.types import Module, Value

__all__ = ["MarkZeros"]

_WIDENINGS = frozenset({"arith.extf", "tt.fp_to_fp"})
_LESS = frozenset({arith.CmpIPredicate.slt.value, arith.CmpIPredicate.ult.value})


@dataclass(frozen=True)
class MarkZeros:
    """Give ``tt.dot`` the attributes ``live_k`` and ``live_n`` where a block is larger than what is loaded.

    A block has a power of two as its size: rows of 80 elements are loaded as 128, masked by ``lane < 80``. Takes and
    leaves scalarized tensors. ``live_k``: from there on, the columns of a and the rows of b are 0. ``live_n``: from
    there on, the columns of b are 0, and what is computed for them is not stored.
    """

    name: ClassVar[str] = "mark-zeros"

    def apply(self, module: Module) -> None:
        with module.context:
            for op in matching(module, "tt.dot".__eq__):
                a, b, _ = op.operands
                rank = len(shape_of(a) or ())
                k, n = a.type.shape[-1], b.type.shape[-1]
                i64 = ir.IntegerType.get_signless(64)
                if (live := max(_extent(a, rank - 1), _extent(b, rank - 2))) < k:
                    op.attributes["live_k"] = ir.IntegerAttr.get(i64, live)
                if (live := _extent(b, rank - 1)) < n and not _is_observed(op.results[0], rank - 1, live, set()):
                    op.attributes["live_n"] = ir.IntegerAttr.get(i64, live)


def _extent(value: Value, dim: int) -> int:
    """From where on ``value`` is 0 along a dimension, because its load is masked; its size if that is not known."""
    size: int = value.type.shape[dim]
    op = owner_of(value)
    if op is None:
        return size
    if op.name in _WIDENINGS:
        return _extent(op.operands[0], dim)
    if op.name in INDEX_MAPS:
        source = index_source(op, dim)
        return size if source is None else _extent(op.operands[0], source)
    if op.name == "tt.load" and len(op.operands) == 3 and _is_zero(op.operands[2]):
        return min(size, _bound(op.operands[1], dim, size))
    return size


def _is_zero(value: Value) -> bool:
    op = owner_of(behind_index_maps(value))
    attribute = constant_splat(op) if op is not None else None
    return isinstance(attribute, ir.FloatAttr) and attribute.value == 0.0


def _bound(mask: Value, dim: int, size: int) -> int:
    """From where on a mask is false along a dimension."""
    op = owner_of(mask)
    if op is None:
        return size
    if op.name == "arith.andi":
        return min(_bound(operand, dim, size) for operand in op.operands)
    if op.name in INDEX_MAPS:
        source = index_source(op, dim)
        return size if source is None else _bound(op.operands[0], source, size)
    if op.name == "arith.cmpi" and ir.IntegerAttr(op.attributes["predicate"]).value in _LESS:
        limit = constant_behind(op.operands[1])
        if limit is not None and counts_along(op.operands[0], dim):
            return min(size, max(0, limit))
    return size


def _is_observed(value: Value, dim: int, live: int, seen: set[Value]) -> bool:
    """Whether anything but masked stores reads ``value`` from ``live`` on along a dimension."""
    if value in seen:
        return False
    seen.add(value)
    for use in value.uses:
        op, number = use.owner.operation, use.operand_number
        if op.name == "tt.store" and number == 1:
            if len(op.operands) < 3 or _bound(op.operands[2], dim, live + 1) > live:
                return True
            continue
        if op.name == "scf.for" and number >= 3:
            followers = [op.results[number - 3], op.regions[0].blocks[0].arguments[number - 2]]
        elif op.name == "scf.yield" and (parent := op.block.owner.operation).name in ("scf.for", "scf.if"):
            followers = [parent.results[number]]
            if parent.name == "scf.for":
                followers.append(parent.regions[0].blocks[0].arguments[number + 1])
        elif (is_elementwise(op.name) and shape_of(op.results[0]) == shape_of(value)) or (
            op.name == "tt.dot" and number == 2
        ):
            followers = list(op.results)
        else:
            return True
        if any(_is_observed(follower, dim, live, seen) for follower in followers):
            return True
    return False
