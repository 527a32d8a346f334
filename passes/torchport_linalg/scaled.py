"""``tt.dot_scaled``: operands are unpacked and scaled in f32, then multiplied (OCP Microscaling Formats 1.0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_linalg.floats import convert, unpacked
from torchport_linalg.generic import elementwise, generic, indices
from torchport_linalg.kernel import Kernel
from torchport_linalg.products import product
from torchport_linalg.text import Value, Writer

__all__ = ["dot_scaled"]

_STORED = {"e4m3": "f8E4M3FN", "e5m2": "f8E5M2", "bf16": "bf16", "fp16": "f16"}


def dot_scaled(x: Kernel, op: Any) -> None:
    """``(a * scale_a) @ (b * scale_b) + c``; there is a scale for each group along K.

    The attribute ``operands`` names the operands, ``lhs`` and ``rhs`` their formats.
    Raises UnsupportedOperation for an unknown format.
    """
    names = [str(ir.StringAttr(a).value) for a in ir.ArrayAttr(op.attributes["operands"])]
    given = dict(zip(names, (x.get(value) for value in op.operands), strict=True))
    left = _operand(x, op, given["a"], given.get("a_scale"), "lhs", -1)
    right = _operand(x, op, given["b"], given.get("b_scale"), "rhs", -2)
    sums = elementwise(x.w, [given["c"]], ["f32"], lambda w, args: [convert(w, args[0], "f32")])[0]
    made = product(x, left, right, sums)
    to = given["c"].element
    x.set(op.results[0], elementwise(x.w, [made], [to], lambda w, args: [convert(w, args[0], to)])[0])


def _operand(x: Kernel, op: Any, value: Value, scale: Value | None, side: str, k: int) -> Value:
    """An operand as f32, scaled. ``k``: dimension K, counted from the end."""
    form = str(ir.StringAttr(op.attributes[side]).value)
    if form != "e2m1" and form not in _STORED:
        raise UnsupportedOperation("tt.dot_scaled", f"format {form!r} is not e2m1, e4m3, e5m2, bf16 or fp16")
    stored = value.shape or ()
    rank = len(stored)
    flag = f"{side}_k_pack"
    along = flag not in op.attributes or bool(ir.BoolAttr(op.attributes[flag]).value)
    packed = rank + k if along else rank + (-3 - k)  # the other one of the last two dimensions
    shape = tuple(n * (2 if form == "e2m1" and d == packed else 1) for d, n in enumerate(stored))
    group = shape[k] // (scale.shape or (1,))[-1] if scale is not None else 1

    def body(w: Writer, args: Sequence[Value]) -> list[Value]:
        places = indices(w, shape)
        at = [*places]
        if form == "e2m1":
            at[packed] = w.value("index", f"arith.floordivsi {places[packed].name}, {w.index(2).name} : index")
            element = _e2m1(w, _element(w, value, at), places[packed])
        else:
            element = convert(w, _bits(w, _element(w, value, at), _STORED[form]), "f32")
        if scale is None:
            return [element]
        row = places[k - 1] if k == -1 else places[-1]
        number = w.value("index", f"arith.floordivsi {places[k].name}, {w.index(group).name} : index")
        factor = _factor(w, _element(w, scale, [*places[:-2], row, number]))
        return [w.value("f32", f"arith.mulf {element.name}, {factor.name} : f32")]

    return generic(x.w, [], shape, ["f32"], body)[0]


def _element(w: Writer, value: Value, at: Sequence[Value]) -> Value:
    if value.scalar is not None:
        return value.scalar
    return w.value(value.element, f"tensor.extract {value.name}[{', '.join(v.name for v in at)}] : {value.type}")


def _bits(w: Writer, value: Value, to: str) -> Value:
    if value.element == to:
        return value
    return w.value(to, f"arith.bitcast {value.name} : {value.element} to {to}")


def _e2m1(w: Writer, byte: Value, place: Value) -> Value:
    """One of the two 4-bit floats of a byte, the low half first."""
    number = w.value("i8", f"arith.index_cast {place.name} : index to i8")
    odd = w.value("i8", f"arith.andi {number.name}, {w.constant('1', 'i8').name} : i8")
    shift = w.value("i8", f"arith.muli {odd.name}, {w.constant('4', 'i8').name} : i8")
    half = w.value("i8", f"arith.shrui {byte.name}, {shift.name} : i8")
    return unpacked(w, half)


def _factor(w: Writer, scale: Value) -> Value:
    """A scale as f32: a float, or e8m0, ``2 ** (x - 127)``, where 255 is NaN."""
    if not scale.element.startswith("i"):
        return convert(w, scale, "f32")
    wide = w.value("i32", f"arith.extui {scale.name} : {scale.element} to i32")
    bits = w.value("i32", f"arith.shli {wide.name}, {w.constant('23', 'i32').name} : i32")
    for code, held in ((0, 1 << 22), (255, 0x7FC00000)):  # 2 ** -127 is no normal number
        equal = w.value("i1", f"arith.cmpi eq, {wide.name}, {w.constant(str(code), 'i32').name} : i32")
        other = w.constant(str(held), "i32")
        bits = w.value("i32", f"arith.select {equal.name}, {other.name}, {bits.name} : i32")
    return w.value("f32", f"arith.bitcast {bits.name} : i32 to f32")
