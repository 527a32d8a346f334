"""Loads, stores and atomics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_linalg.analysis.accesses import verdict
from torchport_linalg.analysis.forms import Form
from torchport_linalg.analysis.polynomial import ZERO
from torchport_linalg.generic import elementwise
from torchport_linalg.kernel import Kernel
from torchport_linalg.rectangles import load_rectangle, store_rectangle
from torchport_linalg.scalars import element_of, width
from torchport_linalg.text import Block, Pointer, Value, Writer, memref

__all__ = ["MEMORY", "extracted", "nest"]


@contextmanager
def nest(x: Kernel, shape: tuple[int, ...]) -> Iterator[list[Value]]:
    """Loops over all elements of ``shape``, in row-major order; yields their indices."""
    w, opened, numbers = x.w, [], []
    bounds = [(w.index(0), w.index(size), w.index(1)) for size in shape]
    for low, high, step in bounds:
        number, block = Value(w.name("i"), "index"), Block()
        head = f"scf.for {number.name} = {low.name} to {high.name} step {step.name} {{"
        outer = w.inside(block)
        opened.append((head, block, outer))
        outer.__enter__()
        numbers.append(number)
    yield numbers
    for head, block, outer in reversed(opened):
        outer.__exit__(None, None, None)
        w.op(head, block, "}")


def extracted(x: Kernel, value: Value, numbers: Sequence[Value]) -> Value:
    """One element of a tensor; a scalar itself."""
    if value.shape is None or value.scalar is not None:
        return value.scalar or value
    source, dims = (value, range(len(numbers))) if value.source is None else (value.source, value.dims)
    names = ", ".join(x.w.index(0).name if d < 0 else numbers[d].name for d in dims)
    return x.w.value(value.element, f"tensor.extract {source.name}[{names}] : {source.type}")


def _converted(w: Writer, value: Value, to: str) -> Value:
    """The same bits as another type: an element as it is in memory, or as the kernel takes it."""

    def body(w: Writer, args: Sequence[Value]) -> list[Value]:
        (given,) = args
        if to == "i1":
            zero = w.constant("0", given.element)
            return [w.value("i1", f"arith.cmpi ne, {given.name}, {zero.name} : {given.element}")]
        if given.element == "i1":
            return [w.value(to, f"arith.extui {given.name} : i1 to {to}")]
        return [w.value(to, f"arith.bitcast {given.name} : {given.element} to {to}")]

    if value.element == to:
        return value
    bits = [8 if e == "i1" or e.startswith("f8") else width(e) for e in (value.element, to)]
    if bits[0] != bits[1]:
        raise UnsupportedOperation("tt.load", f"a buffer of {value.element} is accessed as one of {to}")
    return elementwise(w, [value], [to], body)[0]


def _offset(x: Kernel, pointers: Any, form: Form | None, numbers: Sequence[Value]) -> Value:
    """The offset of one lane, as an index."""
    w = x.w
    if form is not None:
        total = x.index(form.start)
        for number, stride in zip(numbers, form.strides, strict=True):
            if stride != ZERO:
                moved = w.value("index", f"arith.muli {number.name}, {x.index(stride).name} : index")
                total = w.value("index", f"arith.addi {total.name}, {moved.name} : index")
        return total
    offset = x.offsets(pointers)
    if offset is None:
        return w.index(0)
    one = extracted(x, offset, numbers)
    return w.value("index", f"arith.index_cast {one.name} : i64 to index")


def _place(x: Kernel, pointer: Pointer, offset: Value) -> tuple[Value, Value]:
    """One element of a buffer as a memref, and its index in it."""
    base, type_ = x.base(pointer), memref((1,), x.storage(pointer.buffers), "strided<[1], offset: ?>")
    text = (
        f"memref.reinterpret_cast {base.name} to offset: [{offset.name}], sizes: [1], strides: [1] : "
        f"{base.type} to {type_}"
    )
    return x.w.value(type_, text), x.w.index(0)


def _where(x: Kernel, mask: Value | None, element: str, read: Callable[[], Value], other: Callable[[], Value]) -> Value:
    """``read()`` where the mask holds, ``other()`` elsewhere."""
    w = x.w
    if mask is None:
        return read()
    with w.inside(Block()) as active:
        w.op(f"scf.yield {read().name} : {element}", effect=True)
    with w.inside(Block()) as rest:
        w.op(f"scf.yield {other().name} : {element}", effect=True)
    return w.value(element, f"scf.if {mask.name} -> ({element}) {{", active, "} else {", rest, "}")


def _load(x: Kernel, op: Any) -> None:
    pointers, mask, other = (*op.operands, None, None)[:3]
    pointer, result = x.pointer(pointers), op.results[0]
    shape, element = x.shape(result), element_of(result.type)
    stored = x.storage(pointer.buffers)
    w = x.w
    rest = None if other is None else _converted(w, x.get(other), stored)

    def one(numbers: Sequence[Value], form: Form | None) -> Value:
        place, index = _place(x, pointer, _offset(x, pointers, form, numbers))
        return w.value(stored, f"memref.load {place.name}[{index.name}] : {place.type}")

    def otherwise(numbers: Sequence[Value]) -> Value:
        return x.w.zero(stored) if rest is None else extracted(x, rest, numbers)

    if shape is None or shape == ():
        held = None if mask is None else x.get(mask)
        value = _where(x, held, stored, lambda: one((), x.forms.of(pointers)), lambda: otherwise(()))
        x.set(result, _converted(w, value, element))
        return
    access = verdict(pointers, mask, x.forms, writes=False)
    x.notes.append(("tt.load", access.reason))
    if not access.reason:
        loaded = load_rectangle(x, pointer, access, shape, rest, stored)
        x.set(result, _converted(w, loaded, element))
        return
    type_ = memref(shape, stored)
    local = w.value(type_, f"memref.alloc() : {type_}", effect=True)
    held = None if mask is None else x.get(mask)
    with nest(x, shape) as numbers:
        active = None if held is None else extracted(x, held, numbers)
        value = _where(x, active, stored, lambda: one(numbers, access.form), lambda: otherwise(numbers))
        w.op(f"memref.store {value.name}, {local.name}[{_list(numbers)}] : {type_}", effect=True)
    made = w.value(stored, x.profile.to_tensor(local.name, type_, Value("", stored, shape).type), shape=shape)
    x.set(result, _converted(w, made, element))


def _list(values: Sequence[Value]) -> str:
    return ", ".join(v.name for v in values)


def _guarded(x: Kernel, mask: Value | None, write: Callable[[], None]) -> None:
    if mask is None:
        write()
        return
    with x.w.inside(Block()) as block:
        write()
    x.w.op(f"scf.if {mask.name} {{", block, "}")


def _store(x: Kernel, op: Any) -> None:
    pointers, given, mask = (*op.operands, None)[:3]
    pointer = x.pointer(pointers)
    shape = x.shape(pointers)
    x.written |= pointer.buffers
    value = _converted(x.w, x.get(given), x.storage(pointer.buffers))
    held = None if mask is None else x.get(mask)

    def one(numbers: Sequence[Value], form: Form | None) -> None:
        place, index = _place(x, pointer, _offset(x, pointers, form, numbers))
        element = extracted(x, value, numbers)
        x.w.op(f"memref.store {element.name}, {place.name}[{index.name}] : {place.type}", effect=True)

    if shape is None or shape == ():
        _guarded(x, held, lambda: one((), x.forms.of(pointers)))
        return
    access = verdict(pointers, mask, x.forms, writes=True)
    x.notes.append(("tt.store", access.reason))
    if not access.reason:
        store_rectangle(x, pointer, access, replace(value, source=None))
        return
    with nest(x, shape) as numbers:
        active = None if held is None else extracted(x, held, numbers)
        _guarded(x, active, lambda: one(numbers, access.form))


_RMW = MappingProxyType(
    {"fadd": "arith.addf", "add": "arith.addi", "and": "arith.andi", "or": "arith.ori", "xor": "arith.xori",
     "max": "arith.maxsi", "min": "arith.minsi", "umax": "arith.maxui", "umin": "arith.minui"}
)  # fmt: skip


def _atomic(x: Kernel, op: Any) -> None:
    """An atomic: ``memref.generic_atomic_rmw`` on each element, in order."""
    w = x.w
    compares = op.name == "tt.atomic_cas"
    pointers, *rest = op.operands
    given = [x.get(value) for value in rest]
    mask = None if compares or len(given) == 1 else given.pop()
    pointer, shape, result = x.pointer(pointers), x.shape(pointers), op.results[0]
    element, stored = element_of(result.type), x.storage(pointer.buffers)
    x.written |= pointer.buffers
    form = x.forms.of(pointers)

    def new(current: Value, values: Sequence[Value]) -> Value:
        held = _converted(w, current, element)
        if compares:
            expected, value = values
            bits = "i" + str(width(element))
            a, b = (_converted(w, v, bits) for v in (held, expected))
            equal = w.value("i1", f"arith.cmpi eq, {a.name}, {b.name} : {bits}")
            changed = w.value(element, f"arith.select {equal.name}, {value.name}, {held.name} : {element}")
        else:
            kind = str(ir.StringAttr(op.attributes["rmw"]).value)
            if kind == "exch":
                changed = values[0]
            elif kind in _RMW:
                changed = w.value(element, f"{_RMW[kind]} {held.name}, {values[0].name} : {element}")
            else:
                raise UnsupportedOperation(op.name, f"there is no atomic {kind}")
        return _converted(w, changed, stored)

    def one(numbers: Sequence[Value]) -> Value:
        place, index = _place(x, pointer, _offset(x, pointers, form, numbers))
        values = [extracted(x, value, numbers) for value in given]  # the region may not read
        current = Value(w.name("old"), stored)
        with w.inside(Block()) as block:
            w.op(f"memref.atomic_yield {new(current, values).name} : {stored}", effect=True)
        head = (
            f"memref.generic_atomic_rmw {place.name}[{index.name}] : {place.type} {{\n^bb0({current.name}: {stored}):"
        )
        return w.value(stored, head, block, "}", effect=True)

    if shape is None or shape == ():
        value = _where(x, mask, stored, lambda: one(()), lambda: x.w.zero(stored))
        x.set(result, _converted(w, value, element))
        return
    x.notes.append((op.name, "atomics are written one element after the other"))
    type_ = memref(shape, stored)
    local = w.value(type_, f"memref.alloc() : {type_}", effect=True)
    with nest(x, shape) as numbers:
        active = None if mask is None else extracted(x, mask, numbers)
        value = _where(x, active, stored, lambda: one(numbers), lambda: x.w.zero(stored))
        w.op(f"memref.store {value.name}, {local.name}[{_list(numbers)}] : {type_}", effect=True)
    made = w.value(stored, x.profile.to_tensor(local.name, type_, Value("", stored, shape).type), shape=shape)
    x.set(result, _converted(w, made, element))


MEMORY: Mapping[str, Callable[[Kernel, Any], None]] = MappingProxyType(
    {"tt.load": _load, "tt.store": _store, "tt.atomic_rmw": _atomic, "tt.atomic_cas": _atomic}
)
"""What writes accesses of memory, by name."""
