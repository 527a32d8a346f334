"""Conversions between floats, each with one rounding, and of floats to integers.

``arith`` says nothing of rounding f64 to 16 bits through f32, its lowerings have nothing for floats of 8 bits, and an
integer that does not hold a float is poison in it. So these are written in integers where ``arith`` is not enough.
Too large values saturate in 8 bits and where they are rounded towards zero, as Triton has it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torchport.errors import UnsupportedOperation
from torchport_linalg.text import Value, Writer

__all__ = ["convert", "to_integer", "unpacked"]


@dataclass(frozen=True)
class _Format:
    """``exponent`` and ``fraction``: numbers of bits. ``kind``: ieee, fn (no infinity, NaN is all ones) or fnuz."""

    exponent: int
    fraction: int
    bias: int
    kind: str = "ieee"

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.fraction

    @property
    def largest(self) -> int:
        """Bits of the largest number."""
        top = (1 << (self.bits - 1)) - 1
        return {"ieee": top - (1 << self.fraction), "fn": top - 1, "fnuz": top}[self.kind]

    @property
    def nan(self) -> int:
        """Bits of a NaN."""
        top = (1 << (self.bits - 1)) - 1
        return {"ieee": top - (1 << (self.fraction - 1)) + 1, "fn": top, "fnuz": top + 1}[self.kind]


_FORMATS: Mapping[str, _Format] = MappingProxyType(
    {
        "f16": _Format(5, 10, 15),
        "f8E5M2": _Format(5, 2, 15),
        "f8E4M3": _Format(4, 3, 7),
        "f8E4M3FN": _Format(4, 3, 7, "fn"),
        "f8E5M2FNUZ": _Format(5, 2, 16, "fnuz"),
        "f8E4M3FNUZ": _Format(4, 3, 8, "fnuz"),
        "f8E4M3B11FNUZ": _Format(4, 3, 11, "fnuz"),
    }
)


class _Words:
    """Short names for the operations that conversions are made of."""

    def __init__(self, w: Writer) -> None:
        self.w = w

    def number(self, value: int | float, element: str) -> Value:
        text = str(value) if element.startswith("i") else f"0x{struct.pack('>f', value).hex().upper()}"
        return self.w.constant(text, element)

    def op(self, name: str, left: Value, right: Value | int) -> Value:
        other = self.number(right, left.element) if isinstance(right, int) else right
        return self.w.value(left.element, f"arith.{name} {left.name}, {other.name} : {left.element}")

    def one(self, name: str, value: Value) -> Value:
        return self.w.value(value.element, f"math.{name} {value.name} : {value.element}")

    def cast(self, name: str, value: Value, to: str) -> Value:
        return self.w.value(to, f"arith.{name} {value.name} : {value.element} to {to}")

    def test(self, predicate: str, left: Value, right: Value | int) -> Value:
        other = self.number(right, left.element) if isinstance(right, int) else right
        word = "cmpi" if left.element.startswith("i") else "cmpf"
        return self.w.value("i1", f"arith.{word} {predicate}, {left.name}, {other.name} : {left.element}")

    def choose(self, condition: Value, yes: Value, no: Value) -> Value:
        text = f"arith.select {condition.name}, {yes.name}, {no.name} : {yes.element}"
        return self.w.value(yes.element, text)


def convert(w: Writer, value: Value, to: str, rounding: str = "rtne") -> Value:
    """A float as another type. ``rounding``: ``rtne`` to the nearest, ties to even; ``rtz`` towards zero."""
    source, s = value.element, _Words(w)
    if source == to:
        return value
    if rounding not in ("rtne", "rtz"):
        raise UnsupportedOperation("tt.fp_to_fp", f"there is no rounding {rounding}")
    if source.startswith("f8"):
        value = _decoded(s, value, _format(source))
    elif source in ("f16", "bf16") and to != "f64":
        value = s.cast("extf", value, "f32")
    if value.element == to:
        return value
    if to == "f64":
        return s.cast("extf", value, "f64")
    if to == "f32":
        return s.cast("truncf", value, "f32") if rounding == "rtne" else _towards_zero(s, value)
    if value.element == "f64":
        value = _to_odd(s, value)
    if to in ("f16", "bf16") and rounding == "rtne":
        return s.cast("truncf", value, to)
    if to == "bf16":
        return _upper(s, value)
    return _encoded(s, value, _format(to), to, rounding)


def _upper(s: _Words, value: Value) -> Value:
    """f32 as bf16, towards zero: its upper half, of a NaN one that stays a NaN."""
    bits = s.cast("bitcast", value, "i32")
    quiet = s.choose(s.test("uno", value, value), s.op("ori", bits, 0x400000), bits)
    return s.cast("bitcast", s.cast("trunci", s.op("shrui", quiet, 16), "i16"), "bf16")


def _format(name: str) -> _Format:
    if name not in _FORMATS:
        raise UnsupportedOperation("tt.fp_to_fp", f"the format {name} is not known")
    return _FORMATS[name]


def _towards_zero(s: _Words, value: Value) -> Value:
    """f64 as the f32 that is not larger in size."""
    near = s.cast("truncf", value, "f32")
    above = s.test("ogt", s.one("absf", s.cast("extf", near, "f64")), s.one("absf", value))
    bits = s.cast("bitcast", near, "i32")
    return s.cast("bitcast", s.op("subi", bits, s.cast("extui", above, "i32")), "f32")


def _to_odd(s: _Words, value: Value) -> Value:
    """f64 as f32 whose last bit is set where it is not exact: what rounds that to 16 bits or fewer rounds once."""
    lower = _towards_zero(s, value)
    inexact = s.test("one", s.cast("extf", lower, "f64"), value)
    bits = s.cast("bitcast", lower, "i32")
    return s.cast("bitcast", s.op("ori", bits, s.cast("extui", inexact, "i32")), "f32")


def _decoded(s: _Words, value: Value, form: _Format) -> Value:
    """A float of 8 bits as f32, exactly."""
    byte = s.cast("extui", s.cast("bitcast", value, "i8"), "i32")
    size = s.op("andi", byte, 0x7F)
    sign = s.op("shli", s.op("andi", byte, 0x80), 24)
    normal = s.op("addi", s.op("shli", size, 23 - form.fraction), (127 - form.bias) << 23)
    small = s.op("mulf", s.cast("sitofp", size, "f32"), s.number(2.0 ** (1 - form.bias - form.fraction), "f32"))
    tiny = s.test("ult", size, 1 << form.fraction)
    bits = s.choose(tiny, s.cast("bitcast", small, "i32"), normal)
    nan = s.number(0x7FC00000, "i32")
    if form.kind == "fnuz":
        bits = s.choose(s.test("eq", byte, 0x80), nan, bits)
    elif form.kind == "fn":
        bits = s.choose(s.test("eq", size, 0x7F), nan, bits)
    else:
        infinite = form.largest + 1
        bits = s.choose(s.test("eq", size, infinite), s.number(0x7F800000, "i32"), bits)
        bits = s.choose(s.test("ugt", size, infinite), nan, bits)
    return s.cast("bitcast", s.op("ori", bits, sign), "f32")


def unpacked(w: Writer, half: Value) -> Value:
    """The e2m1 in the low half of an i8 as f32: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives."""
    s = _Words(w)
    code = s.cast("extui", half, "i32")
    size = s.op("andi", code, 7)
    normal = s.op("addi", s.op("shli", size, 22), 126 << 23)
    bits = s.choose(s.test("ult", size, 2), s.op("muli", size, 0x3F000000), normal)
    sign = s.op("shli", s.op("andi", code, 8), 28)
    return s.cast("bitcast", s.op("ori", bits, sign), "f32")


def _encoded(s: _Words, value: Value, form: _Format, to: str, rounding: str) -> Value:
    """f32 as a smaller format; what is too large becomes the largest number."""
    bits = s.cast("bitcast", value, "i32")
    size, cut = s.op("andi", bits, 0x7FFFFFFF), 23 - form.fraction
    sign = s.op("shli", s.op("shrui", bits, 31), form.bits - 1)
    most = (form.largest << cut) + ((127 - form.bias) << 23)
    capped = s.op("minsi", size, most)
    normal = s.op("subi", capped, (127 - form.bias) << 23)
    scaled = s.op("mulf", s.cast("bitcast", capped, "f32"), s.number(2.0 ** (form.bias - 1 + form.fraction), "f32"))
    if rounding == "rtne":
        odd = s.op("andi", s.op("shrui", normal, cut), 1)
        normal = s.op("addi", s.op("addi", normal, (1 << (cut - 1)) - 1), odd)
        scaled = s.one("roundeven", scaled)
    least = s.number((128 - form.bias) << 23, "i32")
    small = s.test("slt", capped, least)
    # Only what is small is converted: an integer that does not hold a float is poison.
    held = s.choose(small, scaled, s.number(0.0, "f32"))
    result = s.choose(small, s.cast("fptosi", held, "i32"), s.op("shrui", normal, cut))
    if form.kind == "fnuz":  # it has no -0
        sign = s.choose(s.test("eq", result, 0), s.number(0, "i32"), sign)
    result = s.op("ori", result, sign)
    result = s.choose(s.test("ugt", size, 0x7F800000), s.number(form.nan, "i32"), result)
    return s.cast("bitcast", s.cast("trunci", result, f"i{form.bits}"), to)


def to_integer(w: Writer, value: Value, to: str, *, signed: bool) -> Value:
    """A float as an integer. Narrow ones are the low bits of a wide one, which holds more floats."""
    s = _Words(w)
    if value.element.startswith("f8"):
        value = convert(w, value, "f32")
    bits = int(to[1:])
    wide = "i32" if signed and bits < 32 else "i64" if not signed and bits < 64 else ""
    if wide:
        return s.cast("trunci", s.cast("fptosi", value, wide), to)
    return s.cast("fptosi" if signed else "fptoui", value, to)
