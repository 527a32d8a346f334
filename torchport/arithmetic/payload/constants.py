"""The payloads of constants: of the simplest number that rounds to a constant in its type."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from torchport.arithmetic.payload import field

__all__ = ["payload_of"]

_SIMPLE = 24.0
"""Bits of numerator and denominator up to which a fraction is taken for what was meant; f32 has so many."""
_OTHER, _ROOT = 6.0, 3.0  # bits that a factor, or a root, costs besides

_FACTORS = (
    (1.0, field.pack(1, 1), 0.0),
    (1 / math.log(2.0), field.LOG2E, _OTHER),
    (math.log(2.0), field.inverse(field.LOG2E), _OTHER),
    (math.log(10.0), field.LN10, _OTHER),
    (1 / math.log(10.0), field.inverse(field.LN10), _OTHER),
    (math.log10(2.0), field.inverse(field.product(field.LOG2E, field.LN10)), _OTHER),
    (math.pi, field.PI, _OTHER),
    (1 / math.pi, field.inverse(field.PI), _OTHER),
)
"""Numbers that constants are multiples of, their payloads, and their cost."""
_SQUARES = (_FACTORS[0], _FACTORS[6], _FACTORS[7])
"""Numbers that squares of constants are multiples of."""


@lru_cache(maxsize=65536)
def payload_of(number: float, mantissa: int = 24) -> int:
    """The payload of a constant. ``mantissa``: bits of its type's, the leading one included; beyond 24 counts as 24.

    The constant is taken for the simplest number that rounds to it: a fraction, or one times a power, a root or a
    logarithm that kernels use. If there is none, for its f32 rounding. So two constants that differ in f32 have
    different payloads, and 0.1 has the same in f32 and in f64.
    """
    if math.isnan(number):
        return field.NAN
    if math.isinf(number):
        return field.INFINITY if number > 0 else field.MINUS_INFINITY
    if number == 0:
        return 0
    if number < 0:
        a, b = field.unpack(payload_of(-number, mantissa))
        return field.pack(-a, -b)
    number = _single(number)
    candidates = sorted(_candidates(number, min(mantissa, 24)))
    if candidates and candidates[0][0] <= _SIMPLE:
        return candidates[0][1]
    return _fraction(Fraction(number))


def _candidates(number: float, mantissa: int) -> Iterator[tuple[float, int]]:
    """Numbers that round to ``number``: their cost in bits, and their payloads."""
    part_of_unit, _ = math.frexp(number)
    near = 0.999 * 2.0 ** (-mantissa - 1) / part_of_unit  # half a unit in the last place, relative to the number
    for factor, payload, cost in _FACTORS:
        if (part := _simplest(number / factor, near)) is not None:
            yield _bits(part) + cost, field.product(_fraction(part), payload)
        for inner, inside, inner_cost in _SQUARES:
            if (part := _simplest((number / factor) ** 2 / inner, 2 * near)) is not None:
                found = field.product(field.root(field.product(_fraction(part), inside)), payload)
                yield _bits(part) + cost + inner_cost + _ROOT, found


def _bits(part: Fraction) -> float:
    return math.log2(part.numerator) + math.log2(part.denominator)


def _fraction(part: Fraction) -> int:
    up, down = (field.pack(number, number) for number in (part.numerator, part.denominator))
    return field.product(up, field.inverse(down))


def _single(number: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return number


def _simplest(number: float, near: float) -> Fraction | None:
    """The fraction of the least denominator within ``number * (1 - near)`` and ``number * (1 + near)``.

    None if it is longer than ``_SIMPLE`` bits. Continued fractions of both bounds, as far as they agree.
    """
    low, high = number * (1 - near), number * (1 + near)
    before, last = (0, 1), (1, 0)  # convergents: (numerator, denominator)
    while 0.0 < low <= high < 2.0**_SIMPLE:
        whole = math.ceil(low)
        done = whole <= high
        if not done:
            whole -= 1
        before, last = last, (whole * last[0] + before[0], whole * last[1] + before[1])
        if last[0] * last[1] > 2.0**_SIMPLE:
            return None
        if done:
            return Fraction(*last)
        low, high = 1 / (high - whole), 1 / (low - whole)
    return None
