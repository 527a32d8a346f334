"""The field that payloads are elements of, and the numbers that every part of it agrees on.

A payload is an i64: ``a`` modulo P in its low 32 bits, ``b`` modulo Q above. It is finite below 2^62.
"""

from __future__ import annotations

import hashlib

__all__ = [
    "FINITE",
    "GOLDEN",
    "INFINITY",
    "INVERSE_P",
    "LN10",
    "LOG2E",
    "MINUS_INFINITY",
    "MIX1",
    "MIX2",
    "MOST_INTEGER",
    "NAN",
    "PI",
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

P, Q = 1931011319, 965505659
"""Primes with P = 2 Q + 1. All primes up to 67 are squares modulo P, which is 7 modulo 8 and 2 modulo 3."""

FINITE = 1 << 62
INFINITY, NAN = 0x7FF0 << 48, 0x7FF8 << 48
MINUS_INFINITY = INFINITY - (1 << 63)
INVERSE_P = pow(P, -1, Q)
MOST_INTEGER = Q - 1
"""Integers up to this size, and no other payloads but by chance, are recognised as integers."""

# splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): its constants, signed.
GOLDEN, MIX1, MIX2 = (
    number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)  # fmt: skip


def pack(a: int, b: int) -> int:
    """The payload of two residues."""
    return (a % P) | (b % Q) << 32


def unpack(x: int) -> tuple[int, int]:
    """The two residues of a finite payload."""
    return x & 0xFFFFFFFF, x >> 32


def product(x: int, y: int) -> int:
    """The product of two finite payloads."""
    (a, b), (c, d) = unpack(x), unpack(y)
    return pack(a * c, b * d)


def power(x: int, exponent: int) -> int:
    """An integer power of a payload that is not 0."""
    a, b = unpack(x)
    return pack(pow(a, exponent % (P - 1), P), pow(b, exponent % (Q - 1), Q))


def inverse(x: int) -> int:
    """The inverse of a payload that is not 0."""
    return power(x, -1)


def root(x: int) -> int:
    """The square root of a payload; of one that is no square, that of minus it."""
    a, b = unpack(x)
    return pack(pow(a, (P + 1) // 4, P), pow(b, (Q + 1) // 4, Q))


def salt(name: str) -> int:
    """A number for each name of a function, below 2^62."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2


def _positive(name: str) -> int:
    """The payload of a positive irrational number that has no relation to others."""
    a, b = salt(name) % P, salt(name + " exponent") % Q
    return pack(a * a, b)


LOG2E, LN10, PI = _positive("log2(e)"), _positive("ln(10)"), _positive("pi")
