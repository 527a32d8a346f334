"""Emits one step of a matrix unit: some products are added to an accumulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple, Protocol, TypeAlias

from mlir import ir
from mlir.dialects import math

from torchport.arithmetic.formats import FORMATS
from torchport.arithmetic.rules import DotRule
from torchport.errors import UnsupportedOperation
from torchport_passes.arithmetic.exact_sum import exact_sum, fused_multiply_add, two_sum
from torchport_passes.arithmetic.formats import HIDDEN, at_least, at_most, exponent, flushed, rounded, scaled_inverse
from torchport_passes.ir.types import Value
from torchport_passes.loops.loop_builder import constant, end, loop_from
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["Rows", "Step", "Terms"]

Rows: TypeAlias = list[VectorValue]
"""A value for each row of a tile."""

_MOST = 64  # of a step that adds rounded products: its code grows with them
_MOST_EXACT = 16  # of a step whose sum is an expansion: its code grows with their square
_LEAST = 2.0**-300  # below the powers of products, above those of zeros
_INF = float("inf")
_BEYOND = 2.0**128  # of f32


class Terms(Protocol):
    """What a step adds up, for each row of a tile."""

    @property
    def count(self) -> int:
        """The number of terms."""

    def products(self, offset: Value, *, powers: bool = False) -> Rows:
        """Term ``offset`` (an i64) of each row, an f64: a product, or with ``powers`` that of the powers of two."""


class _Cut(NamedTuple):
    """A sum of terms cut to some bits behind those of the largest power of two, ``power``.

    units: the sum in units of the last of these bits.
    plain: the sum in f64, of use where it is Inf or NaN.
    """

    units: VectorValue
    power: VectorValue
    plain: VectorValue

    def value(self, fraction: int) -> VectorValue:
        """The sum, if ``fraction`` bits were kept. Inf and NaN bypass alignment."""
        return _finite(self.units * (self.power * 2.0**-fraction), self.plain)


class Step:
    """Emits steps that follow ``rule``, in f64.

    The models are those of MMA-Sim (Xie, Xu, Wang, Yang and Yang, arXiv 2511.10909) and its package mmasim 2.1.1: with
    ``fraction`` its truncated fused dot-product-add, with ``stages`` that of CDNA3 (with ``apart`` of its 8-bit
    floats), with ``within = pairwise`` that of CDNA2, with neither the exact one of CDNA1. The exponent of a product is
    the sum of the exponents of its factors, as the units do not normalise products.

    ``least``: exponents of the smallest normal numbers of both operands.
    """

    def __init__(self, rule: DotRule, least: Sequence[int]) -> None:
        self.rule = rule
        self.format = rule.accumulator or "f32"
        self.narrow = min(least) >= -16  # f16 or less: products are multiples of 2^-48 below 2^34
        self.least = FORMATS[self.format].least
        self.zero = None if rule.zero is None else 2.0 ** (self.least - rule.zero)
        self.hides = self.zero is not None and 2.0 ** sum(least) < self.zero  # a product may be smaller than a zero
        self.overflows = rule.limit and not self.narrow

    def round(self, x: VectorValue) -> VectorValue:
        """A result of a step, rounded to the accumulator's format."""
        result = rounded(x, self.format, self.rule.rounding)
        return flushed(result, FORMATS[self.format].least) if self.rule.flush else result

    def add(self, totals: Rows, terms: Terms) -> Rows:
        """The accumulators of a tile's rows after one step."""
        rule = self.rule
        if rule.within in ("pairwise", "sequential"):
            return self._separate(totals, terms)
        if rule.fraction is None:
            return self._exact(totals, terms)
        return self._aligned(totals, terms, rule.fraction)

    def _exact(self, totals: Rows, terms: Terms) -> Rows:
        """The exact sum, rounded once. More terms of wide types than ``_MOST_EXACT`` are added up in f64."""
        rule = self.rule
        single = (self.format, rule.rounding) == ("f32", "rne") and (rule.signed or not rule.flush)
        if terms.count == 1 and single:
            sums = _each(totals, terms.products(constant(0)), fused_multiply_add)
            return [flushed(total, self.least) for total in sums] if rule.flush else sums
        if self.format == "f64" or not (self.narrow or terms.count <= _MOST_EXACT):
            sums = _accumulate(terms.count, totals, lambda k, now: _each(now, terms.products(k), VectorValue.__add__))
        elif self.narrow:
            sums = self._double(totals, terms)
        else:
            columns = [terms.products(constant(k)) for k in range(terms.count)]
            rows = [list(row) for row in zip(*columns, totals, strict=True)]
            sums = [exact_sum(row, reduce(VectorValue.__add__, row)) for row in rows]
        return [self.round(total) for total in sums]

    def _double(self, totals: Rows, terms: Terms) -> Rows:
        """Exact sums of narrow products, kept as two f64 each: the sum of the errors is exact, too."""
        rows = len(totals)
        zeros = [total.const(0.0) for total in totals]

        def more(k: Value, now: Rows) -> Rows:
            both = [two_sum(high, one) for high, one in zip(now[:rows], terms.products(k), strict=True)]
            return [high for high, _ in both] + [now[rows + i] + error for i, (_, error) in enumerate(both)]

        found = _accumulate(terms.count, zeros + zeros, more)
        return [exact_sum([found[rows + i], found[i], one], found[i] + one) for i, one in enumerate(totals)]

    def _aligned(self, totals: Rows, terms: Terms, fraction: int) -> Rows:
        """All terms, cut to ``fraction`` bits below the largest exponent among them, are added exactly."""
        if self.rule.stages is not None:
            return self._staged(totals, terms, fraction, self.rule.stages)
        powers = [exponent(total, self.least, zero=self.zero or HIDDEN) for total in totals]
        # Zeros have no sign.
        return [self.round(one.value(fraction)) + 0.0 for one in self._cut(totals, powers, terms, fraction)]

    def _cut(self, start: Rows, powers: Rows, terms: Terms, fraction: int, first: int = 0, step: int = 1) -> list[_Cut]:
        """For each row the sum of ``start`` and every ``step``-th term from ``first`` on, each cut."""
        rows = len(start)

        def compare(k: Value, now: Rows) -> Rows:
            found = terms.products(k, powers=True)
            larger = _each(now[:rows], found, at_most)
            return larger + (_each(now[rows:], found, at_least) if self.hides else [])

        found = _accumulate(terms.count, powers * (1 + self.hides), compare, first, step)
        largest = found[:rows]
        if self.hides and self.zero is not None:
            zero = self.zero
            largest = _each(
                largest, found[rows:], lambda one, least: select(least.lt(_LEAST), at_most(one, one.const(zero)), one)
            )
        scales = [scaled_inverse(power, fraction) for power in largest]

        def more(k: Value, now: Rows) -> Rows:
            products = terms.products(k)
            sums = [now[i] + _trunc(products[i] * scales[i]) for i in range(rows)]
            return sums + [now[rows + i] + self._limited(products[i]) for i in range(rows)]

        cut = [_trunc(total * scale) for total, scale in zip(start, scales, strict=True)]
        both = _accumulate(terms.count, cut + start, more, first, step)
        return [_Cut(both[i], largest[i], both[rows + i]) for i in range(rows)]

    def _limited(self, product: VectorValue) -> VectorValue:
        """A product, infinite where a unit's own products would be."""
        return select(product.abs().ge(_BEYOND), product * _INF, product) if self.overflows else product

    def _staged(self, totals: Rows, terms: Terms, fraction: int, stages: int) -> Rows:
        """CDNA3: products first, then their sum and the accumulator."""
        zeros = [total.const(0.0) for total in totals]
        hidden = [total.const(HIDDEN * HIDDEN) for total in totals]
        if self.rule.apart:
            even, odd = (self._cut(zeros, hidden, terms, fraction, first, 2) for first in (0, 1))
            sums = [_joined(*pair) for pair in zip(even, odd, strict=True)]
        else:
            sums = self._cut(zeros, hidden, terms, fraction)
        results = []
        for total, one in zip(totals, sums, strict=True):
            value = self._second(one.units * (one.power * 2.0**-fraction), total, one.power, fraction, stages)
            results.append(self.round(_finite(value, one.plain + total)))
        return results

    def _second(
        self, products: VectorValue, total: VectorValue, power: VectorValue, fraction: int, stages: int
    ) -> VectorValue:
        """Both are rounded down (not toward zero) to units of the larger one, then their sum."""
        own = exponent(total, self.least, zero=None)
        power = at_most(power, own)
        left = _floor(products * scaled_inverse(power, stages + 1)) * (power * 2.0 ** -(stages + 1))
        right = _floor(total * scaled_inverse(power, fraction)) * (power * 2.0**-fraction)
        if self.rule.apart:  # the accumulator is shifted out, not rounded
            right = select((own * 2.0 ** (fraction + 1)).lt(power), total.const(0.0), right)
        both = left + right + 0.0  # a zero is +0
        unit = exponent(both, self.least, zero=None)
        return _floor(both * scaled_inverse(unit, stages)) * (unit * 2.0**-stages)

    def _separate(self, totals: Rows, terms: Terms) -> Rows:
        """Products and sums in f32, each rounded to nearest."""
        if terms.count > _MOST:
            raise UnsupportedOperation("tt.dot", f"within = {self.rule.within} takes groups of at most {_MOST} terms")
        if self.rule.flush:
            totals = [flushed(total, self.least, signed=self.rule.signed) for total in totals]
        columns = [[self._single(p) for p in terms.products(constant(k))] for k in range(terms.count)]
        while len(columns) > 1 and self.rule.within == "pairwise":
            pairs = [self._sums(*columns[i : i + 2]) for i in range(0, len(columns) - 1, 2)]
            columns = pairs + columns[len(columns) // 2 * 2 :]
        whole = columns[0]
        for column in columns[1:]:
            whole = self._sums(whole, column)
        return [self.round(total + one) for total, one in zip(totals, whole, strict=True)]

    def _sums(self, left: Rows, right: Rows) -> Rows:
        return _each(left, right, lambda a, b: self._single(a + b))

    def _single(self, x: VectorValue) -> VectorValue:
        """Rounded to f32."""
        x = rounded(x, "f32", "rne")
        return flushed(x, -126) if self.rule.flush else x


def _joined(even: _Cut, odd: _Cut) -> _Cut:
    """Two sums, rounded down to units of the larger power."""
    power = at_most(even.power, odd.power)
    scale = scaled_inverse(power, 0)
    units = _floor(even.units * (even.power * scale)) + _floor(odd.units * (odd.power * scale))
    return _Cut(units, power, even.plain + odd.plain)


def _finite(x: VectorValue, plain: VectorValue) -> VectorValue:
    """``x``, or ``plain`` where that is Inf or NaN."""
    return select(plain.abs().lt(_INF), x, plain)


def _each(left: Rows, right: Rows, combine: Callable[[VectorValue, VectorValue], VectorValue]) -> Rows:
    return [combine(a, b) for a, b in zip(left, right, strict=True)]


def _accumulate(count: int, start: Rows, more: Callable[[Value, Rows], Rows], first: int = 0, step: int = 1) -> Rows:
    """``start`` after ``more(k, values)`` for every ``step``-th term from ``first`` on."""
    steps = loop_from(first, count, [row.value for row in start], step)
    with ir.InsertionPoint(steps.body):
        end([row.value for row in more(steps.induction_variable, [VectorValue(v) for v in steps.inner_iter_args])])
    return [VectorValue(value) for value in steps.results]


def _trunc(x: VectorValue) -> VectorValue:
    return VectorValue(math.trunc(x.value))


def _floor(x: VectorValue) -> VectorValue:
    return VectorValue(math.floor(x.value))
