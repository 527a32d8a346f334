"""Finds the bounds that masks set to a nest's dimensions, and whether anything beyond them can be observed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlir import ir

from torchport_passes.analysis.masks import Comparison, Masks
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
from torchport_passes.ir.types import Attribute, Op, Value
from torchport_passes.vectorize.nest_info import NestInfo
from torchport_passes.vectorize.vector_dimension import Vectorization

__all__ = ["Bound", "Bounds", "find_bounds"]

_SLT, _ULT = 2, 6


@dataclass
class Bound:
    """Comparisons ``index < limit`` with one index and limit: lanes of a dimension are active up to some number.

    ``key``: what the number of active lanes is computed from, comparable between nests.
    ``comparisons``: the comparisons.
    ``constant``: the number of active lanes, None if it is not known at compile time.
    ``unsigned``: whether the comparisons are.
    ``most``: the greatest number of active lanes in any program, None if it is not known.
    ``apart``: what divides the distances of programs' first indices from 0.
    """

    key: tuple[Any, ...]
    comparisons: list[Comparison]
    constant: int | None
    unsigned: bool = False
    most: int | None = None
    apart: int = 1

    def rest(self, length: int) -> int | None:
        """Of lanes in runs of ``length``: how many the last run of the dimension has, ``length`` if all are whole.

        None if it is not known.
        """
        if self.most is None or self.apart % length:
            return None
        return self.most % length or length


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
    """The bounds of one nest's dimensions. ``plan_function`` compares them with those of other nests."""
    peeled = any(identity is None for identity in nest.identities.values())  # its first chunk has no mask
    of_vector = [] if peeled or not nest.shape else _bounds_of(nest, vector.dim)
    trimmed = [bound for bound in of_vector if _unobservable(nest, bound)]
    outer: dict[int, Bound] = {}
    if not any(anchor.name == "tp.write" for anchor in nest.anchors):
        for dim in range(len(nest.shape)):
            bounds = [] if dim in (vector.dim, nest.reduced_dim) else _bounds_of(nest, dim)
            bound = next((bound for bound in bounds if _unobservable(nest, bound)), None)
            if bound is not None:
                outer[dim] = bound
    return Bounds(next(iter(trimmed or of_vector), None), bool(trimmed), outer)


def _bounds_of(nest: NestInfo, dim: int) -> list[Bound]:
    """Bounds ``x < limit`` where ``x`` goes up by one along all of ``dim`` and the limit does not change."""
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
        limit = behind_index_maps(op.operands[1], REPEATS)
        if terms is None or shape_of(limit) is not None:
            continue
        offset, scalars = terms
        constant = constant_int(limit)
        active = None if constant is None or scalars else constant - offset
        key = (offset, tuple(scalars), constant if constant is not None else limit, predicate)
        most = constant if offset >= 0 and all(map(_is_position, scalars)) else None
        apart = math.gcd(offset, *map(_step, scalars))
        bound = found.setdefault(key, Bound(key, [], active, predicate == _ULT, most, apart))
        bound.comparisons.append((op, at))
    return list(found.values())


def _first_index(value: Value, at: Coords, dim: int) -> tuple[int, list[Value]] | None:
    """Lane 0 of a unit-stride value as (constant, scalars to add); None for a value of another form."""
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
    if op.name in ("arith.extsi", "arith.extui"):
        counted = owner_of(behind_index_maps(op.operands[0]))
        if counted is None or counted.name != "tt.make_range":  # another index might wrap before it is widened
            return None
        return _first_index(op.operands[0], at, dim)
    if op.name == "arith.addi":
        a, b = (_first_index(v, at, dim) for v in op.operands)
        return None if a is None or b is None else (a[0] + b[0], [*a[1], *b[1]])
    return None


def _is_position(value: Value) -> bool:
    """Whether a scalar is a place in the grid, scaled, and so not negative: positions do not wrap."""
    op = owner_of(value)
    if op is None:
        return False
    if op.name in ("arith.addi", "arith.muli"):
        return all(map(_is_position, op.operands))
    constant = constant_int(value)
    return op.name in ("tt.get_program_id", "tt.get_num_programs") or (constant is not None and constant >= 0)


def _step(value: Value) -> int:
    """What divides a scalar."""
    op, constant = owner_of(value), constant_int(value)
    if constant is not None:
        return constant
    if op is not None and op.name == "arith.muli":
        return math.prod(map(_step, op.operands))
    return math.gcd(*map(_step, op.operands)) if op is not None and op.name == "arith.addi" else 1


def _unobservable(nest: NestInfo, bound: Bound) -> bool:
    """Whether lanes beyond the bound have no effect, apart from buffers: ``plan_function`` looks at their readers."""
    masks = Masks(dict.fromkeys(bound.comparisons, False))
    return all(_does_nothing(nest, anchor, masks) for anchor in nest.anchors if anchor.name != "tp.write")


def _does_nothing(nest: NestInfo, anchor: Op, masks: Masks) -> bool:
    """Whether an anchor has no effect, given what is known by ``masks``."""
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


def _is_constant(masks: Masks, value: Value, at: Coords, wanted: Attribute) -> bool:
    """Whether a value equals the constant ``wanted``, given what is known by ``masks``."""
    value, at = masks.resolve(value, at)
    op = owner_of(value)
    if op is None:
        return False
    if op.name == "tt.load" and len(op.operands) > 1 and masks.known(op.operands[1], at) is False:
        if len(op.operands) > 2:
            return _is_constant(masks, op.operands[2], at, wanted)
        return _number(wanted) == 0
    if op.name in ("arith.extf", "arith.extsi"):
        same_when_narrow = _number(wanted) in (0, float("inf"), -float("inf"))
        return same_when_narrow and _is_constant(masks, op.operands[0], at, wanted)
    attribute = constant_splat(op)
    assert wanted is None or isinstance(wanted, ir.Attribute)
    return attribute is not None and bool(_number(attribute) == _number(wanted))


def _number(attribute: Attribute) -> int | float:
    if isinstance(attribute, ir.BoolAttr):
        return int(ir.BoolAttr(attribute).value)
    if isinstance(attribute, ir.IntegerAttr):
        return int(ir.IntegerAttr(attribute).value)
    return float(ir.FloatAttr(attribute).value)
