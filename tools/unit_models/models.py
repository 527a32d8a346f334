"""Matrix units written a second time, in exact integers: what the emulator is compared with, bit for bit.

Each model follows a public description; nothing here is shared with the emulator. NVIDIA's units and the fused sums of
CDNA1 and CDNA3: Xie, Xu, Wang, Yang and Yang, arXiv 2511.10909v2, and their package mmasim 2.1.1 (exponents of zeros,
products beyond f32). CDNA2 and CDNA3: also Khattak, Mikaitis and Graziani, arXiv 2609.14845.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

__all__ = ["UNITS", "Unit"]

_FORMATS = {  # bits of the fraction, exponent of the smallest normal number
    "f16": (10, -14), "bf16": (7, -126), "tf32": (10, -126), "f32": (23, -126), "e4m3": (3, -6), "e5m2": (2, -14),
    "e4m3fnuz": (3, -7), "e5m2fnuz": (2, -15), "e8m13": (13, -126),
}  # fmt: skip
_NOTHING = -4096  # exponent of what takes no part in an alignment


@dataclass(frozen=True)
class Unit:
    """``step(a, b, c)``: ``c + (a * b).sum(-1)`` of one step. a, b: [.., terms], c: [..], f64 that hold the types.

    terms: of a step.
    half: sums are f16, not f32.
    one_nan: the only NaN has all bits but the sign set. Of other units it is known only that it is one.
    """

    terms: int
    step: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    half: bool = False
    one_nan: bool = False

    def dots(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        """``a @ b + c``: [m, k], [k, n], [m, n] of f64, added up over k in order; of the sums' type."""
        with np.errstate(all="ignore"):
            for first in range(0, a.shape[1], self.terms):
                left, right = a[:, None, first : first + self.terms], b.T[None, :, first : first + self.terms]
                c = self.step(*np.broadcast_arrays(left, right), c)
            return c.astype(np.float16 if self.half else np.float32)

    def same(self, found: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Which elements have the same bits as the model's; a NaN only has to be one if nothing else is known."""
        integers = np.uint16 if self.half else np.uint32
        bits, nan = expected.view(integers), np.isnan(expected)
        if self.one_nan:
            bits = np.where(nan, integers(np.iinfo(integers).max >> 1), bits)
        same: np.ndarray = found.view(integers) == bits
        return same if self.one_nan else same | (nan & np.isnan(found))


def _parts(x: np.ndarray, format_: str) -> tuple[np.ndarray, np.ndarray]:
    """Integers m and e with x = m * 2^(e - fraction bits); subnormals and zeros have the format's least exponent."""
    fraction, least = _FORMATS[format_]
    x = np.where(np.isfinite(x), x, 0.0)
    e = np.maximum(np.frexp(x)[1].astype(np.int64) - 1, least)
    return np.ldexp(x, fraction - e).astype(np.int64), np.where(x == 0, least, e)


def _products(a: np.ndarray, b: np.ndarray, operands: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Integers m and e, and f, with a * b = m * 2^(e - f). ``operands``: one format, or two (``e4m3 e5m2``)."""
    formats = operands.split()
    first, second = formats[0], formats[-1]
    (m, e), (n, d) = _parts(a, first), _parts(b, second)
    return m * n, e + d, _FORMATS[first][0] + _FORMATS[second][0]


def _down(m: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """m * 2^shift, rounded down."""
    return np.where(shift >= 0, m << np.clip(shift, 0, 40), m >> np.clip(-shift, 0, 63))


def _cut(m: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """m * 2^shift, rounded toward zero."""
    return np.sign(m) * _down(np.abs(m), shift)


def _lead(m: np.ndarray, e: np.ndarray, least: int) -> np.ndarray:
    """The exponent of m * 2^e, at least ``least``."""
    return np.maximum(np.frexp(m.astype(np.float64))[1] - 1 + e, least)


def _rounded(m: np.ndarray, e: np.ndarray, format_: str, rounding: str) -> np.ndarray:
    """m * 2^e in ``format_``, to nearest even (``rne``) or toward zero (``rz``); infinite from 2^(bias + 1) on."""
    fraction, least = _FORMATS[format_]
    shift = _lead(m, e, least) - fraction - e
    size = np.abs(m)
    kept = size >> np.clip(shift, 0, 63)
    if rounding == "rne":
        rest, half = size - (kept << np.clip(shift, 0, 62)), np.int64(1) << np.clip(shift - 1, 0, 62)
        kept = kept + ((shift > 0) & ((rest > half) | ((rest == half) & (kept % 2 == 1))))
    x = np.ldexp(kept.astype(np.float64), np.where(shift > 0, e + shift, e))
    x = np.where(shift > 0, x, np.ldexp(size.astype(np.float64), e))
    return np.copysign(np.where(x >= 2.0 ** (2 - least), np.inf, x), m)


def _special(x: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, most: float = np.inf) -> np.ndarray:
    """x; where an Inf or NaN takes part, or a product of ``most``, what IEEE 754 says of the sum."""
    products = a * b
    total = np.where(np.abs(products) >= most, np.copysign(np.inf, products), products).sum(-1) + c
    return np.where(np.isfinite(total), x, total)


def _truncating(a, b, c, *, operands: str, result: str, fraction: int, zero: int) -> np.ndarray:
    """NVIDIA: products and c cut to ``fraction`` bits below the largest exponent, their sum rounded to ``result``.

    ``zero``: the exponent of a product, or of c, that is zero. Zeros have no sign.
    """
    m, e, f = _products(a, b, operands)
    n, d = _parts(c, "f16" if result == "f16" else "f32")
    e, d = np.where(m == 0, zero, e), np.where(n == 0, zero, d)
    largest = np.maximum(e.max(-1), d)
    total = _cut(m, e - largest[..., None] + fraction - f).sum(-1)
    total = total + _cut(n, d - largest + fraction - (10 if result == "f16" else 23))
    x = _rounded(total, largest - fraction, result, "rne" if result == "f16" else "rz")
    return _special(x + 0.0, a, b, c)


def _aligned(m: np.ndarray, e: np.ndarray, f: int) -> tuple[np.ndarray, np.ndarray]:
    """CDNA3: the sum of products cut to 24 bits below their largest exponent, in units of 2^(that exponent - 24)."""
    e = np.where(m == 0, _NOTHING, e)
    largest = e.max(-1)
    return _cut(m, e - largest[..., None] + 24 - f).sum(-1), largest


def _cdna3(a, b, c, *, operands: str, apart: bool = False) -> np.ndarray:
    """The sum of products rounded down to 32 bits, c to 24, their sum to 31, then to nearest even.

    ``apart`` (8-bit types): even and odd terms are summed apart and joined at 24 bits; c is lost below that.
    """
    m, e, f = _products(a, b, operands)
    if apart:
        (even, first), (odd, second) = _aligned(m[..., ::2], e[..., ::2], f), _aligned(m[..., 1::2], e[..., 1::2], f)
        largest = np.maximum(first, second)
        total = _down(even, first - largest) + _down(odd, second - largest)
    else:
        total, largest = _aligned(m, e, f)
    n, d = _parts(c, "f32")
    top = np.maximum(largest, d)
    below = _down(n, d - top + 1)
    if apart:
        below = np.where(d < top - 25, 0, below)
    total = _down(total, largest - top + 8) + (below << 8)
    e = top - 32
    drop = np.maximum(_lead(total, e, -126) - 31 - e, 0)
    return _special(_rounded(total >> drop, e + drop, "f32", "rne"), a, b, c, 2.0**128)


def _flushed(x: np.ndarray, least: int, *, signed: bool) -> np.ndarray:
    return np.where(np.abs(x) < 2.0**least, x * 0 if signed else 0, x)


def _cdna2(a, b, c, *, operands: str) -> np.ndarray:
    """f32 products and sums in a tree, each rounded; subnormals are zero, of operands without their sign."""
    least = _FORMATS[operands][1]
    keep = partial(_flushed, least=-126, signed=True)
    left, right = (_flushed(x, least, signed=False).astype(np.float32) for x in (a, b))
    columns = list(np.moveaxis(keep(left * right), -1, 0))
    while len(columns) > 1:
        columns = [keep(x + y) for x, y in zip(columns[::2], columns[1::2], strict=True)]
    return keep(_flushed(c, -126, signed=False).astype(np.float32) + columns[0]).astype(np.float64)


def _nearest(total: int, exponent: int) -> float:
    """total * 2^exponent rounded to f32, to nearest even, in integers."""
    size = abs(total)
    unit = max(size.bit_length() - 24, -149 - exponent, 0)
    kept, rest = size >> unit, size & ((1 << unit) - 1)
    kept += unit > 0 and (2 * rest > 1 << unit or (2 * rest == 1 << unit and kept % 2 == 1))
    exponent += unit
    if kept.bit_length() + exponent > 128:
        return np.copysign(np.inf, total)
    while kept and kept % 2 == 0:
        kept, exponent = kept >> 1, exponent + 1
    return float(np.copysign(np.ldexp(float(kept), exponent), total))


def _fma(a, b, c) -> np.ndarray:
    """A fused multiply-add of f32. The product is exact in f64; their sum is rounded to odd before it is to f32."""
    product = (a * b)[..., 0]
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    even = total.view(np.int64) % 2 == 0
    total = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return _special(total.astype(np.float32).astype(np.float64), a, b, c)


def _exact(a, b, c, *, operands: str) -> np.ndarray:
    """CDNA1: the exact sum, rounded once; zeros have no sign."""
    m, e, f = _products(a, b, operands)
    n, d = _parts(c, "f32")
    base = min(2 * _FORMATS[operands][1] - f, -149)
    total = (m.astype(object) << (e - f - base).astype(object)).sum(-1)
    total = total + (n.astype(object) << (d - 23 - base).astype(object))
    x = np.frompyfunc(lambda one: _nearest(one, base), 1, 1)(total).astype(np.float64)
    return _special(x, a, b, c)


def _nvidia(terms: int, fraction: int, operands: str, below: int, *, fp8: bool = False, half: bool = False) -> Unit:
    """``below``: how far the exponent of a zero lies below that of the smallest normal number of the sums' type."""
    result = "f16" if half else "e8m13" if fp8 else "f32"
    zero = _FORMATS[result][1] - below
    step = partial(_truncating, operands=operands, result=result, fraction=13 if fp8 else fraction, zero=zero)
    return Unit(terms, step, half, one_nan=True)


def _units() -> dict[tuple[str, str], Unit]:
    """By chip and type of operands; ``f16-f16`` adds up in f16."""
    found = {}
    generations = {
        "v100": (8, 23, 5), "a100": (16, 24, 6), "l40s": (16, 24, 6), "h100": (32, 25, 7), "b200": (32, 25, 7),
    }  # fmt: skip
    for chip, (bytes_, fraction, below) in generations.items():
        found[chip, "f16"] = _nvidia(bytes_ // 2, fraction, "f16", below)
        found[chip, "f16-f16"] = _nvidia(bytes_ // 2, fraction, "f16", below, half=True)
        if chip != "v100":
            found[chip, "bf16"] = _nvidia(bytes_ // 2, fraction, "bf16", below)
            found[chip, "tf32"] = _nvidia(bytes_ // 4, fraction, "tf32", below)
        if chip in ("l40s", "h100", "b200"):
            for type_ in ("e4m3", "e5m2", "e4m3 e5m2"):
                found[chip, type_] = _nvidia(bytes_, fraction, type_, below, fp8=chip != "b200")
    for chip in ("mi100", "mi210", "mi300x"):
        for type_, terms in (("f16", 4), ("bf16", 2 if chip == "mi100" else 4)):
            step = {"mi100": _exact, "mi210": _cdna2, "mi300x": _cdna3}[chip]
            found[chip, type_] = Unit(8 if chip == "mi300x" else terms, partial(step, operands=type_))
    found["mi300x", "tf32"] = Unit(4, partial(_cdna3, operands="tf32"))
    for type_ in ("e4m3fnuz", "e5m2fnuz", "e5m2fnuz e4m3fnuz"):
        found["mi300x", type_] = Unit(16, partial(_cdna3, operands=type_, apart=True))
    for chip in (*generations, "mi100", "mi210", "mi300x"):
        found[chip, "f32"] = Unit(1, _fma)
    return found


UNITS = _units()
"""Every unit of a chip that is described bit for bit."""
