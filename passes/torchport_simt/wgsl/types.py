"""The WGSL types of values, and WGSL constants.

Integers of up to 32 bits are ``u32`` with their upper bits 0, 64-bit ones ``tp_u64`` (native or two words), 16- and
8-bit floats their bits, pointers byte offsets into their buffer.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation

__all__ = ["WIDE", "bits_of", "constant", "signed", "suffix", "wtype", "zero"]

WIDE = frozenset({"i64", "index"})
"""Types held as ``tp_u64``."""


def wtype(type_: Any) -> str:
    """The WGSL type that holds a value."""
    text = str(type_)
    if text in ("f32", "f64"):
        return text
    if text == "i1":
        return "bool"
    if text in WIDE:
        return "tp_u64"
    if text in ("i8", "i16", "i32", "f16", "bf16", "!llvm.ptr") or text.startswith("f8"):
        return "u32"
    raise UnsupportedOperation("emit", f"values of type {text} have no WGSL type here")


def suffix(type_: Any) -> str:
    """``u32``, ``u64``, ``f32``, ``f64``: how functions are told apart by the type that holds their operands."""
    held = wtype(type_)
    return "u64" if held == "tp_u64" else held


def bits_of(type_: Any) -> int:
    """The width of an integer or of what a value's bits are stored in."""
    text = str(type_)
    if text in WIDE:
        return 64
    if text.startswith("f8"):
        return 8
    return 16 if text == "bf16" else 32 if text == "!llvm.ptr" else int(text[1:])


def signed(type_: Any, arg: str) -> str:
    """An integer of up to 32 bits as an ``i32`` with its sign."""
    text = str(type_)
    if text == "i1":
        return f"-i32({arg})"
    return {"i8": f"tp_s8({arg})", "i16": f"tp_s16({arg})"}.get(text, f"bitcast<i32>({arg})")


def zero(type_: Any) -> str:
    """Zero, or the start of a buffer."""
    return {"bool": "false", "f32": "0.0f", "f64": "0.0lf", "tp_u64": "tp_u64_of(0u, 0u)"}.get(wtype(type_), "0u")


def constant(attribute: Any, type_: Any) -> str:
    """A constant as a WGSL expression. What a compiler may not evaluate (NaN, infinities) is hidden in a function."""
    text = str(type_)
    if isinstance(type_, ir.FloatType):
        return _float(float(ir.FloatAttr(attribute).value), text)
    number = int(ir.IntegerAttr(attribute).value)
    if text == "i1":
        return "true" if number else "false"
    number %= 1 << bits_of(type_)
    if text in WIDE:
        return f"tp_u64_of({number & 0xFFFFFFFF}u, {number >> 32}u)"
    return f"{number}u"


def _float(number: float, kind: str) -> str:
    if kind == "f64":
        bits = struct.unpack("<Q", struct.pack("<d", number))[0]
        return f"tp_f64_of({bits & 0xFFFFFFFF}u, {bits >> 32}u)"
    if kind == "f32":
        word = struct.unpack("<I", struct.pack("<f", number))[0]
        plain = math.isfinite(number) and abs(number) >= 2.0**-126 and number not in (1.0, -1.0)
        # Of these, an optimiser makes something else: x * 0 becomes 0, x + 0 x.
        return f"{_hexadecimal(number)}f" if plain else f"tp_f32_of({word}u)"
    if kind == "f16":
        return f"{struct.unpack('<H', struct.pack('<e', number))[0]}u"
    return f"{struct.unpack('<I', struct.pack('<f', number))[0] >> 16}u"  # bf16, held exactly


def _hexadecimal(number: float) -> str:
    """Exact, as ``0x1.8p+1``."""
    mantissa, _, exponent = number.hex().partition("p")
    mantissa = mantissa.rstrip("0") if "." in mantissa else mantissa
    return f"{mantissa.rstrip('.')}p{exponent}"
