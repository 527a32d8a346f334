"""Bounds that masks give a nest's dimensions, and what lies beyond them that nothing can observe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlir import ir

from torchport_passes.analysis.strides import Axis
from torchport_passes.ir.ops import (
    INDEX_MAPS,
    Coords,
    constant_splat,
    is_scalar_constant,
    numel,
    operand_coords,
    owner_of,
    shape_of,
)
from torchport_passes.vectorize.lane_values import Lanes

if TYPE_CHECKING:
    from torchport_passes.vectorize.plan import Plan

__all__ = ["Bound", "decide_trimming", "find_bounds"]

_SLT, _ULT = 2, 6


@dataclass
class Bound:
    """Lanes of a dimension are active below ``limit - first``: the comparisons ``index < limit`` that say so."""

    key: tuple[Any, ...]
    comparisons: list[tuple[Any, Coords]]
    constant: int | None  # the number of active lanes, when it is known
    unsigned: bool = False


def find_bounds(plan: Plan) -> None:
    """Fill in ``bound`` and ``trim`` of the vector dimension, ``outer`` of the others."""
    for dim in range(len(plan.shape)):
        bounds = _bounds_of(plan, dim)
        if dim != plan.vec:
            for bound in bounds:
                free = dim != plan.axis_dim and not any(a.name == "tp.write" for a in plan.anchors)
                if free and _unobservable(plan, bound):
                    plan.outer[dim] = bound
                    break
            continue
        if any(v is None for v in plan.identities.values()):
            continue  # a peeled reduction starts from whole chunks
        cut = [b for b in bounds if _unobservable(plan, b)]
        if cut or bounds:
            plan.bound = (cut or bounds)[0]
            plan.trim = bool(cut)


def _bounds_of(plan: Plan, dim: int) -> list[Bound]:
    """Comparisons ``x < limit`` where ``x`` goes up by one along the whole of ``dim`` and the limit does not change."""

    whole = Axis(dim, plan.shape[dim])
    found: dict[tuple[Any, ...], Bound] = {}
    for op, at in plan.uses:
        if op.name != "arith.cmpi" or dim not in at:
            continue
        predicate = int(ir.IntegerAttr(op.attributes["predicate"]).value)
        if predicate not in (_SLT, _ULT):
            continue
        if whole.of(op.operands[0], at).stride != 1 or not whole.of(op.operands[1], at).uniform:
            continue
        terms = _first_index(op.operands[0], at, dim)
        limit = _scalar_of(op.operands[1])
        if terms is None or limit is None:
            continue
        offset, scalars = terms
        constant = is_scalar_constant(limit)
        active = None if constant is None or scalars else constant - offset
        key = (offset, tuple(scalars), constant if constant is not None else limit, predicate)
        bound = found.setdefault(key, Bound(key, [], active, predicate == _ULT))
        bound.comparisons.append((op, at))
    return list(found.values())


def _scalar_of(value: Any) -> Any | None:
    """The scalar a tensor is a splat of."""
    op = owner_of(value)
    while op is not None and op.name in ("tt.splat", "tt.broadcast", "tt.expand_dims"):
        value = op.operands[0]
        op = owner_of(value)
    return value if shape_of(value) is None else None


def _first_index(value: Any, at: Coords, dim: int) -> tuple[int, list[Any]] | None:
    """Lane 0 of a unit-stride value as (constant, scalars to add), None when it has another form."""

    op = owner_of(value)
    if shape_of(value) is None:
        constant = is_scalar_constant(value)
        return (constant, []) if constant is not None else (0, [value])
    if op is None:
        return None
    if op.name in INDEX_MAPS:
        return _first_index(op.operands[0], operand_coords(op, at), dim)
    if op.name == "tt.make_range":
        return (int(ir.IntegerAttr(op.attributes["start"]).value), []) if at[0] in (dim, None) else None
    if op.name == "arith.addi":
        a, b = (_first_index(v, at, dim) for v in op.operands)
        return None if a is None or b is None else (a[0] + b[0], [*a[1], *b[1]])
    return None


def _unobservable(plan: Plan, bound: Bound) -> bool:
    """Whether lanes beyond the bound change nothing; buffers written there are judged later, with their readers."""
    lanes = Lanes(plan.loops, plan.axis, [], dict.fromkeys(bound.comparisons, False))
    for anchor in plan.anchors:
        at = plan.coords[anchor]
        if anchor.name == "tp.write":
            continue
        if anchor.name == "tt.reduce":
            neutral = plan.identities[anchor]
            if neutral is None or not all(
                _is_constant(lanes, v, at, i) for v, i in zip(anchor.operands, neutral, strict=True)
            ):
                return False
        elif anchor.name == "tt.assert":
            if lanes.known(anchor.operands[0], at) is not True:
                return False
        else:
            count = 2 if anchor.name in ("tt.store", "tt.atomic_rmw") else 3
            if len(anchor.operands) <= count or lanes.known(anchor.operands[count], at) is not False:
                return False
    return True


def _is_constant(lanes: Lanes, value: Any, at: Coords, wanted: Any) -> bool:
    """Whether a value is known to equal a constant under the masks assumed."""

    value, at = lanes.resolve(value, at)
    op = owner_of(value)
    if op is None:
        return False
    if op.name == "tt.load" and len(op.operands) > 1 and lanes.known(op.operands[1], at) is False:
        if len(op.operands) > 2:
            return _is_constant(lanes, op.operands[2], at, wanted)
        return _number(wanted) == 0
    if op.name == "arith.extf" or op.name == "arith.extsi":
        return (
            _is_constant(lanes, op.operands[0], at, wanted)
            if _number(wanted) in (0, float("inf"), -float("inf"))
            else False
        )
    attribute = constant_splat(op)
    assert wanted is None or isinstance(wanted, ir.Attribute)
    return attribute is not None and bool(_number(attribute) == _number(wanted))


def _number(attribute: Any) -> int | float:
    if isinstance(attribute, ir.BoolAttr):
        return int(ir.BoolAttr(attribute).value)
    if isinstance(attribute, ir.IntegerAttr):
        return int(ir.IntegerAttr(attribute).value)
    return float(ir.FloatAttr(attribute).value)


def decide_trimming(plans: list[Plan], readers: list[Any]) -> None:
    """A nest that fills buffers is cut at its bound only if every reader of them is cut at the same bound."""
    written: dict[Any, list[Plan]] = {}
    read: dict[Any, list[Plan]] = {}
    for plan in plans:
        for op, _ in plan.uses:
            if op.name == "tp.write" and plan.vec in plan.coords[op]:
                written.setdefault(op.operands[1], []).append(plan)
            elif op.name == "tp.read":
                read.setdefault(op.operands[0], []).append(plan)
    others = {v for op in readers for v in op.operands}
    changed = True
    while changed:
        changed = False
        for buffer, writers in written.items():
            for plan in writers:
                if not plan.trim or plan.bound is None:
                    continue
                key = (plan.bound.key, plan.shape[plan.vec])
                same = all(
                    r.trim and r.bound is not None and (r.bound.key, r.shape[r.vec]) == key
                    for r in read.get(buffer, [])
                )
                if buffer in others or not same or numel(plan.shape) != plan.shape[plan.vec]:
                    plan.trim = False
                    changed = True
