"""Finds out how integers change from lane to lane, which shows contiguous accesses and uniform masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

from mlir import ir

from torchport_passes.ir.ops import (
    Coords,
    constant_behind,
    constant_int,
    element_type,
    int_attribute,
    operand_coords,
    owner_of,
    shape_of,
)
from torchport_passes.ir.traits import INDEX_MAPS, POSITIONAL, PROGRAM_IDS, REPEATS
from torchport_passes.ir.types import Op, Value

__all__ = ["NOT_ABOVE", "NOT_BELOW", "StrideAnalysis", "StrideFact"]

NOT_BELOW, NOT_ABOVE = 0, -1
"""In place of a divisor: no lane is below zero; none is above."""


@dataclass(frozen=True)
class StrideFact:
    """What is known of a value inside one chunk of lanes.

    ``stride``: the difference between neighbouring lanes, None if it is not known or not constant.
    ``divisor``: a divisor of the value in lane 0; 0 if the value is 0.
    ``nonnegative``: whether no lane is known to be below zero.
    ``presumed``: whether this holds only if no 32-bit integer, widened afterwards, wraps between two lanes. Addresses
        may presume so, as one that wraps is outside of any tensor; data may not.
    """

    stride: int | None
    divisor: int = 1
    nonnegative: bool = False
    presumed: bool = False

    @property
    def uniform(self) -> bool:
        """Whether all lanes are equal."""
        return self.stride == 0


UNKNOWN = StrideFact(None)

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
        rule = _RULES.get(name)
        if rule is not None:
            fact = _wrapped(rule(self, op, coords, operands), value)
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
        if op.name in _RULES and op.name not in ("arith.select",) and not op.name.startswith("arith.cmp"):
            operands = [self._scalar(v, owner_of(v), depth + 1) for v in op.operands]
            return _RULES[op.name](self, op, (), operands)
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


def _add(analysis: StrideAnalysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    a, b = operands
    stride = None if a.stride is None or b.stride is None else a.stride + b.stride
    return StrideFact(stride, gcd(a.divisor, b.divisor), a.nonnegative and b.nonnegative)


def _sub(analysis: StrideAnalysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    a, b = operands
    stride = None if a.stride is None or b.stride is None else a.stride - b.stride
    return StrideFact(stride, gcd(a.divisor, b.divisor))


def _mul(analysis: StrideAnalysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    a, b = operands
    stride = None
    ca, cb = analysis.constant(op.operands[0]), analysis.constant(op.operands[1])
    if a.uniform and b.uniform:
        stride = 0
    elif a.stride is not None and cb is not None:
        stride = a.stride * cb
    elif b.stride is not None and ca is not None:
        stride = b.stride * ca
    return StrideFact(stride, a.divisor * b.divisor, a.nonnegative and b.nonnegative)


def _one_quotient(analysis: StrideAnalysis, op: Op, coords: Coords, lane: StrideFact, divisor: int) -> bool:
    """Whether all lanes of a chunk have one quotient by ``divisor``. Records a division that a guard could make so."""
    if lane.stride != 1 or not lane.nonnegative:
        return False
    if lane.divisor % analysis.lanes == 0 and divisor % analysis.lanes == 0:
        return True
    if divisor < 2 * analysis.lanes:
        return False
    key = (op.operands[0], coords, divisor)
    if analysis.guarded:
        return key in analysis.wraps
    analysis.wraps[key] = None
    return analysis.no_wrap


def _div(analysis: StrideAnalysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    a, b = operands
    c = analysis.constant(op.operands[1])
    if c is not None and c > 0 and (a.uniform or _one_quotient(analysis, op, coords, a, c)):
        return StrideFact(0, a.divisor // c if a.divisor % c == 0 else 1, a.nonnegative)
    return StrideFact(0 if a.uniform and b.uniform else None, 1, a.nonnegative and b.nonnegative)


def _rem(analysis: StrideAnalysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    a, b = operands
    c = analysis.constant(op.operands[1])
    divisor = gcd(a.divisor, b.divisor)
    if c is not None and c > 0 and _one_quotient(analysis, op, coords, a, c):
        return StrideFact(1, divisor, True)
    return StrideFact(0 if a.uniform and b.uniform else None, divisor, a.nonnegative)


def _abs(analysis: StrideAnalysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    """Up or down as the value, if all lanes have one sign. Records a sign that a guard could test."""
    (fact,) = operands
    value = op.operands[0]
    if fact.uniform:
        return replace(fact, nonnegative=True)
    if fact.stride is None or _is_narrow(value):
        return UNKNOWN
    if fact.nonnegative:
        return replace(fact, presumed=True)
    if not analysis.no_wrap:
        return UNKNOWN
    sign = next((sign for sign in (NOT_BELOW, NOT_ABOVE) if (value, coords, sign) in analysis.wraps), None)
    if sign is None:
        if analysis.guarded:
            return UNKNOWN
        met = sum(number <= 0 for _, _, number in analysis.wraps)
        sign = analysis.signs[met] if met < len(analysis.signs) else NOT_BELOW
        analysis.wraps[value, coords, sign] = None
    return StrideFact(fact.stride if sign == NOT_BELOW else -fact.stride, fact.divisor, True, presumed=True)


def _cast(analysis: StrideAnalysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    """A wider integer does not follow one that wraps inside a chunk: a narrow one, or one that changes that fast."""
    (fact,) = operands
    if fact.uniform or op.name == "arith.trunci":
        return fact
    if fact.stride is None or abs(fact.stride) * analysis.lanes >= 1 << 31 or _is_narrow(op.operands[0]):
        return UNKNOWN
    chunk = abs(fact.stride) * analysis.lanes  # 2^31 is between chunks of a power of two that start at multiples of it
    safe = fact.divisor == 0 or (chunk & (chunk - 1) == 0 and fact.divisor % chunk == 0)
    return fact if safe or element_type(op.operands[0].type).width > 32 else replace(fact, presumed=True)


def _is_narrow(value: Value) -> bool:
    """Whether an integer has fewer bits than indices: its arithmetic is data, and may wrap."""
    type_ = element_type(value.type)
    return isinstance(type_, ir.IntegerType) and type_.width < 32


def _wrapped(fact: StrideFact, value: Value) -> StrideFact:
    """What is left of a fact about a narrow integer, from one about the integer without a width."""
    if not _is_narrow(value):
        return fact
    return StrideFact(fact.stride, gcd(fact.divisor, 1 << element_type(value.type).width), False)


def _compare(analysis: StrideAnalysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    """``x < b`` is the same in a whole chunk if both change only in steps of a chunk."""
    a, b = operands
    if a.uniform and b.uniform:
        return StrideFact(0)
    predicate = int_attribute(op, "predicate")
    less = predicate in (2, 5, 6, 9)  # slt, sge, ult, uge
    if less and a.stride == 1 and b.uniform and a.divisor % analysis.lanes == 0 and b.divisor % analysis.lanes == 0:
        return StrideFact(0)
    return UNKNOWN


def _select(analysis: StrideAnalysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    condition, a, b = operands
    if condition.uniform and a.stride == b.stride:
        return StrideFact(a.stride, gcd(a.divisor, b.divisor), a.nonnegative and b.nonnegative)
    if not b.uniform and _never_below_zero(analysis, op.operands[0], coords):
        return replace(b, presumed=True)
    return UNKNOWN


def _never_below_zero(analysis: StrideAnalysis, condition: Value, coords: Coords) -> bool:
    """Whether a condition is ``x < 0`` with an index that is not below zero unless it wraps.

    Indices that are negative count from a dimension's end; most are not.
    """
    compare = owner_of(condition)
    while compare is not None and compare.name in INDEX_MAPS:
        condition, coords = compare.operands[0], operand_coords(compare, coords)
        compare = owner_of(condition)
    if compare is None or compare.name != "arith.cmpi" or int_attribute(compare, "predicate") != 2:
        return False
    index, limit = compare.operands
    constant = analysis.constant(limit)
    if constant is None or constant > 0 or shape_of(index) is None or _is_narrow(index):
        return False
    return analysis.of(index, coords).nonnegative


_RULES = {
    "arith.addi": _add, "arith.subi": _sub, "arith.muli": _mul, "arith.divsi": _div, "arith.divui": _div,
    "arith.remsi": _rem, "arith.remui": _rem, "arith.extsi": _cast, "arith.extui": _cast, "arith.trunci": _cast,
    "arith.index_cast": _cast, "math.absi": _abs, "arith.cmpi": _compare, "arith.select": _select,
}  # fmt: skip
