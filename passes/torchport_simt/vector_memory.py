"""Writes loads and stores of vectors as C statements.

``out`` is the emitter. Neighbours in memory are one access if no lane is masked off, which is tested; all others are
accesses of each element.
"""

from __future__ import annotations

from typing import Any

from mlir import ir
from torchport_passes.ir.build import byte_width
from torchport_passes.ir.ops import element_type

from torchport_simt.types import ctype, stored_type, zero
from torchport_simt.vector_operations import element

__all__ = ["load_scratch", "load_vector", "store_scratch", "store_vector"]


def load_vector(out: Any, op: Any) -> None:
    """``tp.vector_load`` of a tensor."""
    places = _places(out, op, 0)
    type_ = element_type(op.results[0].type)
    volatile = "volatile " if "volatile" in op.attributes else ""
    mask, other = (_operand(out, op, number) for number in (1, 2))
    pointer = f"(const {volatile}TP_GLOBAL {stored_type(type_)} *)"
    texts = []
    for lane, place in enumerate(places):
        text = f"*{pointer}{place}"
        text = f"({text} != 0)" if str(type_) == "i1" else text
        if mask is not None:
            rest = zero(type_) if other is None else element(*other, lane)
            text = f"{element(*mask, lane)} ? {text} : {rest}"
        texts.append(text)
    whole = None
    if _adjacent(op, byte_width(type_)) and not volatile:
        whole = _read("TP_GLOBAL", type_, places[0])
    _define(out, op.results[0], texts, whole, mask, other)


def load_scratch(out: Any, op: Any) -> None:
    """``tp.scratch_load`` of a vector."""
    buffer, type_ = out.args(op)[0], element_type(op.results[0].type)
    places = [f"{buffer}[{index}]" for index in _indices(out, op, 1)]
    whole = _read("TP_PRIVATE", type_, f"&{places[0]}") if _adjacent(op, 1) else None
    _define(out, op.results[0], places, whole)


def store_vector(out: Any, op: Any) -> None:
    """``tp.vector_store`` to a tensor."""
    places = _places(out, op, 1)
    type_ = element_type(op.operands[0].type)
    pointer = f"(TP_GLOBAL {stored_type(type_)} *)"
    whole = _write(out, op, "TP_GLOBAL", places[0]) if _adjacent(op, byte_width(type_)) else None
    _store(out, op, [f"*{pointer}{place}" for place in places], whole, _operand(out, op, 2))


def store_scratch(out: Any, op: Any) -> None:
    """``tp.scratch_store`` of a vector."""
    buffer = out.args(op)[1]
    places = [f"{buffer}[{index}]" for index in _indices(out, op, 2)]
    whole = _write(out, op, "TP_PRIVATE", f"&{places[0]}") if _adjacent(op, 1) else None
    _store(out, op, places, whole, _operand(out, op, 3))


def _define(
    out: Any,
    value: Any,
    texts: list[str],
    whole: str | None,
    mask: tuple[str, Any] | None = None,
    other: tuple[str, Any] | None = None,
) -> None:
    """Define a loaded vector by its elements or, if that is possible and all lanes load, by one access."""
    if whole is None:
        out.define_each(value, texts)
        return
    if mask is None:
        out.define(value, whole)
        return
    rest = zero(value.type) if other is None else other[0]
    if not isinstance(mask[1], ir.VectorType):
        out.define(value, f"{mask[0]} ? {whole} : {rest}")
        return
    out.define(value, rest, constant_=False)
    name = out.names[value]
    out.line(f"if (tp_all({mask[0]})) {name} = {whole};")
    sign = "-" if str(element_type(value.type)) == "i1" else ""
    each = ", ".join(f"{sign}({text})" for text in texts)
    out.line(f"else {name} = ({ctype(value.type)})({each});")


def _store(out: Any, op: Any, places: list[str], whole: str | None, mask: tuple[str, Any] | None) -> None:
    value, type_ = out.args(op)[0], op.operands[0].type
    varies = mask is not None and isinstance(mask[1], ir.VectorType)
    if whole is not None:
        guard = "" if mask is None else f"if ({f'tp_all({mask[0]})' if varies else mask[0]}) "
        out.line(f"{guard}{whole};")
        if not varies:
            return
        out.line("else {")
    for lane, place in enumerate(places):
        guard = "" if mask is None else f"if ({element(*mask, lane)}) "
        out.line(f"{guard}{place} = {element(value, type_, lane)};")
    if whole is not None:
        out.line("}")


def _read(space: str, type_: Any, pointer: str) -> str:
    text = f"TP_VECTOR_READ({space}, {stored_type(type_)}, {pointer})"
    return f"tp_convert_i32v({text} != (tp_u8)0)" if str(type_) == "i1" else text


def _write(out: Any, op: Any, space: str, pointer: str) -> str:
    value, type_ = out.args(op)[0], element_type(op.operands[0].type)
    value = f"tp_convert_u8v({value} & 1)" if str(type_) == "i1" else value
    return f"TP_VECTOR_WRITE({space}, {stored_type(type_)}, {pointer}, {value})"


def _operand(out: Any, op: Any, number: int) -> tuple[str, Any] | None:
    """The name and type of an operand, None if there is none."""
    operands = list(op.operands)
    return (out.names[operands[number]], operands[number].type) if number < len(operands) else None


def _adjacent(op: Any, step: int) -> bool:
    return "stride" in op.attributes and ir.IntegerAttr(op.attributes["stride"]).value == step


def _places(out: Any, op: Any, number: int) -> list[str]:
    """The address of each element."""
    name, lanes = out.args(op)[number], range(out.source.width)
    if "stride" not in op.attributes:
        return [f"{name}.s{lane:x}" for lane in lanes]
    stride = ir.IntegerAttr(op.attributes["stride"]).value
    return [f"({name} + {lane * stride})" if lane * stride else name for lane in lanes]


def _indices(out: Any, op: Any, number: int) -> list[str]:
    """The index of each element in scratchpad memory."""
    name, lanes = out.args(op)[number], range(out.source.width)
    if "stride" not in op.attributes:
        return [f"{name}.s{lane:x}" for lane in lanes]
    stride = ir.IntegerAttr(op.attributes["stride"]).value
    return [f"{name} + {lane * stride}" if lane * stride else name for lane in lanes]
