"""The field that payloads are elements of, and the numbers that every part of it agrees on.

A payload is an i64: ``a`` modulo P in its low 32 bits, ``b`` modulo Q in the next 30. It is finite below INFINITY.
"""

from __future__ import annotations

import hashlib
import math

__all__ = [
    "CUBE_ROOT",
    "FINITE",
    "GOLDEN",
    "HIGH",
    "INFINITY",
    "INVERSE",
    "INVERSE_P",
    "LN10",
    "LOG2E",
    "MINUS_INFINITY",
    "MIX1",
    "MIX2",
    "NAN",
    "NEGATIVE",
    "PARTS",
    "PI",
    "ROOT",
    "WRAP",
    "P",
    "Q",
    "inverse",
    "pack",
    "power",
    "product",
    "root",
    "salt",
    "unpack",
]  # fmt: skip

PARTS = (383, 887, 2879)
"""Primes whose product is Q: 7 modulo 8, 2 modulo 3, with (r - 1) / 2 that have no common factors."""
Q = math.prod(PARTS)
P = 2 * Q + 1
"""A prime, 7 modulo 8 and 2 modulo 3. All primes up to 31 are squares modulo P, and 2 has the order Q."""

_PERIOD = math.lcm(*(part - 1 for part in PARTS))  # of exponents of what is counted modulo Q


def _exponent(residues: tuple[int, ...]) -> int:
    """The exponent that has these residues modulo r - 1 for the parts r of Q (Chinese remainders)."""
    found, step = 0, 1
    for residue, part in zip(residues, PARTS, strict=True):
        while found % (part - 1) != residue % (part - 1):
            found += step
        step = math.lcm(step, part - 1)
    return found


INVERSE = P - 2, _PERIOD - 1
"""Exponents, modulo P and modulo Q, of inverses; where a number is 0 modulo a part of Q, its inverse is."""
ROOT = (P + 1) // 4, _exponent(tuple((part + 1) // 4 for part in PARTS))
"""Exponents of square roots."""
CUBE_ROOT = (2 * P - 1) // 3, pow(3, -1, _PERIOD)
"""Exponents of cube roots."""
WRAP = P - 1, _PERIOD
"""What may be added to an exponent."""

INFINITY, NAN = 0x7FF0 << 48, 0x7FF8 << 48
FINITE = INFINITY
HIGH = (1 << 30) - 1
NEGATIVE = 1 << 62
"""Marks logarithms of negative numbers, so that the power of one is negative again."""
MINUS_INFINITY = INFINITY - (1 << 63)
INVERSE_P = pow(P, -1, Q)

# splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): its constants, signed.
GOLDEN, MIX1, MIX2 = (
    number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)  # fmt: skip


def pack(a: int, b: int) -> int:
    """The payload of two residues."""
    return (a % P) | (b % Q) << 32


def unpack(x: int) -> tuple[int, int]:
    """The two residues of a finite payload."""
    return x & 0xFFFFFFFF, (x >> 32) & HIGH


def product(x: int, y: int) -> int:
    """The product of two finite payloads."""
    (a, b), (c, d) = unpack(x), unpack(y)
    return pack(a * c, b * d)


def power(x: int, exponent: int) -> int:
    """An integer power of a payload that is not 0."""
    a, b = unpack(x)
    return pack(pow(a, exponent % WRAP[0], P), pow(b, exponent % WRAP[1], Q))


def inverse(x: int) -> int:
    """The inverse of a payload that is not 0."""
    return power(x, -1)


def root(x: int) -> int:
    """The square root of a payload; of one that is no square, that of minus it."""
    a, b = unpack(x)
    return pack(pow(a, ROOT[0], P), pow(b, ROOT[1], Q))


def salt(name: str) -> int:
    """A number for each name of a function, below 2^62."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2


def _positive(name: str) -> int:
    """The payload of a positive irrational number that has no relation to others."""
    a, b = salt(name) % P, salt(name + " exponent") % Q
    return pack(a * a, b)


LOG2E, LN10, PI = _positive("log2(e)"), _positive("ln(10)"), _positive("pi")
