"""Operations in which the elements of a tensor meet: reductions, scans, histograms, maps of several elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport_linalg.floats import convert
from torchport_linalg.generic import elementwise, filled
from torchport_linalg.kernel import Kernel
from torchport_linalg.memory import extracted, nest
from torchport_linalg.regions import apply
from torchport_linalg.scalars import element_of
from torchport_linalg.text import Block, Value, memref, tensor

__all__ = ["LANES"]

_INTEGERS = ("i8", "i16", "i32", "i64")
_WIDE = MappingProxyType({"f16": "f32", "bf16": "f32"})
_WIDE_SCANS = MappingProxyType({**_WIDE, "f32": "f64"})
_IDENTITY: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "arith.addf": {"f32": "-0.0", "f64": "-0.0"},  # x + -0.0 is x, also where x is -0.0
        "arith.mulf": {"f32": "1.0", "f64": "1.0"},
        **{f"arith.{name}": dict.fromkeys(_INTEGERS, "0") for name in ("addi", "ori", "xori", "maxui")},
        **{f"arith.{name}": dict.fromkeys(_INTEGERS, "-1") for name in ("andi", "minui")},
        "arith.muli": dict.fromkeys(_INTEGERS, "1"),
    }
)
"""What a reduction starts from, where the function has a neutral element; elsewhere it starts from the first slice."""


def _only(op: Any) -> str:
    """The name of the one operation on both arguments that a function is; empty if it is another one."""
    block = op.regions[0].blocks[0]
    first, *rest = (inner.operation for inner in block.operations)
    if len(rest) != 1 or list(rest[0].operands) != list(first.results) or len(block.arguments) != 2:
        return ""
    return str(first.name) if set(first.operands) == set(block.arguments) else ""


def _widened(x: Kernel, op: Any, inputs: Sequence[Value], wide: Mapping[str, str]) -> tuple[list[Value], str]:
    """Sums and products of narrow floats are computed in a wider type and rounded once; the type to round to, or ""."""
    narrow = inputs[0].element
    if narrow not in wide or _only(op) not in ("arith.addf", "arith.mulf"):
        return list(inputs), ""
    return [_convert(x, inputs[0], wide[narrow])], narrow


def _convert(x: Kernel, value: Value, to: str) -> Value:
    return elementwise(x.w, [value], [to], lambda w, args: [convert(w, args[0], to)])[0]


def _combine(x: Kernel, op: Any, wide: bool, left: Sequence[Value], right: Sequence[Value]) -> list[Value]:
    """The function on two groups of elements."""
    if wide:
        name = _only(op)
        element = left[0].element
        return [x.w.value(element, f"{name} {left[0].name}, {right[0].name} : {element}")]
    return apply(x, op.regions[0].blocks[0], [*left, *right])


def _reduce(x: Kernel, op: Any) -> None:
    """``linalg.reduce`` along one dimension, in ascending order; long sums of floats in cascades."""
    w = x.w
    axis = int(ir.IntegerAttr(op.attributes["axis"]).value)
    values, narrow = _widened(x, op, [x.get(v) for v in op.operands], _WIDE)
    shape, cascade = values[0].shape or (), x.profile.cascade
    adds = len(values) == 1 and _only(op) == "arith.addf"
    if adds and cascade and shape[axis] > cascade and shape[axis] % cascade == 0:
        split = (*shape[:axis], shape[axis] // cascade, cascade, *shape[axis + 1 :])
        values = _along(x, op, [_split(x, values[0], axis, split)], axis + 1, wide=bool(narrow))
    for result, value in zip(op.results, _along(x, op, values, axis, wide=bool(narrow)), strict=True):
        if narrow:
            value = _convert(x, value, narrow)
        if x.shape(result) is None:
            value = w.value(value.element, f"tensor.extract {value.name}[] : {value.type}")
        x.set(result, value)


def _split(x: Kernel, value: Value, axis: int, shape: tuple[int, ...]) -> Value:
    """One dimension as two."""
    groups = [str(d if d < axis else d + 1) for d in range(len(shape) - 1)]
    groups[axis] = f"{axis}, {axis + 1}"
    grouped, sizes = ", ".join(f"[{g}]" for g in groups), ", ".join(map(str, shape))
    text = f"tensor.expand_shape {value.name} [{grouped}] output_shape [{sizes}] : {value.type} into "
    return x.w.value(value.element, text + tensor(shape, value.element), shape=shape)


def _along(x: Kernel, op: Any, inputs: Sequence[Value], axis: int, *, wide: bool) -> list[Value]:
    """``linalg.reduce`` of tensors along a dimension; the results are tensors without it."""
    w, shape = x.w, inputs[0].shape or ()
    kept = shape[:axis] + shape[axis + 1 :]
    identity = _IDENTITY.get(_only(op), {}).get(inputs[0].element) if len(inputs) == 1 else None
    if identity is not None:
        starts = [filled(w, w.constant(identity, inputs[0].element), kept)]
        rest = list(inputs)
    else:
        starts = [_slice(x, value, axis, 0, 1, drop=True) for value in inputs]
        rest = [_slice(x, value, axis, 1, shape[axis] - 1) for value in inputs] if shape[axis] > 1 else []
    if not rest:
        return starts
    ins, outs = ([Value(w.name(word), v.element) for v in inputs] for word in ("in", "acc"))
    with w.inside(Block()) as block:
        combined = _combine(x, op, wide, outs, ins)
        names = ", ".join(v.name for v in combined)
        w.op(f"linalg.yield {names} : {', '.join(v.type for v in combined)}", effect=True)
    parameters = ", ".join(f"{v.name}: {v.element}" for v in (*ins, *outs))
    return w.values(
        [(v.element, kept) for v in inputs],
        f"linalg.reduce ins({_names(rest)}) outs({_names(starts)}) dimensions = [{axis}] ({parameters}) {{",
        block,
        "}",
    )


def _names(values: Sequence[Value]) -> str:
    return f"{', '.join(v.name for v in values)} : {', '.join(v.type for v in values)}"


def _slice(x: Kernel, value: Value, axis: int, first: int, count: int, *, drop: bool = False) -> Value:
    """Some of a tensor along an axis; ``drop``: without that dimension."""
    shape = value.shape or ()
    offsets = ", ".join(str(first if d == axis else 0) for d in range(len(shape)))
    sizes = ", ".join(str(count if d == axis else n) for d, n in enumerate(shape))
    ones = ", ".join(["1"] * len(shape))
    to = tuple(count if d == axis else n for d, n in enumerate(shape) if not (drop and d == axis))
    text = f"tensor.extract_slice {value.name}[{offsets}] [{sizes}] [{ones}] : {value.type} to "
    return x.w.value(value.element, text + tensor(to, value.element), shape=to)


def _scan(x: Kernel, op: Any) -> None:
    """A loop along the axis; each element is combined with the result before it."""
    w = x.w
    axis = int(ir.IntegerAttr(op.attributes["axis"]).value)
    backwards = bool(ir.BoolAttr(op.attributes["reverse"]).value)
    wide = _WIDE_SCANS if x.profile.cascade else _WIDE
    inputs, narrow = _widened(x, op, [x.get(v) for v in op.operands], wide)
    shape = inputs[0].shape or ()
    locals_ = [_local(x, shape, value.element) for value in inputs]
    other = tuple(1 if d == axis else n for d, n in enumerate(shape))
    last = w.index(shape[axis] - 1)
    with nest(x, other) as numbers:
        first = [*numbers]
        if backwards:
            first[axis] = last
        for value, local in zip(inputs, locals_, strict=True):
            _put(x, extracted(x, value, first), local, first)
    steps = tuple(n - 1 if d == axis else n for d, n in enumerate(shape))
    if shape[axis] > 1:
        with nest(x, steps) as numbers:
            before, here = [*numbers], [*numbers]
            here[axis] = w.value("index", f"arith.addi {numbers[axis].name}, {w.index(1).name} : index")
            if backwards:
                for place in (before, here):
                    place[axis] = w.value("index", f"arith.subi {last.name}, {place[axis].name} : index")
            left = [_take(x, local, value.element, before) for local, value in zip(locals_, inputs, strict=True)]
            right = [extracted(x, value, here) for value in inputs]
            for value, local in zip(_combine(x, op, bool(narrow), left, right), locals_, strict=True):
                _put(x, value, local, here)
    for result, local, value in zip(op.results, locals_, inputs, strict=True):
        made = _tensor(x, local, shape, value.element)
        x.set(result, _convert(x, made, narrow) if narrow else made)


def _local(x: Kernel, shape: tuple[int, ...], element: str) -> Value:
    type_ = memref(shape, element)
    return x.w.value(type_, f"memref.alloc() : {type_}", effect=True)


def _tensor(x: Kernel, local: Value, shape: tuple[int, ...], element: str) -> Value:
    return x.w.value(element, x.profile.to_tensor(local.name, local.type, tensor(shape, element)), shape=shape)


def _put(x: Kernel, value: Value, local: Value, numbers: Sequence[Value]) -> None:
    where = ", ".join(n.name for n in numbers)
    x.w.op(f"memref.store {value.name}, {local.name}[{where}] : {local.type}", effect=True)


def _take(x: Kernel, local: Value, element: str, numbers: Sequence[Value]) -> Value:
    where = ", ".join(n.name for n in numbers)
    return x.w.value(element, f"memref.load {local.name}[{where}] : {local.type}")


def _histogram(x: Kernel, op: Any) -> None:
    """A loop over the values; those outside of the bins are not counted."""
    w = x.w
    values = x.get(op.operands[0])
    mask = x.get(op.operands[1]) if len(op.operands) > 1 else None
    shape, element = x.shape(op.results[0]) or (), element_of(op.results[0].type)
    local = _local(x, shape, element)
    zero, one = w.constant("0", element), w.constant("1", element)
    w.op(f"linalg.fill ins({zero.name} : {element}) outs({local.name} : {local.type})", effect=True)
    bins = w.constant(str(shape[0]), values.element)
    with nest(x, values.shape or ()) as numbers:
        value = extracted(x, values, numbers)
        counted = w.value("i1", f"arith.cmpi ult, {value.name}, {bins.name} : {value.element}")
        if mask is not None:
            counted = w.value("i1", f"arith.andi {counted.name}, {extracted(x, mask, numbers).name} : i1")
        with w.inside(Block()) as block:
            number = w.value("index", f"arith.index_cast {value.name} : {value.element} to index")
            count = _take(x, local, element, [number])
            _put(x, w.value(element, f"arith.addi {count.name}, {one.name} : {element}"), local, [number])
        w.op(f"scf.if {counted.name} {{", block, "}")
    x.set(op.results[0], _tensor(x, local, shape, element))


def _map(x: Kernel, op: Any) -> None:
    """A function of ``pack`` neighbouring elements of each operand, in row-major order."""
    w = x.w
    pack = int(ir.IntegerAttr(op.attributes["pack"]).value)
    from math import prod

    from torchport_linalg.shapes import reshaped

    shape = x.shape(op.results[0]) or ()
    count = prod(shape)
    inputs = [reshaped(x, x.get(v), (count,)) for v in op.operands]
    elements = [element_of(r.type) for r in op.results]
    locals_ = [_local(x, (count,), e) for e in elements]
    with nest(x, (count // pack,)) as (number,):
        first = w.value("index", f"arith.muli {number.name}, {w.index(pack).name} : index")
        places = [w.value("index", f"arith.addi {first.name}, {w.index(k).name} : index") for k in range(pack)]
        given = [extracted(x, value, [place]) for value in inputs for place in places]
        results = apply(x, op.regions[0].blocks[0], given)
        for local, group in zip(locals_, range(0, len(results), pack), strict=True):
            for place, value in zip(places, results[group : group + pack], strict=True):
                _put(x, value, local, [place])
    for result, local, element in zip(op.results, locals_, elements, strict=True):
        x.set(result, reshaped(x, _tensor(x, local, (count,), element), shape))


LANES: Mapping[str, Callable[[Kernel, Any], None]] = MappingProxyType(
    {"tt.reduce": _reduce, "tt.scan": _scan, "tt.histogram": _histogram, "tt.map_elementwise": _map}
)
"""What writes these operations, by name."""
