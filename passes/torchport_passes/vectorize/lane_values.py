"""Evaluates tensor values of a nest, on demand, as scalars or as vectors of lanes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlir import ir
from mlir.dialects import arith, vector

from torchport.errors import UnsupportedOperation
from torchport_passes.analysis.strides import Axis
from torchport_passes.ir.build import as_integer, is_pointer, offset_addresses, offset_pointer
from torchport_passes.ir.elementwise import elementwise
from torchport_passes.ir.ops import (
    INDEX_MAPS,
    Coords,
    constant_splat,
    defining_op,
    element_type,
    is_elementwise,
    operand_coords,
    owner_of,
    shape_of,
)
from torchport_passes.vectorize import buffer_access as _buffer_access
from torchport_passes.vectorize import memory as _memory

__all__ = ["Lanes", "Level", "Place"]


@dataclass
class Place:
    """Where the next operation goes. Loops of a single step share the place of the loop around them."""

    point: Any


@dataclass
class Level:
    """One loop of the nest being emitted (level 0 is outside of all): where to insert, and what is computed there."""

    place: Place
    index: Any = None  # the loop's induction variable, i64
    memo: dict[tuple[Any, Coords, str], Any] = field(default_factory=dict)

    @property
    def point(self) -> Any:
        return self.place.point


class Lanes:
    """Values of one nest at the point where its innermost loop body is being emitted.

    A value is computed at the outermost loop level it depends on and remembered there: what does not change from lane
    to lane is a scalar, what does not change along a loop is outside of it. ``loops`` lists nest dimensions from the
    outermost loop inwards; ``masks`` maps comparisons (operation, coordinates) to the constant they are known to be in
    this part of the loop.
    """

    def __init__(
        self, loops: list[int], axis: Axis, levels: list[Level], masks: dict[tuple[Any, Coords], bool]
    ) -> None:
        self.loops = loops
        self.axis = axis
        self.levels = levels
        self.masks = masks
        self._levels: dict[tuple[Any, Coords], int] = {}

    # ---- folding

    def known(self, value: Any, coords: Coords) -> bool | None:
        """The constant a boolean is known to be here."""
        op = owner_of(value)
        if op is None:
            return None
        if (op, coords) in self.masks:
            return self.masks[op, coords]
        name = op.name
        if name in INDEX_MAPS:
            return self.known(op.operands[0], operand_coords(op, coords))
        if name == "tp.check":  # it allows nothing that its mask does not
            return False if len(op.operands) > 1 and self.known(op.operands[1], coords) is False else None
        if name == "arith.constant":
            attribute = constant_splat(op)
            return None if attribute is None or str(element_type(op.results[0].type)) != "i1" else _truth(attribute)
        if name in ("arith.andi", "arith.ori", "arith.xori") and str(element_type(value.type)) == "i1":
            a, b = (self.known(v, coords if shape_of(v) is not None else ()) for v in op.operands)
            if name == "arith.andi":
                return False if a is False or b is False else (True if a and b else None)
            if name == "arith.ori":
                return True if a or b else (False if a is False and b is False else None)
            return None if a is None or b is None else a != b
        return None

    def resolve(self, value: Any, coords: Coords) -> tuple[Any, Coords]:
        """Look through index maps and operations that known masks make trivial."""
        while shape_of(value) is not None:
            op = owner_of(value)
            if op is None:
                break
            if op.name in INDEX_MAPS:
                value, coords = op.operands[0], operand_coords(op, coords)
                continue
            if op.name == "arith.select":
                condition = self.known(op.operands[0], coords if shape_of(op.operands[0]) is not None else ())
                if condition is not None:
                    value = op.operands[1] if condition else op.operands[2]
                    continue
            if op.name in ("arith.andi", "arith.ori") and str(element_type(value.type)) == "i1":
                neutral = op.name == "arith.andi"
                a, b = (self.known(v, coords) for v in op.operands)
                if a is neutral or b is neutral:
                    value = op.operands[1] if a is neutral else op.operands[0]
                    continue
            break
        return value, coords if shape_of(value) is not None else ()

    # ---- placement

    def level_of(self, value: Any, coords: Coords) -> int:
        """Depth of the innermost loop that a value depends on."""
        value, coords = self.resolve(value, coords)
        if shape_of(value) is None:
            return 0
        key = (value, coords)
        if key not in self._levels:
            op = defining_op(value)
            if op.name in ("tt.make_range", "tp.read", "tt.reduce") or op.name in ("tt.atomic_rmw", "tt.atomic_cas"):
                level = max((self.loops.index(c) + 1 for c in coords if c is not None), default=0)
            else:
                level = max((self.level_of(v, coords) for v in op.operands), default=0)
            self._levels[key] = level
        return self._levels[key]

    def level_of_vector(self, value: Any, coords: Coords) -> int:
        level = self.level_of(value, coords)
        return level if self.axis.uniform(value, coords) else max(level, self.loops.index(self.axis.dim) + 1)

    # ---- evaluation

    def scalar(self, value: Any, coords: Coords) -> Any:
        """The value in lane 0 of the current chunk (in every lane, when it is uniform)."""
        value, coords = self.resolve(value, coords)
        if shape_of(value) is None:
            return value
        level = self.levels[self.level_of(value, coords)]
        key = (value, coords, "scalar")
        if key not in level.memo:
            op = defining_op(value)
            operands = None
            if is_elementwise(op.name):
                operands = [self.scalar(v, coords if shape_of(v) is not None else ()) for v in op.operands]
            with level.point:
                level.memo[key] = self._scalar(op, value, coords, operands)
        return level.memo[key]

    def _scalar(self, op: Any, value: Any, coords: Coords, operands: list[Any] | None) -> Any:
        type_ = element_type(value.type)
        if op.name == "tt.make_range":
            start = int(ir.IntegerAttr(op.attributes["start"]).value)
            if coords[0] is None:
                return arith.ConstantOp(type_, start).result
            index = self.levels[self.loops.index(coords[0]) + 1].index
            index = index if index.type == type_ else arith.TruncIOp(type_, index).result
            return arith.AddIOp(index, arith.ConstantOp(type_, start).result).result if start else index
        if op.name == "arith.constant":
            attribute = constant_splat(op)
            if attribute is None:
                raise UnsupportedOperation("arith.constant", "its elements differ")
            return arith.ConstantOp(type_, attribute).result
        if op.name == "tt.load":
            return _memory.load_scalar(self, op, coords)
        if op.name == "tp.read":
            return _buffer_access.read_scalar(self, op, coords)
        if operands is None:
            raise UnsupportedOperation(op.name, "the CPU target has no lowering for it")
        if op.name == "tt.addptr":
            return offset_pointer(operands[0], operands[1], op)
        return elementwise(op, operands, type_)

    def vector(self, value: Any, coords: Coords) -> Any:
        """The value in all lanes of the current chunk."""

        value, coords = self.resolve(value, coords)
        lane = self.axis.of(value, coords)
        level = self.levels[self.level_of_vector(value, coords)]
        key = (value, coords, "vector")
        if key in level.memo:
            return level.memo[key]
        type_ = element_type(value.type)
        pointer = is_pointer(type_)
        wanted = ir.VectorType.get([self.axis.lanes], ir.IntegerType.get_signless(64) if pointer else type_)
        if lane.uniform:
            scalar = self.scalar(value, coords)
            with level.point:
                result = vector.BroadcastOp(wanted, as_integer(scalar) if pointer else scalar).result
        elif lane.stride is not None and not pointer:
            scalar = self.scalar(value, coords)
            with level.point:
                result = self._ramp(scalar, lane.stride, wanted)
        else:
            result = self._vector(value, coords, level, wanted)
        level.memo[key] = result
        return result

    def _ramp(self, scalar: Any, stride: int, wanted: Any) -> Any:
        """``scalar + stride * lane``."""

        type_ = wanted.element_type
        width = type_.width
        steps = [
            ((stride * i + (1 << (width - 1))) % (1 << width)) - (1 << (width - 1)) for i in range(self.axis.lanes)
        ]
        attribute = ir.DenseElementsAttr.get([ir.IntegerAttr.get(type_, s) for s in steps], wanted)
        return arith.AddIOp(
            vector.BroadcastOp(wanted, scalar).result, arith.ConstantOp(wanted, attribute).result
        ).result

    def _vector(self, value: Any, coords: Coords, level: Level, wanted: Any) -> Any:
        op = defining_op(value)
        if op.name == "tt.load":
            return _memory.load_vector(self, op, coords, level, wanted)
        if op.name == "tp.read":
            return _buffer_access.read_vector(self, op, coords, level, wanted)
        if op.name == "tt.addptr":
            operands = [self.vector(v, coords) for v in op.operands]
            with level.point:
                return offset_addresses(operands[0], operands[1], op)
        if not is_elementwise(op.name):
            raise UnsupportedOperation(op.name, "the CPU target has no lowering for it")
        operands = [
            # a scalar condition may choose between vectors
            self.scalar(v, ()) if shape_of(v) is None else self.vector(v, coords)
            for v in op.operands
        ]
        with level.point:
            return elementwise(op, operands, wanted)


def _truth(attribute: Any) -> bool:
    if isinstance(attribute, ir.BoolAttr):
        return bool(ir.BoolAttr(attribute).value)
    return bool(ir.IntegerAttr(attribute).value)
