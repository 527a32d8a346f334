"""The functions on payloads, once for kernels and for tensors (docs/numerics/equivalence.md: what holds of them)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torchport.arithmetic.payload import field
from torchport.arithmetic.payload.field import FINITE, INFINITY, MINUS_INFINITY, NAN, NEGATIVE, P, Q
from torchport.arithmetic.payload.fractions import ROUNDINGS, integer_of, to_signed
from torchport.arithmetic.payload.machine import Lane, Machine

__all__ = ["FUNCTIONS", "UNORDERED", "Function"]

UNORDERED = -(1 << 62)
"""What ``order`` gives of NaN."""
_BEYOND = 1 << 40  # what it gives of infinity
_ONE = field.pack(1, 1)
_EXPONENT_BITS = 31  # P and Q have no more
_LARGEST_POWER = 256  # of a root


@dataclass(frozen=True)
class Function:
    """A function: how many payloads (or integers) it takes, and what it is in terms of a machine."""

    arity: int
    body: Callable[..., Lane]


def _low(x: Lane) -> Lane:
    return x & 0xFFFFFFFF


def _high(x: Lane) -> Lane:
    return (x >> 32) & field.HIGH


def _pack(a: Lane, b: Lane) -> Lane:
    return a | (b << 32)


def _finite(x: Lane) -> Lane:
    return x.ult(FINITE)


def _wrapped(m: Machine, x: Lane, modulus: int) -> Lane:
    return m.select(x.lt(modulus), x, x - modulus)


def _power(m: Machine, x: Lane, exponent: Lane | int, modulus: int) -> Lane:
    """``x ** exponent``, the exponent not negative and below 2^31."""
    left = exponent if not isinstance(exponent, int) else m.constant(exponent, x)

    def step(result: Lane, x: Lane, left: Lane) -> tuple[Lane, ...]:
        result = m.select((left & 1).eq(1), m.remainder(result * x, modulus), result)
        return result, m.remainder(x * x, modulus), left >> 1

    return m.repeat(_EXPONENT_BITS, (m.constant(1, x), x, left), step)[0]


def _powers(m: Machine, x: Lane, a: int, b: int) -> Lane:
    return _pack(_power(m, _low(x), a, P), _power(m, _high(x), b, Q))


def _add(m: Machine, x: Lane, y: Lane) -> Lane:
    total = _pack(_wrapped(m, _low(x) + _low(y), P), _wrapped(m, _high(x) + _high(y), Q))
    special = m.select(_finite(x), y, m.select(_finite(y) | x.eq(y), x, NAN))
    return m.select(_finite(x) & _finite(y), total | ((x ^ y) & NEGATIVE), special)


def _neg(m: Machine, x: Lane) -> Lane:
    a, b = _low(x), _high(x)
    other = _pack(m.select(a.eq(0), 0, P - a), m.select(b.eq(0), 0, Q - b))
    return m.select(_finite(x), other | (x & NEGATIVE), m.select(x.eq(NAN), x, x ^ (INFINITY ^ MINUS_INFINITY)))


def _sub(m: Machine, x: Lane, y: Lane) -> Lane:
    return m.call("add", x, m.call("neg", y))


def _mul(m: Machine, x: Lane, y: Lane) -> Lane:
    def infinite() -> Lane:
        signs = m.call("sign", x) * m.call("sign", y)
        product = m.select(signs.gt(0), INFINITY, m.select(signs.lt(0), MINUS_INFINITY, m.constant(NAN, x)))
        return m.select(x.eq(NAN) | y.eq(NAN), NAN, product)

    def exact() -> Lane:
        a = m.remainder(_low(x) * _low(y), P)
        marked = m.select(a.eq(0), 0, (x ^ y) & NEGATIVE)
        return _pack(a, m.remainder(_high(x) * _high(y), Q)) | marked

    return m.branch(_finite(x) & _finite(y), exact, infinite)


def _order(m: Machine, x: Lane) -> Lane:
    """A number by which payloads are compared: of the sign of ``x``, and opposite for ``-x``."""
    a = _low(x)
    euler = m.branch(_finite(x), lambda: _power(m, a, (P - 1) // 2, P), lambda: a)
    key = m.select(euler.eq(1) | a.eq(0), a, a - P)
    special = m.select(x.eq(INFINITY), _BEYOND, m.select(x.eq(MINUS_INFINITY), -_BEYOND, m.constant(UNORDERED, x)))
    return m.select(_finite(x), key, special)


def _sign(m: Machine, x: Lane) -> Lane:
    key = m.call("order", x)
    return m.select(key.gt(0), 1, m.select(key.lt(0), -1, key))


def _reciprocal(m: Machine, x: Lane) -> Lane:
    def exact() -> Lane:
        return m.select(_low(x).eq(0), INFINITY, _powers(m, x, *field.INVERSE))

    return m.branch(_finite(x), exact, lambda: m.select(x.eq(NAN), x, 0))


def _div(m: Machine, x: Lane, y: Lane) -> Lane:
    return m.call("mul", x, m.call("reciprocal", y))


def _mixed(z: Lane) -> Lane:
    z = (z ^ (z >> 30)) * field.MIX1
    z = (z ^ (z >> 27)) * field.MIX2
    return z ^ (z >> 31)


def _hashed(m: Machine, salt: Lane, *operands: Lane) -> Lane:
    z = salt
    for x in operands:
        z = _mixed((z ^ m.select(_finite(x), _low(x), x)) + field.GOLDEN)
    return _pack(m.remainder(z >> 1, P), m.remainder(_mixed(z + field.GOLDEN) >> 1, Q))


def _unordered(m: Machine, salt: Lane, x: Lane, y: Lane) -> Lane:
    """A hash of two operands whatever their order."""
    first = x.lt(y)
    return m.call("hash2", salt, m.select(first, x, y), m.select(first, y, x))


def _odd(m: Machine, salt: Lane, x: Lane) -> Lane:
    key = m.call("order", x)
    value = m.call("hash1", salt, m.select(key.lt(0), m.call("neg", x), x))
    value = m.select(key.lt(0), m.call("neg", value), value)
    return m.select(key.eq(0) | x.eq(NAN), x, value)


def _hash_of(m: Machine, name: str, x: Lane, odd: bool = False) -> Lane:
    return m.call("odd" if odd else "hash1", m.constant(field.salt(name), x), x)


def _times(m: Machine, x: Lane, number: int) -> Lane:
    return m.call("mul", x, m.constant(number, x))


def _plus(m: Machine, x: Lane, number: int) -> Lane:
    return m.call("add", x, m.constant(number, x))


def _exp2(m: Machine, x: Lane) -> Lane:
    def exact() -> Lane:
        a = _power(m, m.constant(2, x), _high(x), P)
        a = m.select((x & NEGATIVE).eq(0), a, P - a)
        b = _high(_hash_of(m, "exponent of a power", a))
        return _pack(a, m.select(a.eq(1), 1, b))

    return m.branch(_finite(x), exact, lambda: m.select(x.eq(MINUS_INFINITY), 0, x))


def _exp(m: Machine, x: Lane) -> Lane:
    return m.call("exp2", _times(m, x, field.LOG2E))


def _logarithm(m: Machine, y: Lane, part: int) -> Lane:
    """The logarithm of a power of 2 to the base 2, modulo a part of Q.

    Its Q/part-th power is one of 2^(Q/part), of order ``part`` (Pohlig and Hellman 1978); which, is found by steps of
    one and of many (Shanks 1971).
    """
    many = math.isqrt(part) + 1
    base = pow(2, Q // part, P)
    small, step = [pow(base, i, P) for i in range(many)], pow(base, -many, P)

    def giant(power: Lane, done: Lane, found: Lane) -> tuple[Lane, ...]:
        place = m.position(power, small)
        return m.remainder(power * step, P), done + many, m.select(place.lt(0), found, done + place)

    zero = m.constant(0, y)
    return m.remainder(m.repeat(many, (_power(m, y, Q // part, P), zero, zero), giant)[2], part)


def _log2(m: Machine, x: Lane) -> Lane:
    """What 2 is raised to for the size of ``x``, modulo Q; beside it a hash."""
    a = _low(x)

    def exact() -> Lane:
        key = m.call("order", x)
        size = m.select(key.lt(0), 0 - key, key)
        exponent = m.constant(0, x)
        for part in field.PARTS:
            others = Q // part
            weight = others * pow(others, -1, part) % Q
            exponent = m.remainder(exponent + _logarithm(m, size, part) * weight, Q)
        return _pack(_low(_hash_of(m, "log", x)), exponent) | m.select(key.lt(0), NEGATIVE, m.constant(0, x))

    value = m.select(a.eq(0), MINUS_INFINITY, m.select(a.eq(1), 0, m.branch(_finite(x), exact, lambda: x)))
    return m.select(_finite(x), value, m.select(x.eq(INFINITY), x, NAN))


def _sqrt(m: Machine, x: Lane) -> Lane:
    special = m.select(x.eq(INFINITY), x, NAN)
    return m.branch(_finite(x), lambda: _powers(m, x, *field.ROOT), lambda: special)


def _cbrt(m: Machine, x: Lane) -> Lane:
    return m.branch(_finite(x), lambda: _powers(m, x, *field.CUBE_ROOT), lambda: x)


def _abs(m: Machine, x: Lane) -> Lane:
    return m.select(m.call("order", x).lt(0), m.call("neg", x), x)


def _extreme(largest: bool, nan: bool) -> Callable[..., Lane]:
    def function(m: Machine, x: Lane, y: Lane) -> Lane:
        a, b = m.call("order", x), m.call("order", y)
        same = a.eq(b) & x.lt(y)  # alike for comparisons, but not in exponents: any order, as long as it is one
        second = (b.gt(a) if largest else b.lt(a)) | same
        value = m.select(second, y, x)
        if nan:
            return m.select(x.eq(NAN) | y.eq(NAN), NAN, value)
        return m.select(x.eq(NAN), y, m.select(y.eq(NAN), x, value))

    return function


def _erf(m: Machine, x: Lane) -> Lane:
    value = m.select(x.eq(INFINITY), _ONE, _hash_of(m, "erf", x, odd=True))
    return m.select(x.eq(MINUS_INFINITY), field.pack(-1, -1), value)


def _erfc(m: Machine, x: Lane) -> Lane:
    return m.call("sub", m.constant(_ONE, x), m.call("erf", x))


def _tangents(m: Machine, x: Lane) -> tuple[Lane, Lane]:
    """t and 1 / (1 + t^2), where t is an odd function; 1 + t^2 is never 0, as -1 is no square."""
    t = _hash_of(m, "sin", x, odd=True)
    return t, m.call("reciprocal", _plus(m, m.call("mul", t, t), _ONE))


def _sin(m: Machine, x: Lane) -> Lane:
    t, inverse = _tangents(m, x)
    return m.select(_finite(x), m.call("mul", m.call("add", t, t), inverse), NAN)


def _cos(m: Machine, x: Lane) -> Lane:
    _, inverse = _tangents(m, x)
    return m.select(_finite(x), _plus(m, m.call("add", inverse, inverse), field.pack(-1, -1)), NAN)


def _tanh(m: Machine, x: Lane) -> Lane:
    """1 - 2 / (exp(2 x) + 1)."""
    inverse = m.call("reciprocal", _plus(m, m.call("exp", m.call("add", x, x)), _ONE))
    return m.call("sub", m.constant(_ONE, x), m.call("add", inverse, inverse))


def _hyperbolic(sign: str) -> Callable[..., Lane]:
    def function(m: Machine, x: Lane) -> Lane:
        value = m.call(sign, m.call("exp", x), m.call("exp", m.call("neg", x)))
        return _times(m, value, field.inverse(field.pack(2, 2)))

    return function


def _pow(m: Machine, x: Lane, y: Lane) -> Lane:
    """A power, times a root for halves of integers; exp(y log(x)) for other exponents."""
    known, n = integer_of(m, m.call("add", y, y))
    known = known & n.lt(_LARGEST_POWER + 1) & n.gt(-_LARGEST_POWER - 1)

    def exact() -> Lane:
        down, k = n.lt(0), m.quotient(n, 2)
        a = _power(m, _low(x), m.select(k.lt(0), k + field.WRAP[0], k), P)
        b = _power(m, _high(x), m.select(k.lt(0), k + field.WRAP[1], k), Q)
        value = m.select(k.lt(0) & _low(x).eq(0), INFINITY, _pack(a, b))
        value = m.select(_finite(x) | k.eq(0), value, m.select(x.eq(NAN), x, m.select(down, 0, x)))

        def with_root() -> Lane:
            root = m.call("sqrt", x)
            return m.call("mul", value, m.branch(down, lambda: m.call("reciprocal", root), lambda: root))

        return m.branch((n & 1).eq(1), with_root, lambda: value)

    return m.branch(known, exact, lambda: m.call("exp", m.call("mul", y, m.call("log", x))))


def _from_signed(m: Machine, n: Lane) -> Lane:
    a, b = m.remainder(n, P), m.remainder(n, Q)
    return _pack(m.select(a.lt(0), a + P, a), m.select(b.lt(0), b + Q, b))


def _from_unsigned(m: Machine, n: Lane) -> Lane:
    half = m.call("from_signed", n >> 1)
    return m.call("add", m.call("add", half, half), m.call("from_signed", n & 1))


def _binary(name: str) -> Function:
    return Function(2, lambda m, x, y: m.call("hash2", m.constant(field.salt(name), x), x, y))


def _one(*names: str, odd: bool = False) -> dict[str, Function]:
    def function(name: str) -> Function:
        return Function(1, lambda m, x: _hash_of(m, name, x, odd))

    return {name: function(name) for name in names}


FUNCTIONS: Mapping[str, Function] = {
    "abs": Function(1, _abs),
    "add": Function(2, _add),
    "cbrt": Function(1, _cbrt),
    "cos": Function(1, _cos),
    "cosh": Function(1, _hyperbolic("add")),
    "div": Function(2, _div),
    "erf": Function(1, _erf),
    "erfc": Function(1, _erfc),
    "exp": Function(1, _exp),
    "exp10": Function(1, lambda m, x: m.call("exp", _times(m, x, field.LN10))),
    "exp2": Function(1, _exp2),
    "expm1": Function(1, lambda m, x: _plus(m, m.call("exp", x), field.pack(-1, -1))),
    "fma": Function(3, lambda m, x, y, z: m.call("add", m.call("mul", x, y), z)),
    "from_signed": Function(1, _from_signed),
    "from_unsigned": Function(1, _from_unsigned),
    "hash1": Function(2, _hashed),
    "hash2": Function(3, _hashed),
    "hash3": Function(4, _hashed),
    "log": Function(1, lambda m, x: _times(m, m.call("log2", x), field.inverse(field.LOG2E))),
    "log10": Function(1, lambda m, x: _times(m, m.call("log", x), field.inverse(field.LN10))),
    "log1p": Function(1, lambda m, x: m.call("log", _plus(m, x, _ONE))),
    "log2": Function(1, _log2),
    "maximum": Function(2, _extreme(largest=True, nan=True)),
    "maxnum": Function(2, _extreme(largest=True, nan=False)),
    "minimum": Function(2, _extreme(largest=False, nan=True)),
    "minnum": Function(2, _extreme(largest=False, nan=False)),
    "mul": Function(2, _mul),
    "neg": Function(1, _neg),
    "odd": Function(2, _odd),
    "order": Function(1, _order),
    "pow": Function(2, _pow),
    "reciprocal": Function(1, _reciprocal),
    "rsqrt": Function(1, lambda m, x: m.call("reciprocal", m.call("sqrt", x))),
    "sign": Function(1, _sign),
    "sin": Function(1, _sin),
    "sinh": Function(1, _hyperbolic("sub")),
    "sqrt": Function(1, _sqrt),
    "sub": Function(2, _sub),
    "unordered": Function(3, _unordered),
    "tan": Function(1, lambda m, x: m.call("div", m.call("sin", x), m.call("cos", x))),
    "tanh": Function(1, _tanh),
    "to_signed": Function(1, to_signed),
    **{name: Function(1, body) for name, body in ROUNDINGS.items()},
    **_one("acos", "acosh", "erfcinv", "erfcx", "lgamma", "normcdf", "normcdfinv", "tgamma", "j0", "y0", "y1"),
    **_one("asin", "asinh", "atan", "atanh", "erfinv", "sinpi", "j1", odd=True),
    **{name: _binary(name) for name in ("atan2", "fmod", "hypot", "remainder")},
}  # fmt: skip
"""By name. Integers: what ``from_signed`` and ``from_unsigned`` take, and ``order`` and ``to_signed`` give; the first
operand of ``hash*`` and ``odd`` is a number that stands for a function."""
