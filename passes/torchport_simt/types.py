"""The C types of values, and C constants."""

from __future__ import annotations

import math
import struct
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation

__all__ = ["constant", "ctype", "signed", "stored_type", "suffix", "zero"]

_FLOATS = {"f32": "float", "f64": "double", "f16": "tp_u16", "bf16": "tp_u16"}
_NAMES = {"float": "f32", "double": "f64"}


def ctype(type_: Any) -> str:
    """The C type that holds a value: integers are unsigned, 16-bit floats their bits, pointers bytes' addresses.

    A vector's is that of its elements as ``tp_f32v``, ``tp_u8v`` ...; ``tp_boolv`` holds 0 or -1.
    """
    if isinstance(type_, ir.VectorType):
        kind = ctype(type_.element_type)
        return f"tp_{_NAMES.get(kind, kind[3:])}v"
    text = str(type_)
    if text in _FLOATS:
        return _FLOATS[text]
    if text == "i1":
        return "tp_bool"
    if text in ("i8", "i16", "i32", "i64"):
        return f"tp_u{text[1:]}"
    if text == "index":
        return "tp_u64"
    if text.startswith("f8"):
        return "tp_u8"
    if text == "!llvm.ptr":
        return "TP_GLOBAL tp_u8 *"
    raise UnsupportedOperation("emit", f"values of type {text} have no C type here")


def signed(type_: Any) -> str:
    """The signed C type of an integer's width; booleans are ints."""
    text = str(type_)
    return "tp_i32" if text == "i1" else "tp_i64" if text == "index" else f"tp_i{text[1:]}"


def stored_type(type_: Any) -> str:
    """The C type of a scalar in memory."""
    return "tp_u8" if str(type_) == "i1" else ctype(type_)


def suffix(type_: Any) -> str:
    """``u32``, ``f32`` ...: how functions of a type are told apart by name."""
    text = str(type_)
    return f"u{text[1:]}" if text.startswith("i") and text != "index" else "u64" if text == "index" else text


def zero(type_: Any) -> str:
    """Zero, or the null pointer."""
    return f"({ctype(type_)})0"


def constant(attribute: Any, type_: Any) -> str:
    """A constant as a C expression."""
    if isinstance(type_, ir.VectorType):
        return f"({ctype(type_)})({', '.join(_elements(attribute, type_.element_type))})"
    text = str(type_)
    if isinstance(type_, ir.FloatType):
        return _float(float(ir.FloatAttr(attribute).value), text)
    number = int(ir.IntegerAttr(attribute).value)
    if text == "i1":
        return "1" if number else "0"
    width = 64 if text == "index" else int(text[1:])
    return f"({ctype(type_)}){number % (1 << width)}{'ul' if width == 64 else 'u'}"


def _elements(attribute: Any, element: Any) -> list[str]:
    """The elements of a vector constant; one if all are the same."""
    dense = ir.DenseElementsAttr(attribute)
    if dense.is_splat:
        texts = [constant(dense.get_splat_value(), element)]
    else:
        if isinstance(element, (ir.F32Type, ir.F64Type)):
            here = ir.Location.unknown(attribute.context)
            each = [ir.FloatAttr.get(element, one, loc=here) for one in ir.DenseFPElementsAttr(attribute)]
        elif isinstance(element, ir.FloatType):  # the bindings do not read elements of 8 and 16 bits
            numbers = str(attribute).partition("[")[2].partition("]")[0].split(", ")
            each = [ir.Attribute.parse(f"{number} : {element}", attribute.context) for number in numbers]
        else:
            each = [ir.IntegerAttr.get(element, one) for one in ir.DenseIntElementsAttr(attribute)]
        texts = [constant(one, element) for one in each]
    return [f"-({text})" for text in texts] if str(element) == "i1" else texts


def _float(number: float, kind: str) -> str:
    if kind == "f64":
        plain = math.isfinite(number)
        return number.hex() if plain else f"tp_as_f64({_bits(number, '<d', '<Q')}ul)"
    if kind == "f32":
        return f"{number.hex()}f" if math.isfinite(number) else f"tp_as_f32({_bits(number, '<f', '<I')}u)"
    if kind == "f16":
        return f"(tp_u16){_bits(number, '<e', '<H')}u"
    return f"(tp_u16){int(_bits(number, '<f', '<I'), 16) >> 16}u"  # bf16, held exactly


def _bits(number: float, float_: str, integer: str) -> str:
    return hex(struct.unpack(integer, struct.pack(float_, number))[0])
