"""What is known of the result of arithmetic on integers, from what is known of its operands in a chunk of lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Protocol

from mlir import ir

from torchport_passes.ir.ops import Coords, element_type, int_attribute, operand_coords, owner_of, shape_of
from torchport_passes.ir.traits import INDEX_MAPS
from torchport_passes.ir.types import Op, Value

__all__ = ["NOT_ABOVE", "NOT_BELOW", "RULES", "UNKNOWN", "Analysis", "StrideFact", "wrapped"]

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


class Analysis(Protocol):
    """What a rule asks of ``StrideAnalysis``, whose attributes these are."""

    lanes: int
    no_wrap: bool
    signs: Sequence[int]
    guarded: bool
    wraps: dict[tuple[Value, Coords, int], None]

    def of(self, value: Value, coords: Coords) -> StrideFact: ...

    def constant(self, value: Value) -> int | None: ...


def _add(analysis: Analysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    a, b = operands
    stride = None if a.stride is None or b.stride is None else a.stride + b.stride
    return StrideFact(stride, gcd(a.divisor, b.divisor), a.nonnegative and b.nonnegative)


def _sub(analysis: Analysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    a, b = operands
    stride = None if a.stride is None or b.stride is None else a.stride - b.stride
    return StrideFact(stride, gcd(a.divisor, b.divisor))


def _mul(analysis: Analysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
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


def _one_quotient(analysis: Analysis, op: Op, coords: Coords, lane: StrideFact, divisor: int) -> bool:
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


def _div(analysis: Analysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    a, b = operands
    c = analysis.constant(op.operands[1])
    if c is not None and c > 0 and (a.uniform or _one_quotient(analysis, op, coords, a, c)):
        return StrideFact(0, a.divisor // c if a.divisor % c == 0 else 1, a.nonnegative)
    return StrideFact(0 if a.uniform and b.uniform else None, 1, a.nonnegative and b.nonnegative)


def _rem(analysis: Analysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    a, b = operands
    c = analysis.constant(op.operands[1])
    divisor = gcd(a.divisor, b.divisor)
    if c is not None and c > 0 and _one_quotient(analysis, op, coords, a, c):
        return StrideFact(1, divisor, True)
    return StrideFact(0 if a.uniform and b.uniform else None, divisor, a.nonnegative)


def _abs(analysis: Analysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
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


def _cast(analysis: Analysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
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


def wrapped(fact: StrideFact, value: Value) -> StrideFact:
    """What is left of a fact about a narrow integer, from one about the integer without a width."""
    if not _is_narrow(value):
        return fact
    return StrideFact(fact.stride, gcd(fact.divisor, 1 << element_type(value.type).width), False)


def _compare(analysis: Analysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    """``x < b`` is the same in a whole chunk if both change only in steps of a chunk."""
    a, b = operands
    if a.uniform and b.uniform:
        return StrideFact(0)
    predicate = int_attribute(op, "predicate")
    less = predicate in (2, 5, 6, 9)  # slt, sge, ult, uge
    if less and a.stride == 1 and b.uniform and a.divisor % analysis.lanes == 0 and b.divisor % analysis.lanes == 0:
        return StrideFact(0)
    return UNKNOWN


def _select(analysis: Analysis, op: Op, coords: Coords, operands: list[StrideFact]) -> StrideFact:
    condition, a, b = operands
    if condition.uniform and a.stride == b.stride:
        return StrideFact(a.stride, gcd(a.divisor, b.divisor), a.nonnegative and b.nonnegative)
    if not b.uniform and _never_below_zero(analysis, op.operands[0], coords):
        return replace(b, presumed=True)
    return UNKNOWN


def _never_below_zero(analysis: Analysis, condition: Value, coords: Coords) -> bool:
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


RULES = {
    "arith.addi": _add, "arith.subi": _sub, "arith.muli": _mul, "arith.divsi": _div, "arith.divui": _div,
    "arith.remsi": _rem, "arith.remui": _rem, "arith.extsi": _cast, "arith.extui": _cast, "arith.trunci": _cast,
    "arith.index_cast": _cast, "math.absi": _abs, "arith.cmpi": _compare, "arith.select": _select,
}  # fmt: skip
