"""Bounds that masks give a nest's dimensions, and what lies beyond them that nothing can observe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlir import ir

from torchport_passes.analysis.masks import Masks
from torchport_passes.analysis.strides import StrideAnalysis
from torchport_passes.ir.ops import (
    Coords,
    behind_index_maps,
    constant_int,
    constant_splat,
    int_attribute,
    operand_coords,
    owner_of,
    shape_of,
)
from torchport_passes.ir.traits import INDEX_MAPS, MASKS, REPEATS
from torchport_passes.vectorize.nest_info import NestInfo
from torchport_passes.vectorize.vector_dimension import Vectorization

__all__ = ["Bound", "Bounds", "find_bounds"]

_SLT, _ULT = 2, 6


@dataclass
class Bound:
    """LaneValues of a dimension are active below ``limit - first``: the comparisons ``index < limit`` that say so."""

    key: tuple[Any, ...]
    comparisons: list[tuple[Any, Coords]]
    constant: int | None  # the number of active lanes, when it is known
    unsigned: bool = False


@dataclass(frozen=True)
class Bounds:
    """Where the loops of a nest may end early.

    ``vector``: the bound of the vector dimension, if there is one.
    ``trim``: whether nothing beyond it can be observed, so that the loop ends there.
    ``outer``: bounds of other dimensions beyond which nothing can be observed.
    """

    vector: Bound | None
    trim: bool
    outer: dict[int, Bound]


def find_bounds(nest: NestInfo, vector: Vectorization) -> Bounds:
    """The bounds of a nest's dimensions, before its neighbours are looked at (``plan`` does that)."""
    peeled = any(identity is None for identity in nest.identities.values())  # starts from whole chunks
    found: list[Bound] = []
    cut: list[Bound] = []
    outer: dict[int, Bound] = {}
    for dim in range(len(nest.shape)):
        if dim == vector.dim:
            found = [] if peeled else _bounds_of(nest, dim)
            cut = [bound for bound in found if _unobservable(nest, bound)]
        elif dim != nest.reduced_dim and not any(anchor.name == "tp.write" for anchor in nest.anchors):
            bound = next((bound for bound in _bounds_of(nest, dim) if _unobservable(nest, bound)), None)
            if bound is not None:
                outer[dim] = bound
    return Bounds(next(iter(cut or found), None), bool(cut), outer)


def _bounds_of(nest: NestInfo, dim: int) -> list[Bound]:
    """Comparisons ``x < limit`` where ``x`` goes up by one along the whole of ``dim`` and the limit does not change."""

    whole = StrideAnalysis(dim, nest.shape[dim])
    found: dict[tuple[Any, ...], Bound] = {}
    for op, at in nest.uses:
        if op.name != "arith.cmpi" or dim not in at:
            continue
        predicate = int_attribute(op, "predicate")
        if predicate not in (_SLT, _ULT):
            continue
        if whole.of(op.operands[0], at).stride != 1 or not whole.of(op.operands[1], at).uniform:
            continue
        terms = _first_index(op.operands[0], at, dim)
        limit = _scalar_of(op.operands[1])
        if terms is None or limit is None:
            continue
        offset, scalars = terms
        constant = constant_int(limit)
        active = None if constant is None or scalars else constant - offset
        key = (offset, tuple(scalars), constant if constant is not None else limit, predicate)
        bound = found.setdefault(key, Bound(key, [], active, predicate == _ULT))
        bound.comparisons.append((op, at))
    return list(found.values())


def _scalar_of(value: Any) -> Any | None:
    """The scalar a tensor is a splat of."""
    value = behind_index_maps(value, REPEATS)
    return value if shape_of(value) is None else None


def _first_index(value: Any, at: Coords, dim: int) -> tuple[int, list[Any]] | None:
    """Lane 0 of a unit-stride value as (constant, scalars to add), None when it has another form."""

    op = owner_of(value)
    if shape_of(value) is None:
        constant = constant_int(value)
        return (constant, []) if constant is not None else (0, [value])
    if op is None:
        return None
    if op.name in INDEX_MAPS:
        return _first_index(op.operands[0], operand_coords(op, at), dim)
    if op.name == "tt.make_range":
        return (int_attribute(op, "start"), []) if at[0] in (dim, None) else None
    if op.name == "arith.addi":
        a, b = (_first_index(v, at, dim) for v in op.operands)
        return None if a is None or b is None else (a[0] + b[0], [*a[1], *b[1]])
    return None


def _unobservable(nest: NestInfo, bound: Bound) -> bool:
    """Whether lanes beyond the bound change nothing; buffers written there are judged later, with their readers."""
    masks = Masks(dict.fromkeys(bound.comparisons, False))
    return all(_does_nothing(nest, anchor, masks) for anchor in nest.anchors if anchor.name != "tp.write")


def _does_nothing(nest: NestInfo, anchor: Any, masks: Masks) -> bool:
    """Whether an anchor has no effect where ``masks`` hold."""
    at = nest.coords[anchor]
    if anchor.name == "tt.reduce":
        neutral = nest.identities[anchor]
        return neutral is not None and all(
            _is_constant(masks, value, at, identity) for value, identity in zip(anchor.operands, neutral, strict=True)
        )
    if anchor.name == "tt.assert":
        return masks.known(anchor.operands[0], at) is True
    position = MASKS[anchor.name]
    return len(anchor.operands) > position and masks.known(anchor.operands[position], at) is False


def _is_constant(masks: Masks, value: Any, at: Coords, wanted: Any) -> bool:
    """Whether a value is known to equal a constant under the masks assumed."""

    value, at = masks.resolve(value, at)
    op = owner_of(value)
    if op is None:
        return False
    if op.name == "tt.load" and len(op.operands) > 1 and masks.known(op.operands[1], at) is False:
        if len(op.operands) > 2:
            return _is_constant(masks, op.operands[2], at, wanted)
        return _number(wanted) == 0
    if op.name == "arith.extf" or op.name == "arith.extsi":
        return (
            _is_constant(masks, op.operands[0], at, wanted)
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
