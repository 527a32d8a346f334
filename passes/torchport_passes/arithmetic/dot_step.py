"""Emits one step of a matrix unit: some products are added to an accumulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from mlir import ir
from mlir.dialects import arith, math

from torchport.arithmetic.formats import FORMATS
from torchport.arithmetic.rules import DotRule
from torchport.errors import UnsupportedOperation
from torchport_passes.arithmetic.formats import at_most, exponent, flushed, rounded, scaled_inverse
from torchport_passes.ir.types import Value
from torchport_passes.loops.loop_builder import constant, end, loop
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["Rows", "Step", "Terms"]

Rows: TypeAlias = list[VectorValue]
"""A value for each row of a tile."""

_MOST = 64  # of a step that adds rounded products: its code grows with them
_INF = float("inf")


class Terms(Protocol):
    """What a step adds up, for each row of a tile."""

    @property
    def count(self) -> int:
        """The number of terms."""

    def products(self, offset: Value, *, powers: bool = False) -> Rows:
        """Term ``offset`` (an i64) of each row, an f64: a product, or with ``powers`` that of the powers of two."""


class Step:
    """Emits steps that follow ``rule``, in f64.

    The models are those of MMA-Sim (Xie, Wang, Yang and Yang, arXiv 2511.10909): with ``fraction`` its truncated fused
    dot-product-add, with ``stages`` that of CDNA3, with ``within = pairwise`` that of CDNA2. The exponent of a product
    is the sum of the exponents of its factors, as the units do not normalise products.
    """

    def __init__(self, rule: DotRule) -> None:
        self.rule = rule
        self.format = rule.accumulator or "f32"

    def round(self, x: VectorValue) -> VectorValue:
        """A result of a step, rounded to the accumulator's format."""
        result = rounded(x, self.format, self.rule.rounding)
        return flushed(result, FORMATS[self.format].least) if self.rule.flush else result

    def add(self, totals: Rows, terms: Terms) -> Rows:
        """The accumulators of a tile's rows after one step."""
        rule = self.rule
        if rule.within != "fused":
            return self._separate(totals, terms)
        if rule.fraction is None:
            if terms.count == 1 and (self.format, rule.rounding) == ("f32", "rne") and not rule.flush:
                return [_fma(total, left) for total, left in zip(totals, terms.products(constant(0)), strict=True)]
            sums = _accumulate(terms, totals, lambda k, now: _each(now, terms.products(k), VectorValue.__add__))
            return [self.round(total) for total in sums]
        return self._aligned(totals, terms, rule.fraction)

    def _aligned(self, totals: Rows, terms: Terms, fraction: int) -> Rows:
        """All terms, truncated to ``fraction`` bits below the largest exponent among them, are added exactly."""
        rows = len(totals)
        powers = [exponent(total, -126) for total in totals]
        least = [power.const(0.0) for power in powers] if self.rule.stages is not None else powers
        largest = _accumulate(terms, least, lambda k, now: _each(now, terms.products(k, powers=True), at_most))
        scales = [scaled_inverse(power, fraction) for power in largest]
        start = list(totals) if self.rule.stages is None else [t.const(0.0) for t in totals]
        cut = [_trunc(total * scale) for total, scale in zip(start, scales, strict=True)]

        def more(k: Value, now: Rows) -> Rows:
            products = terms.products(k)
            sums = [now[i] + _trunc(products[i] * scales[i]) for i in range(rows)]
            return sums + [now[rows + i] + products[i] for i in range(rows)]

        both = _accumulate(terms, cut + totals, more)
        results = []
        for i in range(rows):
            value, power = both[i] * (largest[i] * 2.0**-fraction), largest[i]
            if self.rule.stages is not None:
                power = at_most(power, powers[i])
                value = self._second(value, totals[i], power, fraction, self.rule.stages)
            # Inf and NaN bypass alignment
            results.append(self.round(select(power.eq(_INF), both[rows + i], value)))
        return results

    def _second(
        self, products: VectorValue, total: VectorValue, power: VectorValue, fraction: int, stages: int
    ) -> VectorValue:
        """CDNA3's second stage: both are rounded down (not toward zero) to units of the larger one, then their sum."""
        left = _floor(products * scaled_inverse(power, stages + 1)) * (power * 2.0 ** -(stages + 1))
        right = _floor(total * scaled_inverse(power, fraction)) * (power * 2.0**-fraction)
        both = left + right
        unit = exponent(both, -126, zero=None)
        return _floor(both * scaled_inverse(unit, stages)) * (unit * 2.0**-stages)

    def _separate(self, totals: Rows, terms: Terms) -> Rows:
        """Products and sums in f32, each rounded to nearest."""
        if terms.count > _MOST:
            raise UnsupportedOperation("tt.dot", f"within = {self.rule.within} takes groups of at most {_MOST} terms")
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


def _each(left: Rows, right: Rows, combine: Callable[[VectorValue, VectorValue], VectorValue]) -> Rows:
    return [combine(a, b) for a, b in zip(left, right, strict=True)]


def _accumulate(terms: Terms, start: Rows, more: Callable[[Value, Rows], Rows]) -> Rows:
    """``start`` after ``more(k, values)`` for every term."""
    steps = loop(terms.count, 1, [row.value for row in start])
    with ir.InsertionPoint(steps.body):
        end([row.value for row in more(steps.induction_variable, [VectorValue(v) for v in steps.inner_iter_args])])
    return [VectorValue(value) for value in steps.results]


def _trunc(x: VectorValue) -> VectorValue:
    return VectorValue(math.trunc(x.value))


def _floor(x: VectorValue) -> VectorValue:
    return VectorValue(math.floor(x.value))


def _fma(total: VectorValue, product: VectorValue) -> VectorValue:
    """``total + product``, rounded once to f32.

    Rounding to f64 first and then to f32 could differ. So the error of the first rounding is computed (Knuth's TwoSum);
    if there is one, the sum is made odd, which the second rounding cannot take for a tie.
    """
    f64, f32 = total.element, ir.F32Type.get()
    both = total + product
    part = both - total
    error = (total - (both - part)) + (product - part)
    bits = both.to_bits()
    away = (both.lt(0.0)).value
    same = VectorValue(arith.cmpi(arith.CmpIPredicate.eq, error.lt(0.0).value, away))
    neighbour = select(same, bits, bits - 1) | 1  # toward the sum, of both numbers around it the odd one
    odd = select(error.ne(0.0), neighbour, bits).cast_bits(f64)
    finite = both.abs().lt(_INF)
    return select(finite, odd, both).truncate_float(f32).extend_float(f64)
