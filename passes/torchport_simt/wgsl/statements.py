"""Writes operations on memory, lanes and functions as WGSL statements.

A pointer is a byte offset, its buffer is known when the kernel is compiled: ``tp_get32_b2(v7)`` reads a word of the
third buffer. What such functions do depends on how buffers are bound (``program.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlir import ir
from torchport_passes.ir.ops import matching

from torchport.errors import UnsupportedOperation
from torchport_simt.wgsl.arrays import Array, from_memory, to_memory
from torchport_simt.wgsl.program import IN_FLOAT32
from torchport_simt.wgsl.types import WIDE, bits_of, suffix, wtype, zero

__all__ = ["STATEMENTS"]

_ATOMICS = {
    "exch": "xchg", "add": "add", "fadd": "fadd", "and": "and", "or": "or", "xor": "xor", "max": "max", "min": "min",
    "umax": "umax", "umin": "umin",
}  # fmt: skip


def _stored_bits(type_: Any) -> int:
    return 8 if str(type_) == "i1" else bits_of(type_)


def _refuse_stored_pointers(op: Any, type_: Any) -> None:
    if str(type_) == "!llvm.ptr":
        raise UnsupportedOperation(op.name, "pointers in the memory of a device; pass tensors as arguments")


def _define_guarded(out: Any, op: Any, guard: str, text: str, other: str) -> None:
    """Define a result by an access that takes place where ``guard`` holds."""
    value = op.results[0]
    if not guard:
        out.define(value, text)
        return
    out.define(value, other, constant=False)
    out.line(f"if ({guard}) {{ {out.names[value]} = {text}; }}")


def _load(out: Any, op: Any) -> None:
    pointer, *rest = out.args(op)
    type_ = op.results[0].type
    _refuse_stored_pointers(op, type_)
    how = "volatile" if "volatile" in op.attributes else "get"
    text = from_memory(type_, f"tp_{how}{_stored_bits(type_)}_b{out.buffer(op)}({pointer})")
    other = rest[1] if len(rest) > 1 else zero(type_)
    _define_guarded(out, op, out.guard(rest[0] if rest else None), text, other)


def _store(out: Any, op: Any) -> None:
    pointer, value, *mask = out.args(op)
    type_ = op.operands[1].type
    _refuse_stored_pointers(op, type_)
    guard = out.guard(mask[0] if mask else None)
    text = f"tp_put{_stored_bits(type_)}_b{out.buffer(op)}({pointer}, {to_memory(type_, value)});"
    out.line(f"if ({guard}) {{ {text} }}" if guard else text)


def _wide_load(out: Any, op: Any) -> None:
    """Four words at once; each is another's in their place where a mask is false."""
    pointer, *rest = out.args(op)
    text = f"tp_get128_b{out.buffer(op)}({pointer})"
    types = [result.type for result in op.results]
    others = [to_memory(type_, other) for type_, other in zip(types, rest[1:], strict=False)] or ["0u"] * len(types)
    _define_words(out, op, out.guard(rest[0] if rest else None), text, f"vec4<u32>({', '.join(others)})")


def _define_words(out: Any, op: Any, guard: str, text: str, others: str = "") -> None:
    """Define the four results of an access, which takes place where ``guard`` holds."""
    out.count += 1
    words = f"w{out.count}"
    if guard:
        out.line(f"var {words} = {others};")
        out.line(f"if ({guard}) {{ {words} = {text}; }}")
    else:
        out.line(f"let {words} = {text};")
    for result, component in zip(op.results, "xyzw", strict=True):
        out.define(result, from_memory(result.type, f"{words}.{component}"))


def _wide_store(out: Any, op: Any) -> None:
    pointer, *rest = out.args(op)
    guard = out.guard(rest[_WIDE] if len(rest) > _WIDE else None)
    text = f"tp_put128_b{out.buffer(op)}({pointer}, {_joined(op, 1, rest)});"
    out.line(f"if ({guard}) {{ {text} }}" if guard else text)


def _joined(op: Any, first: int, texts: list[str]) -> str:
    """The values of an access, its operands from ``first`` on, as one vector of words."""
    values = list(op.operands)[first : first + _WIDE]
    words = [to_memory(value.type, text) for value, text in zip(values, texts[:_WIDE], strict=True)]
    return f"vec4<u32>({', '.join(words)})"


def _atomic(out: Any, op: Any) -> None:
    type_ = ir.TypeAttr(op.attributes["element"]).value
    if bits_of(type_) == 64:
        out.source.features.add("int64_atomics")
    args = out.args(op)
    mask = args.pop() if ir.BoolAttr(op.attributes["masked"]).value else None
    pointer, *values = args
    if op.name == "tt.atomic_cas":
        what = "cas"
    else:
        what = _ATOMICS[str(ir.StringAttr(op.attributes["rmw"]).value)]
    kind = str(type_)
    adds = what == "fadd" and kind in ("f32", "f64", "f16", "bf16")
    moves = what in ("xchg", "cas") and (kind in ("f32", "f64") or (what == "cas" and kind in ("f16", "bf16", "i16")))
    if not adds and not moves and (kind not in ("i32", "i64") or what == "fadd"):
        raise UnsupportedOperation(op.name, f"an atomic {what} of {type_}", location=str(op.location))
    name = f"{what}_{kind}" if adds else f"{what}{bits_of(type_)}"
    # Later passes give bf16 the type i16, and fadd's value with it: the functions take and give the bits.
    words = [to_memory(value.type, text) for value, text in zip(list(op.operands)[1:], values, strict=False)]
    text = from_memory(op.results[0].type, f"tp_{name}_b{out.buffer(op)}({pointer}, {', '.join(words)})")
    _define_guarded(out, op, out.guard(mask), text, zero(op.results[0].type))


_WIDE = 4
"""Neighbours of a wide access."""
_SCRATCH = "tp_scratch"


def _scratch(out: Any, op: Any) -> None:
    """An array in workgroup memory; one whose space is shared with others is part of an array of words."""
    count = ir.IntegerAttr(op.attributes["count"]).value
    element = ir.TypeAttr(op.attributes["element"]).value
    out.needs(element)
    buffer = op.results[0]
    if "offset" in op.attributes:
        start = ir.IntegerAttr(op.attributes["offset"]).value // 4
        out.scratch[buffer] = Array(_SCRATCH, element, start, _counts(out.function))
        if not out.source.scratchpad:
            out.source.scratchpad = ir.IntegerAttr(out.function.attributes["tp.scratch_bytes"]).value
            word = "atomic<u32>" if out.scratch[buffer].atomic else "u32"
            out.globals.append(f"var<workgroup> {_SCRATCH}: array<{word}, {out.source.scratchpad // 4}>;")
        return
    users = {use.owner.operation.name for use in buffer.uses}
    wide = bool(users & _WIDE_SCRATCH) and not users & {"tp.scratch_store", "tp.scratch_count"}
    array = out.scratch[buffer] = Array(out.name(buffer), element, None, "tp.scratch_count" in users, wide)
    held = "u32" if wtype(element) == "bool" else wtype(element)
    out.source.scratchpad += count * (8 if held in ("f64", "tp_u64") else 4)
    held = "atomic<u32>" if array.atomic else f"vec4<{held}>" if wide else held
    out.globals.append(f"var<workgroup> {array.name}: array<{held}, {count // _WIDE if wide else count}>;")


_WIDE_SCRATCH = frozenset({"tp.wide_scratch_load", "tp.wide_scratch_store"})


def _counts(function: Any) -> bool:
    return bool(matching(function, "tp.scratch_count".__eq__))


def _index(op: Any, position: int, text: str) -> str:
    return f"tp_low({text})" if str(op.operands[position].type) in WIDE else text


def _scratch_load(out: Any, op: Any) -> None:
    index = _index(op, 1, out.args(op)[1])
    type_ = op.results[0].type
    out.define(op.results[0], out.scratch[op.operands[0]].read(type_, index))


def _scratch_store(out: Any, op: Any) -> None:
    value, _, index, *mask = out.args(op)
    text = out.scratch[op.operands[1]].write(op.operands[0].type, _index(op, 2, index), value)
    out.line(f"if ({mask[0]}) {{ {text} }}" if mask else text)


def _wide_scratch_load(out: Any, op: Any) -> None:
    array, index = out.scratch[op.operands[0]], _index(op, 1, out.args(op)[1])
    if not array.wide:
        for plus, result in enumerate(op.results):
            out.define(result, array.read(result.type, index, plus))
        return
    out.count += 1
    out.line(f"let w{out.count} = {array.name}[{index} >> 2u];")
    words = f"w{out.count}"
    for result, component in zip(op.results, "xyzw", strict=True):
        out.define(result, f"{words}.{component}")


def _wide_scratch_store(out: Any, op: Any) -> None:
    _, index, *rest = out.args(op)
    array, index = out.scratch[op.operands[0]], _index(op, 1, index)
    values, mask = rest[:_WIDE], rest[_WIDE:]
    if array.wide:
        text = f"{array.name}[{index} >> 2u] = vec4<{wtype(array.element)}>({', '.join(values)});"
    else:
        types = [operand.type for operand in op.operands][2:]
        each = zip(types, values, strict=False)
        text = " ".join(array.write(type_, index, value, plus) for plus, (type_, value) in enumerate(each))
    out.line(f"if ({mask[0]}) {{ {text} }}" if mask else text)


def _scratch_count(out: Any, op: Any) -> None:
    _, index, mask = out.args(op)
    place = out.scratch[op.operands[0]].places(_index(op, 1, index))[0]
    out.line(f"if ({mask}) {{ atomicAdd(&{place}, 1u); }}")


def _barrier(out: Any, op: Any) -> None:
    everything = ir.StringAttr(op.attributes["memory"]).value == "all"
    out.line("storageBarrier(); workgroupBarrier();" if everything else "workgroupBarrier();")


def _assert(out: Any, op: Any) -> None:
    status = f"tp_put32_b{len(out.buffers)}(0u, {out.site(op)}u);"
    out.line(f"if (!{out.args(op)[0]}) {{ if (tp_alive) {{ {status} }} tp_alive = false; }}")


def _nothing(out: Any, op: Any) -> None:
    """What is said to the optimiser only."""


def _print(out: Any, op: Any) -> None:
    raise UnsupportedOperation("tl.device_print", "WGSL cannot print; store the values to a tensor")


def _call(out: Any, op: Any) -> None:
    """A function of the C library, if the preamble has it."""
    if op.name == "tp.extern":
        symbol = str(ir.StringAttr(op.attributes["symbol"]).value)
    else:
        symbol = str(ir.FlatSymbolRefAttr(op.attributes["callee"]).value)
    type_ = op.results[0].type
    stem = symbol.removesuffix("f") if str(type_) == "f32" else symbol
    name = out.spelling.functions.get(f"{stem}_{suffix(type_)}")
    if name is None:
        raise UnsupportedOperation(f"{stem} of {type_}", "torchport has no form of it in WGSL yet")
    if name not in IN_FLOAT32:
        out.source.features.add(f"{stem} in fp64")
    out.define(op.results[0], f"{name}({', '.join(out.args(op))})")


def _extended(out: Any, op: Any) -> None:
    low, high = op.results
    kind = suffix(low.type)
    sign = "s" if op.name == "arith.mulsi_extended" else ""
    a, b = out.args(op)
    if bits_of(low.type) < 32:
        raise UnsupportedOperation(op.name, f"of {low.type}")
    out.define(low, f"tp_mul_u64({a}, {b})" if kind == "u64" else f"({a} * {b})")
    out.define(high, f"tp_{sign}mulhi_{kind}({a}, {b})")


STATEMENTS: dict[str, Callable[[Any, Any], None]] = {
    "tt.load": _load,
    "tt.store": _store,
    "tt.atomic_rmw": _atomic,
    "tt.atomic_cas": _atomic,
    "tp.scratch": _scratch,
    "tp.scratch_load": _scratch_load,
    "tp.scratch_store": _scratch_store,
    "tp.scratch_count": _scratch_count,
    "tp.wide_load": _wide_load,
    "tp.wide_scratch_load": _wide_scratch_load,
    "tp.wide_scratch_store": _wide_scratch_store,
    "tp.wide_store": _wide_store,
    "tp.barrier": _barrier,
    "tp.assert": _assert,
    "tt.assert": _assert,
    "tp.print": _print,
    "func.call": _call,
    "tp.extern": _call,
    "arith.mului_extended": _extended,
    "arith.mulsi_extended": _extended,
    "llvm.intr.assume": _nothing,
}
