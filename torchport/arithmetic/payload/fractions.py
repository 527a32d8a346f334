"""Functions that round payloads to integers: exactly where a payload is a fraction, by hashes elsewhere.

A payload determines a number modulo P Q, and a fraction of a small numerator and denominator is found from it by the
extended Euclidean algorithm (rational reconstruction: Wang, "A p-adic algorithm for univariate partial fractions",
1981). Of random payloads one in 2^28 is such a fraction.
"""

from __future__ import annotations

from collections.abc import Callable

from torchport.arithmetic.payload import field
from torchport.arithmetic.payload.field import P, Q
from torchport.arithmetic.payload.machine import Lane, Machine

__all__ = ["ROUNDINGS", "integer_of", "to_signed"]

_NUMERATOR, _DENOMINATOR = 1 << 20, 1 << 12
_STEPS = 64  # the algorithm takes no more: numbers below 2^61 shrink by the golden ratio at least


def integer_of(m: Machine, x: Lane) -> tuple[Lane, Lane]:
    """Whether a payload is an integer of less than 2^29, and which."""
    a = x & 0xFFFFFFFF
    n = m.select(a.lt(P // 2 + 1), a, a - P)
    return x.ult(field.FINITE) & m.remainder(n + Q, Q).eq((x >> 32) & field.HIGH), n


def _fraction_of(m: Machine, x: Lane) -> tuple[Lane, Lane, Lane]:
    """Whether a payload is a fraction, its numerator, and its denominator, which is positive."""
    known, n = integer_of(m, x)
    a, b = x & 0xFFFFFFFF, (x >> 32) & field.HIGH
    number = a + m.remainder(m.remainder(b - a + 4 * Q, Q) * field.INVERSE_P, Q) * P
    zero = m.constant(0, x)

    def step(r0: Lane, r1: Lane, t0: Lane, t1: Lane) -> tuple[Lane, ...]:
        done = r1.lt(_NUMERATOR)
        q = m.quotient(r0, m.select(done, 1, r1))
        nexts = (r1, r0 - q * r1, t1, t0 - q * t1)
        return tuple(m.select(done, old, new) for old, new in zip((r0, r1, t0, t1), nexts, strict=True))

    _, up, _, down = m.repeat(_STEPS, (zero + P * Q, number, zero, zero + 1), step)
    negative = down.lt(0)
    up, down = m.select(negative, 0 - up, up), m.select(negative, 0 - down, down)
    found = x.ult(field.FINITE) & down.lt(_DENOMINATOR) & down.gt(0)
    return known | found, m.select(known, n, up), m.select(known, 1, m.select(found, down, m.constant(1, x)))


def _floor(m: Machine, n: Lane, d: Lane) -> Lane:
    q = m.quotient(n, d)
    return m.select((n - q * d).lt(0), q - 1, q)


def _nearest(m: Machine, n: Lane, d: Lane) -> Lane:
    up = _floor(m, 2 * n + d, 2 * d)
    tie = (2 * n + d).eq(up * 2 * d)
    return m.select(tie & (up & 1).eq(1), up - 1, up)


def _away(m: Machine, n: Lane, d: Lane) -> Lane:
    size = m.select(n.lt(0), 0 - n, n)
    up = m.quotient(2 * size + d, 2 * d)
    return m.select(n.lt(0), 0 - up, up)


_TO_INTEGER: dict[str, Callable[[Machine, Lane, Lane], Lane]] = {
    "ceil": lambda m, n, d: 0 - _floor(m, 0 - n, d),
    "floor": _floor,
    "nearbyint": _nearest,
    "rint": _nearest,
    "round": _away,
    "trunc": lambda m, n, d: m.quotient(n, d),
}


def _rounding(name: str) -> Callable[..., Lane]:
    def function(m: Machine, x: Lane) -> Lane:
        known, n, d = _fraction_of(m, x)
        exact = m.call("from_signed", _TO_INTEGER[name](m, n, d))
        hashed = m.call("hash1", m.constant(field.salt(name), x), x)
        return m.select(known, exact, m.select(x.ult(field.FINITE), hashed, x))

    return function


def to_signed(m: Machine, x: Lane) -> Lane:
    """A payload as an integer, rounded toward zero; of one that is no fraction, 31 bits of a hash."""
    known, n, d = _fraction_of(m, x)
    hashed = m.call("hash1", m.constant(field.salt("to_signed"), x), x) & 0x7FFFFFFF
    return m.select(known, m.quotient(n, d), hashed)


ROUNDINGS: dict[str, Callable[..., Lane]] = {name: _rounding(name) for name in _TO_INTEGER}
"""By the name of the function."""
