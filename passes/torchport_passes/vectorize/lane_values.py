"""Evaluates tensor values of a loop nest, on demand, as scalars or as vectors of lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mlir import ir
from mlir.dialects import arith, vector

from torchport.errors import UnsupportedOperation
from torchport_passes.analysis.masks import Masks
from torchport_passes.analysis.strides import StrideAnalysis
from torchport_passes.ir.build import as_integer, is_pointer, offset_addresses, offset_pointer
from torchport_passes.ir.elementwise import elementwise
from torchport_passes.ir.ops import Coords, constant_splat, defining_op, element_type, int_attribute, shape_of
from torchport_passes.ir.traits import POSITIONAL, is_elementwise
from torchport_passes.ir.types import InsertionPoint, Op, Type, Value

__all__ = ["Known", "LaneValues", "Level", "LoadLowering", "Place"]


@dataclass
class Place:
    """Where the next operation goes. Loops of a single step share the place of the loop around them."""

    point: InsertionPoint


@dataclass
class Level:
    """One loop of the nest being emitted, or the place outside of all loops.

    ``place``: where the next operation goes.
    ``index``: the loop's induction variable, an i64; None outside of all loops.
    ``memo``: the values emitted here, by value, coordinates and form ("scalar" or "vector").
    """

    place: Place
    index: Value = None
    memo: dict[tuple[Value, Coords, str], Value] = field(default_factory=dict)

    @property
    def point(self) -> InsertionPoint:
        return self.place.point


@dataclass(frozen=True)
class Known:
    """What is known in one part of a loop.

    ``masks``: comparisons whose results are known.
    ``resolved``: values, with coordinates, that they resolve others to, as they are asked for.
    ``depths``: the depths of the innermost loops that values depend on, likewise.
    """

    masks: Masks
    resolved: dict[tuple[Value, Coords], tuple[Value, Coords]] = field(default_factory=dict)
    depths: dict[tuple[Value, Coords], int] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadLowering:
    """The functions that emit an operation that reads memory.

    ``scalar``: emits the value of lane 0; takes the nest's values, the operation and its coordinates.
    ``vector``: emits the values of all lanes; takes the level and the vector type as well.
    """

    scalar: Callable[[LaneValues, Op, Coords], Value]
    vector: Callable[[LaneValues, Op, Coords, Level, Type], Value]


class LaneValues:
    """Values of one loop nest while the body of its innermost loop is emitted.

    A value is computed in the outermost loop that it depends on, once. A value that is the same in all lanes is a
    scalar.

    ``loops``: dimensions of the nest, from the outermost loop inwards.
    ``strides``: how values change from lane to lane.
    ``levels``: the loops around the current point; level 0 is outside of all.
    ``known``: what is known in this part of the loop, and of values there; steps of one part share it.
    ``loads``: by name, the operations that read memory.
    """

    def __init__(
        self,
        loops: Sequence[int],
        strides: StrideAnalysis,
        levels: list[Level],
        known: Known,
        loads: Mapping[str, LoadLowering],
    ) -> None:
        self.loops = loops
        self.strides = strides
        self.levels = levels
        self.masks = known.masks
        self.known = known
        self.loads = loads

    # ---- placement

    def _resolve(self, value: Value, coords: Coords) -> tuple[Value, Coords]:
        """What the masks resolve a value to."""
        key = (value, coords)
        found = self.known.resolved.get(key)
        if found is None:
            found = self.known.resolved[key] = self.masks.resolve(value, coords)
        return found

    def level_of(self, value: Value, coords: Coords) -> int:
        """Depth of the innermost loop that a value depends on."""
        key = (value, coords)
        level = self.known.depths.get(key)
        if level is None:
            level = self.known.depths[key] = self._level_of(*self._resolve(value, coords))
        return level

    def _level_of(self, value: Value, coords: Coords) -> int:
        """The same of a resolved value."""
        if shape_of(value) is None:
            return 0
        op = defining_op(value)
        if op.name in POSITIONAL:
            return max((self.loops.index(c) + 1 for c in coords if c is not None), default=0)
        return max((self.level_of(v, coords) for v in op.operands), default=0)

    def level_of_vector(self, value: Value, coords: Coords) -> int:
        """The same for the vector of all lanes, which the vectorised loop holds unless they are equal."""
        level = self.level_of(value, coords)
        return level if self.strides.uniform(value, coords) else max(level, self.loops.index(self.strides.dim) + 1)

    # ---- evaluation

    def scalar(self, value: Value, coords: Coords) -> Value:
        """The value in lane 0 of the current chunk (in every lane, when it is uniform)."""
        value, coords = self._resolve(value, coords)
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

    def _scalar(self, op: Op, value: Value, coords: Coords, operands: list[Value] | None) -> Value:
        """Emit lane 0 of ``op``'s result; ``operands`` are those of an elementwise operation, None for others."""
        type_ = element_type(value.type)
        if op.name == "tt.make_range":
            start = int_attribute(op, "start")
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
        if op.name in self.loads:
            return self.loads[op.name].scalar(self, op, coords)
        if operands is None:
            raise UnsupportedOperation(op.name, "the CPU target has no lowering for it")
        if op.name == "tt.addptr":
            return offset_pointer(operands[0], operands[1], op)
        return elementwise(op, operands, type_)

    def vector(self, value: Value, coords: Coords) -> Value:
        """The value in all lanes of the current chunk."""
        value, coords = self._resolve(value, coords)
        lane = self.strides.of(value, coords)
        level = self.levels[self.level_of_vector(value, coords)]
        key = (value, coords, "vector")
        if key in level.memo:
            return level.memo[key]
        type_ = element_type(value.type)
        pointer = is_pointer(type_)
        wanted = ir.VectorType.get([self.strides.lanes], ir.IntegerType.get_signless(64) if pointer else type_)
        if lane.uniform:
            scalar = self.scalar(value, coords)
            with level.point:
                result = vector.BroadcastOp(wanted, as_integer(scalar) if pointer else scalar).result
        elif lane.stride is not None and not pointer and not lane.presumed:
            scalar = self.scalar(value, coords)
            with level.point:
                result = self._ramp(scalar, lane.stride, wanted)
        else:
            result = self._vector(value, coords, level, wanted)
        level.memo[key] = result
        return result

    def _ramp(self, scalar: Value, stride: int, wanted: Type) -> Value:
        """``scalar + stride * lane``."""
        type_ = wanted.element_type
        half = 1 << (type_.width - 1)
        steps = [(stride * i + half) % (2 * half) - half for i in range(self.strides.lanes)]
        attribute = ir.DenseElementsAttr.get([ir.IntegerAttr.get(type_, s) for s in steps], wanted)
        return arith.AddIOp(
            vector.BroadcastOp(wanted, scalar).result, arith.ConstantOp(wanted, attribute).result
        ).result

    def _vector(self, value: Value, coords: Coords, level: Level, wanted: Type) -> Value:
        """Emit all lanes of a value that is neither uniform nor a ramp."""
        op = defining_op(value)
        if op.name in self.loads:
            return self.loads[op.name].vector(self, op, coords, level, wanted)
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
