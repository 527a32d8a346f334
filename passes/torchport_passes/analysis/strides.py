"""Finds out how integers change from lane to lane, which shows contiguous accesses and uniform masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd

from mlir import ir

from torchport_passes.analysis.stride_rules import NOT_ABOVE, NOT_BELOW, RULES, UNKNOWN, StrideFact, wrapped
from torchport_passes.ir.ops import (
    Coords,
    constant_behind,
    constant_int,
    int_attribute,
    operand_coords,
    owner_of,
    shape_of,
)
from torchport_passes.ir.traits import INDEX_MAPS, POSITIONAL, PROGRAM_IDS, REPEATS
from torchport_passes.ir.types import Op, Value

__all__ = ["NOT_ABOVE", "NOT_BELOW", "StrideAnalysis", "StrideFact"]

_DEEP = 50  # operations in a chain; recursion beyond that could exceed Python's stack
_LEAVES = POSITIONAL | {"arith.constant"}


def _operands(value: Value, coords: Coords) -> list[tuple[Value, Coords]]:
    """The tensors, with coordinates, whose facts decide those of a tensor."""
    op = owner_of(value)
    if op is None or shape_of(value) is None or op.name in _LEAVES:
        return []
    if op.name in INDEX_MAPS:
        coords = operand_coords(op, coords)
    return [(v, coords) for v in op.operands if shape_of(v) is not None]


class StrideAnalysis:
    """Facts about the values of one loop nest, vectorised in chunks of lanes.

    ``dim``: the vector dimension.
    ``lanes``: the length of a chunk; chunks start at its multiples.
    ``no_wrap``: assume that divisions by constants do not step inside a chunk, nor signs change whose absolute value
    is taken. The code must then be guarded.
    ``signs``: the sign assumed of each such value, in the order in which they are met; of others NOT_BELOW.
    ``wraps``: the divisions (value, coordinates, divisor) and signs (value, coordinates, NOT_BELOW or NOT_ABOVE) that a
    guard has to test; filled in by ``of``.
    ``guarded``: set when the guard is written, which then holds for nothing else.
    """

    def __init__(self, dim: int, lanes: int, no_wrap: bool = False, signs: Sequence[int] = ()) -> None:
        self.dim = dim
        self.lanes = lanes
        self.no_wrap = no_wrap
        self.signs = signs
        self.guarded = False
        self.wraps: dict[tuple[Value, Coords, int], None] = {}
        self._memo: dict[tuple[Value, Coords], StrideFact] = {}
        self._depth = 0

    def of(self, value: Value, coords: Coords) -> StrideFact:
        """The facts about ``value`` (tensor or scalar) at ``coords``."""
        key = (value, coords)
        if key not in self._memo:
            if self._depth == _DEEP:
                self._operands_first(value, coords)
            self._depth += 1
            self._memo[key] = self._compute(value, coords)
            self._depth -= 1
        return self._memo[key]

    def _operands_first(self, value: Value, coords: Coords) -> None:
        """Compute the facts of everything behind ``value`` without recursion: chains can have any length."""
        work = list(reversed(_operands(value, coords)))
        while work:
            missing = [key for key in _operands(*work[-1]) if key not in self._memo]
            if missing:
                work += reversed(missing)
                continue
            key = work.pop()
            if key not in self._memo:
                self._memo[key] = self._compute(*key)

    def uniform(self, value: Value, coords: Coords) -> bool:
        """Whether a value is the same in all lanes of a chunk."""
        return self.of(value, coords).uniform

    def _compute(self, value: Value, coords: Coords) -> StrideFact:
        op = owner_of(value)
        if shape_of(value) is None:
            return self._scalar(value, op, 0)
        if op is None:
            return UNKNOWN
        name = op.name
        if name == "tt.make_range":
            return self._range(op, coords[0])
        if name in INDEX_MAPS:
            return self.of(op.operands[0], operand_coords(op, coords))
        if name in POSITIONAL:
            return StrideFact(0) if self.dim not in coords else UNKNOWN
        if name == "arith.constant":
            return StrideFact(0) if self._splat_constant(op) else UNKNOWN
        operands = [self.of(v, coords) for v in op.operands]
        rule = RULES.get(name)
        if rule is not None:
            fact = wrapped(rule(self, op, coords, operands), value)
            return replace(fact, presumed=True) if any(o.presumed for o in operands) else fact
        return StrideFact(0) if all(o.uniform for o in operands) else UNKNOWN

    @staticmethod
    def _splat_constant(op: Op) -> bool:
        value = op.attributes["value"]
        return not isinstance(value, ir.DenseElementsAttr) or value.is_splat

    def _range(self, op: Op, coord: int | None) -> StrideFact:
        start = int_attribute(op, "start")
        if coord == self.dim:
            return StrideFact(1, gcd(start, self.lanes), start >= 0)
        return StrideFact(0, start if coord is None else 1, start >= 0)

    def _scalar(self, value: Value, op: Op | None, depth: int) -> StrideFact:
        """Divisibility of a scalar: a constant, a program id, an argument that Triton marked, or arithmetic on them."""
        if op is None:
            return StrideFact(0, _argument_divisor(value), False)
        constant = constant_int(value)
        if constant is not None:
            return StrideFact(0, abs(constant), constant >= 0)
        if depth > 16 or not op.operands:
            return StrideFact(0, 1, op.name in PROGRAM_IDS)
        if op.name in RULES and op.name not in ("arith.select",) and not op.name.startswith("arith.cmp"):
            operands = [self._scalar(v, owner_of(v), depth + 1) for v in op.operands]
            return RULES[op.name](self, op, (), operands)
        assert isinstance(op, ir.Operation)
        return StrideFact(0)

    def constant(self, value: Value) -> int | None:
        """The integer that every lane of a value equals, None if it is not known at compile time."""
        return constant_behind(value, REPEATS)


def _argument_divisor(value: Value) -> int:
    """A divisor of a block argument: ``tt.divisibility`` of a kernel argument; of a loop's index, by start and step."""
    block = value.owner
    parent = block.owner.operation
    if parent.name == "func.func":
        attributes = parent.attributes
        if "arg_attrs" in attributes and value.owner == parent.regions[0].blocks[0]:
            entry = ir.DictAttr(attributes["arg_attrs"][ir.BlockArgument(value).arg_number])
            if "tt.divisibility" in entry:
                return int(ir.IntegerAttr(entry["tt.divisibility"]).value)
    elif parent.name == "scf.for" and ir.BlockArgument(value).arg_number == 0:
        low, step = constant_int(parent.operands[0]), constant_int(parent.operands[2])
        if low is not None and step is not None:
            return gcd(low, step)
    return 1
