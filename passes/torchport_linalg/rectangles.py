"""Structured accesses: rectangles of memory with strides, copied to and from tensors."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torchport_linalg.analysis.accesses import Access
from torchport_linalg.analysis.forms import Form
from torchport_linalg.analysis.masks import Bound, Interval
from torchport_linalg.kernel import Kernel
from torchport_linalg.text import Block, Pointer, Value, memref

__all__ = ["Rectangle", "load_rectangle", "store_rectangle", "view"]


@dataclass(frozen=True)
class Rectangle:
    """The active lanes of a tensor: for each dimension the first and how many; None if all are."""

    firsts: tuple[Value, ...]
    counts: tuple[Value, ...]


def view(x: Kernel, pointer: Pointer, form: Form, shape: tuple[int, ...]) -> Value:
    """A rectangle of a buffer: ``memref.reinterpret_cast``. Its element is the memref's type."""
    base, offset, layout = x.base(pointer), x.index(form.start), _layout(form)
    strides = [x.index(s).name if text == "?" else text for s, text in zip(form.strides, layout, strict=True)]
    sizes = ", ".join(map(str, shape))
    type_ = memref(shape, x.storage(pointer.buffers), f"strided<[{', '.join(layout)}], offset: ?>")
    text = (
        f"memref.reinterpret_cast {base.name} to offset: [{offset.name}], sizes: [{sizes}], "
        f"strides: [{', '.join(strides)}] : {base.type} to {type_}"
    )
    return x.w.value(type_, text)


def _bound(x: Kernel, bound: Bound) -> Value:
    value = x.index(bound.value)
    if bound.by == 1:
        return value
    word, by = ("ceildivsi", bound.by) if bound.by > 0 else ("floordivsi", -bound.by)
    return x.w.value("index", f"arith.{word} {value.name}, {x.w.index(by).name} : index")


def _limit(x: Kernel, word: str, left: Value, right: Value) -> Value:
    return x.w.value("index", f"arith.{word} {left.name}, {right.name} : index")


def _rectangle(x: Kernel, interval: Interval, shape: tuple[int, ...]) -> Rectangle | None:
    """The first active lane of each dimension, from 0, and how many are active, at least 0; None if all are."""
    if interval.whole:
        return None
    w, zero = x.w, x.w.index(0)
    firsts, counts = [], []
    for d, size in enumerate(shape):
        first, end = zero, w.index(size)
        for bound in interval.lows[d]:
            first = _limit(x, "maxsi", first, _bound(x, bound))
        for bound in interval.highs[d]:
            end = _limit(x, "minsi", end, _bound(x, bound))
        if first is not zero:  # a rectangle without lanes stands inside the tensor, too
            first = _limit(x, "minsi", first, w.index(size))
        count = end if first is zero else w.value("index", f"arith.subi {end.name}, {first.name} : index")
        if interval.lows[d] or interval.highs[d]:
            count = _limit(x, "maxsi", count, zero)
        firsts.append(first)
        counts.append(count)
    for atom in interval.when:
        holds = x.scalar(atom)
        counts[0] = w.value("index", f"arith.select {holds.name}, {counts[0].name}, {zero.name} : index")
    return Rectangle(tuple(firsts), tuple(counts))


def _sliced(names: Rectangle, rank: int) -> str:
    firsts = ", ".join(v.name for v in names.firsts)
    counts = ", ".join(v.name for v in names.counts)
    return f"[{firsts}] [{counts}] [{', '.join(['1'] * rank)}]"


def _layout(form: Form) -> list[str]:
    """Strides as a memref's type has them. Only positive ones are static: not every version of MLIR takes others."""
    known = [stride.known for stride in form.strides]
    return [str(stride) if stride is not None and stride > 0 else "?" for stride in known]


def _row_major(shape: tuple[int, ...]) -> list[str]:
    return [str(prod(shape[d + 1 :])) for d in range(len(shape))]


def _subview(x: Kernel, source: Value, lanes: Rectangle, layout: list[str], element: str) -> Value:
    rank = len(lanes.firsts)
    type_ = memref([None] * rank, element, f"strided<[{', '.join(layout)}], offset: ?>")
    return x.w.value(type_, f"memref.subview {source.name}{_sliced(lanes, rank)} : {source.type} to {type_}")


def load_rectangle(
    x: Kernel, pointer: Pointer, access: Access, shape: tuple[int, ...], other: Value | None, element: str
) -> Value:
    """Copy a rectangle into a local buffer, around it ``other``, and take that as a tensor of the storage's type."""
    assert access.form is not None and access.interval is not None
    w = x.w
    lanes = _rectangle(x, access.interval, shape)
    source = view(x, pointer, access.form, shape)
    type_ = memref(shape, element)
    local = w.value(type_, f"memref.alloc() : {type_}", effect=True)
    if lanes is None:
        w.op(f"memref.copy {source.name}, {local.name} : {source.type} to {type_}", effect=True)
    else:
        _fill(x, local, lanes, shape, other, element)
        part = _subview(x, source, lanes, _layout(access.form), element)
        to = _subview(x, local, lanes, _row_major(shape), element)
        w.op(f"memref.copy {part.name}, {to.name} : {part.type} to {to.type}", effect=True)
    tensor = Value("", element, shape).type
    return w.value(element, x.profile.to_tensor(local.name, type_, tensor), shape=shape)


def _fill(x: Kernel, local: Value, lanes: Rectangle, shape: tuple[int, ...], other: Value | None, element: str) -> None:
    """Write ``other`` where lanes are not active: to the whole buffer, if there is such a lane."""
    w = x.w
    if other is not None and other.scalar is None:
        w.op(f"bufferization.materialize_in_destination {other.name} in writable {local.name} : "
             f"({other.type}, {local.type}) -> ()", effect=True)  # fmt: skip
        return
    scalar = other.scalar if other is not None and other.scalar is not None else w.zero(element)
    some: Value | None = None
    for count, size in zip(lanes.counts, shape, strict=True):
        full = w.index(size)
        if count is full:
            continue
        less = w.value("i1", f"arith.cmpi slt, {count.name}, {full.name} : index")
        some = less if some is None else w.value("i1", f"arith.ori {some.name}, {less.name} : i1")
    if some is None:
        return
    with w.inside(Block()) as block:
        w.op(f"linalg.fill ins({scalar.name} : {scalar.type}) outs({local.name} : {local.type})", effect=True)
    w.op(f"scf.if {some.name} {{", block, "}")


def store_rectangle(x: Kernel, pointer: Pointer, access: Access, value: Value) -> None:
    """Write the active lanes of a tensor of the storage's type to a rectangle of memory."""
    assert access.form is not None and access.interval is not None and value.shape is not None
    w, shape = x.w, value.shape
    lanes = _rectangle(x, access.interval, shape)
    target = view(x, pointer, access.form, shape)
    name, type_ = value.name, value.type
    if lanes is not None:
        type_ = f"tensor<{'?x' * len(shape)}{value.element}>"
        slice_ = _sliced(lanes, len(shape))
        name = w.value(type_, f"tensor.extract_slice {value.name}{slice_} : {value.type} to {type_}").name
        target = _subview(x, target, lanes, _layout(access.form), value.element)
    text = f"bufferization.materialize_in_destination {name} in writable {target.name} : ({type_}, {target.type}) -> ()"
    w.op(text, effect=True)
