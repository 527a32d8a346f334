"""Writes loads and stores of vectors as C statements.

``out`` is the emitter. Neighbours in memory are one access, others one for each element. A mask that is not the same in
all lanes is tested first; where some lanes have it and some do not, a loop goes over those that do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlir import ir
from torchport_passes.ir.build import byte_width
from torchport_passes.ir.ops import element_type

from torchport_simt.types import ctype, stored_type, zero
from torchport_simt.vector_operations import element

__all__ = ["load_scratch", "load_vector", "store_scratch", "store_vector"]


def load_vector(out: Any, op: Any) -> None:
    """``tp.vector_load`` of a tensor."""
    type_ = element_type(op.results[0].type)
    volatile = "volatile " if "volatile" in op.attributes else ""
    pointer = f"(const {volatile}TP_GLOBAL {stored_type(type_)} *)"
    whole = None
    if _adjacent(op, byte_width(type_)) and not volatile:
        whole = _read("TP_GLOBAL", type_, _places(out, op, 0)[0])
    _load(out, op, lambda place: f"*{pointer}{place}", 0, whole)


def load_scratch(out: Any, op: Any) -> None:
    """``tp.scratch_load`` of a vector."""
    buffer, type_ = out.args(op)[0], element_type(op.results[0].type)
    whole = _read("TP_PRIVATE", type_, f"&{buffer}[{_places(out, op, 1)[0]}]") if _adjacent(op, 1) else None
    _load(out, op, lambda index: f"{buffer}[{index}]", 1, whole)


def store_vector(out: Any, op: Any) -> None:
    """``tp.vector_store`` to a tensor."""
    type_ = element_type(op.operands[0].type)
    pointer = f"(TP_GLOBAL {stored_type(type_)} *)"
    whole = _write(out, op, "TP_GLOBAL", _places(out, op, 1)[0]) if _adjacent(op, byte_width(type_)) else None
    _store(out, op, lambda place: f"*{pointer}{place}", 1, whole)


def store_scratch(out: Any, op: Any) -> None:
    """``tp.scratch_store`` of a vector."""
    buffer = out.args(op)[1]
    whole = _write(out, op, "TP_PRIVATE", f"&{buffer}[{_places(out, op, 2)[0]}]") if _adjacent(op, 1) else None
    _store(out, op, lambda index: f"{buffer}[{index}]", 2, whole)


def _load(out: Any, op: Any, access: Callable[[str], str], number: int, whole: str | None) -> None:
    """Define a loaded vector: by one access if that is possible and all lanes load, or else element by element.

    access: an element's, given its place. number: the operand that the place is.
    """
    value = op.results[0]
    type_ = element_type(value.type)
    mask, other = (_operand(out, op, place) for place in (number + 1, number + 2))
    lanes = _places(out, op, number)
    if whole is None:
        sign = "-" if str(type_) == "i1" else ""
        truth = " != 0" if str(type_) == "i1" else ""
        each = ", ".join(f"{sign}({access(place)}{truth})" for place in lanes)
        whole = f"({ctype(value.type)})({each})"
    if mask is None:
        out.define(value, whole)
        return
    out.define(value, zero(value.type) if other is None else other[0], constant=False)
    name = out.names[value]
    if not isinstance(mask[1], ir.VectorType):
        out.line(f"if ({mask[0]}) {name} = {whole};")
        return
    out.line(f"if (tp_all({mask[0]})) {name} = {whole};")
    out.line("else {")
    stored = stored_type(type_)
    kept = f"tp_convert_u8v({name} & 1)" if str(type_) == "i1" else name
    _array(out, "tp_each", stored, kept)
    with _loop(out, op, mask[0], number) as place:
        out.line(f"tp_each[tp_i] = {access(place)};")
    out.line(f"{name} = {_read('TP_PRIVATE', type_, 'tp_each')};")
    out.line("}")


def _store(out: Any, op: Any, access: Callable[[str], str], number: int, whole: str | None) -> None:
    """Write a vector as ``_load`` reads one."""
    value, type_ = out.args(op)[0], op.operands[0].type
    mask = _operand(out, op, number + 1)
    lanes = _places(out, op, number)
    lines = [f"{access(place)} = {element(value, type_, lane)};" for lane, place in enumerate(lanes)]
    if whole is not None:
        lines = [f"{whole};"]
    varies = mask is not None and isinstance(mask[1], ir.VectorType)
    if mask is not None:
        out.line(f"if ({f'tp_all({mask[0]})' if varies else mask[0]}) {{")
    for line in lines:
        out.line(line)
    if mask is not None:
        out.line("}")
    if not varies or mask is None:
        return
    out.line("else {")
    kind = element_type(type_)
    _array(out, "tp_each", stored_type(kind), f"tp_convert_u8v({value} & 1)" if str(kind) == "i1" else value)
    with _loop(out, op, mask[0], number) as place:
        out.line(f"{access(place)} = tp_each[tp_i];")
    out.line("}")


@contextmanager
def _loop(out: Any, op: Any, mask: str, number: int) -> Iterator[str]:
    """Open a loop over the lanes that ``mask`` has, in which the lane's place is what this yields.

    A branch for each lane would be quicker to run, but drivers take minutes to compile some hundred of them.
    """
    _array(out, "tp_mask", "tp_u32", f"tp_as_u32v({mask})")
    place = out.args(op)[number]
    if "stride" in op.attributes:
        stride = ir.IntegerAttr(op.attributes["stride"]).value
        at = f"({place} + tp_i * ({stride}))"
    else:
        _array(out, "tp_place", ctype(element_type(op.operands[number].type)), place)
        at = "tp_place[tp_i]"
    out.line("TP_ROLLED")
    out.line("for (tp_i32 tp_i = 0; tp_i < TP_WIDTH; ++tp_i) if (tp_mask[tp_i]) {")
    yield at
    out.line("}")


def _array(out: Any, name: str, type_: str, vector: str) -> None:
    """Declare an array with the elements of a vector."""
    out.line(f"{type_} {name}[TP_WIDTH];")
    out.line(f"TP_VECTOR_WRITE(TP_PRIVATE, {type_}, {name}, {vector});")


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
    """The address of each element, or its index in scratchpad memory."""
    name, lanes = out.args(op)[number], range(out.source.width)
    if "stride" not in op.attributes:
        return [f"{name}.s{lane:x}" for lane in lanes]
    stride = ir.IntegerAttr(op.attributes["stride"]).value
    return [f"({name} + {lane * stride})" if lane * stride else name for lane in lanes]
