"""Writes operations on memory, lanes and functions as C statements.

``out`` is the emitter: it names values, writes lines and knows the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlir import ir
from torchport_passes.ir.ops import element_type, matching

from torchport.errors import UnsupportedOperation
from torchport_simt.types import ctype, signed, stored_type, suffix, zero
from torchport_simt.vector_memory import load_scratch, load_vector, store_scratch, store_vector

__all__ = ["STATEMENTS"]

_ATOMICS = {
    "exch": "xchg", "add": "add", "fadd": "fadd", "and": "and", "or": "or", "xor": "xor", "max": "max", "min": "min",
    "umax": "umax", "umin": "umin",
}  # fmt: skip
_POINTER = "TP_GLOBAL tp_u8 *"
"""Local memory holds these as integers: a type with two address spaces is none of OpenCL C."""


def _load(out: Any, op: Any) -> None:
    pointer, *rest = out.args(op)
    type_ = op.results[0].type
    if str(type_) == "!llvm.ptr":
        raise UnsupportedOperation(op.name, "pointers in the memory of a device; pass tensors as arguments")
    volatile = "volatile " if "volatile" in op.attributes else ""
    stored = stored_type(type_)
    value = f"*(const {volatile}TP_GLOBAL {stored} *){pointer}"
    if str(type_) == "i1":
        value = f"({value} != 0)"
    guard = out.guard(rest[0] if rest else None)
    other = rest[1] if len(rest) > 1 else zero(type_)
    out.define(op.results[0], f"{guard} ? {value} : {other}" if guard else value)


def _store(out: Any, op: Any) -> None:
    pointer, value, *mask = out.args(op)
    type_ = op.operands[1].type
    if str(type_) == "!llvm.ptr":
        raise UnsupportedOperation(op.name, "pointers in the memory of a device; pass tensors as arguments")
    stored = stored_type(type_)
    guard = out.guard(mask[0] if mask else None)
    out.line(f"{f'if ({guard}) ' if guard else ''}*(TP_GLOBAL {stored} *){pointer} = {value};")


def _atomic(out: Any, op: Any) -> None:
    type_ = ir.TypeAttr(op.attributes["element"]).value
    if suffix(type_).endswith("64"):
        out.source.features.add("int64_atomics")
    calls = []
    for args in out.each(op):
        mask = args.pop() if ir.BoolAttr(op.attributes["masked"]).value else None
        guard = out.guard(mask)
        if op.name == "tt.atomic_cas":
            call = _compare_and_swap(out, op, type_, args)
        else:
            what = _ATOMICS[str(ir.StringAttr(op.attributes["rmw"]).value)]
            call = _read_modify_write(out, op, what, type_, args)
        calls.append(f"{guard} ? {call} : {zero(type_)}" if guard else call)
    out.define_each(op.results[0], calls)


def _read_modify_write(out: Any, op: Any, what: str, type_: Any, args: list[str]) -> str:
    pointer, value = args
    kind = suffix(type_)
    if what == "xchg" and kind in ("f32", "f64"):
        bits = f"u{kind[1:]}"
        swapped = f"tp_atomic_xchg_{bits}((TP_GLOBAL tp_{bits} *){pointer}, tp_as_{bits}({value}))"
        return f"tp_as_{kind}({swapped})"
    floats = what == "fadd" and kind in ("f32", "f64", "f16", "bf16")
    if not floats and kind not in ("u32", "u64"):
        raise UnsupportedOperation(op.name, f"an atomic {what} of {type_}", location=str(op.location))
    word = {"f32": "tp_u32", "f64": "tp_u64"}.get(kind, ctype(type_))  # the integer that is compared and swapped
    return f"tp_atomic_{what}_{kind}((TP_GLOBAL {word} *){pointer}, {value})"


def _compare_and_swap(out: Any, op: Any, type_: Any, args: list[str]) -> str:
    """Bits are compared: floats as the integers of their size."""
    pointer, expected, value = args
    text = str(type_)
    if text in ("f32", "f64"):
        bits = f"u{text[1:]}"
        old, new = f"tp_as_{bits}({expected})", f"tp_as_{bits}({value})"
        swapped = f"tp_cas_tp_{bits}((TP_GLOBAL tp_{bits} *){pointer}, {old}, {new})"
        return f"tp_as_{text}({swapped})"
    if ctype(type_) == "tp_u16":
        return f"tp_cas_u16((TP_GLOBAL tp_u16 *){pointer}, {expected}, {value})"
    if text not in ("i32", "i64"):
        raise UnsupportedOperation(op.name, f"a compare and swap of {type_}", location=str(op.location))
    return f"tp_cas_{ctype(type_)}((TP_GLOBAL {ctype(type_)} *){pointer}, {expected}, {value})"


def _scratch(out: Any, op: Any) -> None:
    """An array in local memory; one lane alone has it among its variables."""
    count = ir.IntegerAttr(op.attributes["count"]).value
    element = ir.TypeAttr(op.attributes["element"]).value
    kind = ctype(element)
    sizes = {"tp_bool": 1, "tp_u8": 1, "tp_u16": 2, "tp_u32": 4, "float": 4}
    out.needs(element)
    stored = {"tp_bool": "tp_u8", _POINTER: "tp_u64"}.get(kind, kind)
    space, pointed = ("", "") if out.source.width else ("TP_SCRATCHPAD ", "TP_SCRATCHPAD_POINTER ")
    if "offset" not in op.attributes:
        out.source.scratchpad += count * sizes.get(kind, 8)
        out.line(f"{space}{stored} {out.name(op.results[0])}[{count}];")
        return
    if not out.source.scratchpad:
        out.source.scratchpad = ir.IntegerAttr(out.function.attributes["tp.scratch_bytes"]).value
        out.line(f"{space}tp_u64 scratch[{out.source.scratchpad // 8}];")
    pointer = f"{pointed}{stored} *"
    start = ir.IntegerAttr(op.attributes["offset"]).value // 8
    out.line(f"{pointer}const {out.name(op.results[0])} = ({pointer})(scratch + {start});")


def _scratch_load(out: Any, op: Any) -> None:
    if isinstance(op.results[0].type, ir.VectorType):
        load_scratch(out, op)
        return
    buffer, index = out.args(op)
    kind = ctype(op.results[0].type)
    out.define(op.results[0], f"{f'({kind})' if kind == _POINTER else ''}{buffer}[{index}]")


def _scratch_store(out: Any, op: Any) -> None:
    if isinstance(op.operands[0].type, ir.VectorType):
        store_scratch(out, op)
        return
    value, buffer, index, *mask = out.args(op)
    if ctype(op.operands[0].type) == _POINTER:
        value = f"(tp_u64){value}"
    out.line(f"{f'if ({mask[0]}) ' if mask else ''}{buffer}[{index}] = {value};")


def _scratch_count(out: Any, op: Any) -> None:
    buffer, index, mask = out.args(op)
    out.line(f"if ({mask}) TP_SCRATCHPAD_COUNT({buffer} + {index});")


def _barrier(out: Any, op: Any) -> None:
    everything = ir.StringAttr(op.attributes["memory"]).value == "all"
    out.line("TP_BARRIER_ALL;" if everything else "TP_BARRIER_SCRATCHPAD;")


def _assert(out: Any, op: Any) -> None:
    out.line(f"if (!{out.args(op)[0]}) {{ if (tp_alive) *tp_status = {out.site(op)}; tp_alive = 0; }}")


def _nothing(out: Any, op: Any) -> None:
    """What is said to the optimiser only."""


def _print(out: Any, op: Any) -> None:
    if _waits_in_loop(op):
        raise UnsupportedOperation(
            "tl.device_print",
            "it stands in a loop in which lanes wait for each other, where drivers are known to crash; print after "
            "the loop",
        )
    out.source.features.add("printf")
    index, mask, *value = out.args(op)
    prefix = str(ir.StringAttr(op.attributes["prefix"]).value).replace("%", "%%")
    prefix = prefix.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    shape = list(ir.DenseI64ArrayAttr(op.attributes["shape"]))
    arguments: list[str] = []
    places: list[str] = []
    stride = 1
    for size in reversed(shape):
        places.insert(0, f"%{len(str(size - 1))}d")
        arguments.insert(0, f"(int)({index} / {stride}u % {size}u)")
        stride *= size
    text = f"pid (%d, %d, %d){prefix}"
    if value:
        shown, argument = _printed(out, op, value[0])
        operand = ir.IntegerAttr(op.attributes["operand"]).value
        which = f"(operand {operand}) " if operand >= 0 else ""
        text = f"pid (%d, %d, %d) idx ({', '.join(places)}){prefix}{which}{shown}"
        arguments.append(argument)
    groups = [f"(int)TP_GROUP({axis})" for axis in range(3)]
    out.line(f'if ({mask}) TP_PRINT("{text}\\n", {", ".join([*groups, *arguments])});')


def _printed(out: Any, op: Any, value: str) -> tuple[str, str]:
    type_ = op.operands[2].type
    text = str(type_)
    if ir.BoolAttr(op.attributes["hex"]).value and text.startswith("i"):
        return f"0x%0{max(1, int(text[1:]) // 4)}lx", f"(tp_u64){value}"
    if text == "!llvm.ptr":
        return "0x%lx", f"(tp_u64){value}"
    if text.startswith("i"):
        is_signed = ir.BoolAttr(op.attributes["signed"]).value and text != "i1"
        return ("%ld", f"(tp_i64)({signed(type_)}){value}") if is_signed else ("%lu", f"(tp_u64){value}")
    return "%f", value


def _call(out: Any, op: Any) -> None:
    """A function of the C library, on a scalar or on each element of vectors."""
    if op.name == "tp.extern":
        symbol = str(ir.StringAttr(op.attributes["symbol"]).value)
    else:
        symbol = str(ir.FlatSymbolRefAttr(op.attributes["callee"]).value)
    type_ = element_type(op.results[0].type)
    stem = symbol.removesuffix("f") if str(type_) == "f32" else symbol
    name = out.spelling.function(stem)
    if name is None:
        raise UnsupportedOperation(stem, f"{out.spelling.name} has no such function")
    out.define_each(op.results[0], [f"{name}({', '.join(args)})" for args in out.each(op)])


def _extended(out: Any, op: Any) -> None:
    low, high = op.results
    type_ = element_type(low.type)
    kind = ctype(type_)
    sign = "s" if op.name == "arith.mulsi_extended" else ""
    each = out.each(op)
    out.define_each(low, [f"({kind})({a} * {b})" for a, b in each])
    out.define_each(high, [f"({kind})tp_{sign}mulhi_{suffix(type_)}({a}, {b})" for a, b in each])


def _waits_in_loop(op: Any) -> bool:
    """Whether an operation is in a loop that has a barrier in it, too."""
    while op.name != "func.func":
        if op.name in ("scf.for", "scf.while") and matching(op, "tp.barrier".__eq__):
            return True
        op = op.parent.operation
    return False


STATEMENTS: dict[str, Callable[[Any, Any], None]] = {
    "tt.load": _load,
    "tt.store": _store,
    "tt.atomic_rmw": _atomic,
    "tt.atomic_cas": _atomic,
    "tp.scratch": _scratch,
    "tp.scratch_load": _scratch_load,
    "tp.scratch_store": _scratch_store,
    "tp.scratch_count": _scratch_count,
    "tp.barrier": _barrier,
    "tp.assert": _assert,
    "tt.assert": _assert,
    "tp.print": _print,
    "tp.vector_load": load_vector,
    "tp.vector_store": store_vector,
    "func.call": _call,
    "tp.extern": _call,
    "arith.mului_extended": _extended,
    "arith.mulsi_extended": _extended,
    "llvm.intr.assume": _nothing,
}
