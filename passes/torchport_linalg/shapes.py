"""Operations that move elements: splat, broadcast, reshape, transpose, join, split, concatenate, gather."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_linalg.generic import elementwise, filled, generic, indices
from torchport_linalg.kernel import Kernel
from torchport_linalg.scalars import element_of, width
from torchport_linalg.text import Pointer, Value, Writer, tensor

__all__ = ["SHAPES", "reshaped"]


def _make_range(x: Kernel, op: Any) -> None:
    (size,) = op.results[0].type.shape
    start = int(ir.IntegerAttr(op.attributes["start"]).value)

    def body(w: Writer, args: Sequence[Value]) -> list[Value]:
        number = w.value("i32", f"arith.index_cast {indices(w, (size,))[0].name} : index to i32")
        if start == 0:
            return [number]
        return [w.value("i32", f"arith.addi {number.name}, {w.constant(str(start), 'i32').name} : i32")]

    if size == 1:
        x.set(op.results[0], filled(x.w, x.w.constant(str(start), "i32"), (1,)))
        return
    x.set(op.results[0], generic(x.w, [], (size,), ["i32"], body)[0])


def _moving(write: Callable[[Kernel, Any, Value, tuple[int, ...]], Value]) -> Callable[[Kernel, Any], None]:
    """Of a pointer, the offsets move."""

    def rule(x: Kernel, op: Any) -> None:
        operand, shape = x.raw(op.operands[0]), x.shape(op.results[0])
        if isinstance(operand, Pointer):
            offset = operand.offset and write(x, op, operand.offset, shape or ())
            x.set(op.results[0], replace(operand, offset=offset, shape=shape))
        else:
            x.set(op.results[0], write(x, op, operand, shape or ()))

    return rule


def _splat(x: Kernel, op: Any, value: Value, shape: tuple[int, ...]) -> Value:
    return filled(x.w, value, shape)


def _unsplat(x: Kernel, op: Any, value: Value, shape: tuple[int, ...]) -> Value:
    if value.scalar is not None:
        return value.scalar
    first = ", ".join([x.w.index(0).name] * len(value.shape or ()))
    return x.w.value(value.element, f"tensor.extract {value.name}[{first}] : {value.type}")


def reshaped(x: Kernel, value: Value, shape: tuple[int, ...]) -> Value:
    """The elements in row-major order in another shape."""
    if value.shape == shape:
        return value
    if value.scalar is not None:
        return filled(x.w, value.scalar, shape)
    assert value.shape is not None
    flat = value
    if len(value.shape) > 1:
        group = ", ".join(str(d) for d in range(len(value.shape)))
        to = (prod(value.shape),)
        text = f"tensor.collapse_shape {value.name} [[{group}]] : {value.type} into {tensor(to, value.element)}"
        flat = x.w.value(value.element, text, shape=to)
    elif not value.shape:
        return filled(x.w, _unsplat(x, None, value, ()), shape)
    if len(shape) == 1:
        return flat
    group = ", ".join(str(d) for d in range(len(shape)))
    sizes = ", ".join(map(str, shape))
    text = f"tensor.expand_shape {flat.name} [[{group}]] output_shape [{sizes}] : {flat.type} into "
    return x.w.value(value.element, text + tensor(shape, value.element), shape=shape)


def _reshape(x: Kernel, op: Any, value: Value, shape: tuple[int, ...]) -> Value:
    return reshaped(x, value, shape)


def _expand_dims(x: Kernel, op: Any, value: Value, shape: tuple[int, ...]) -> Value:
    axis = int(ir.IntegerAttr(op.attributes["axis"]).value)
    made = reshaped(x, value, shape)
    source, dims = _seen(value)
    return replace(made, source=source, dims=tuple(d if d < axis else d + 1 for d in dims))


def _seen(value: Value) -> tuple[Value, tuple[int, ...]]:
    """The tensor that holds the elements, and which indices lead to them."""
    if value.source is not None:
        return value.source, value.dims
    return value, tuple(d if n > 1 else -1 for d, n in enumerate(value.shape or ()))


def _broadcast(x: Kernel, op: Any, value: Value, shape: tuple[int, ...]) -> Value:
    if value.scalar is not None:
        return filled(x.w, value.scalar, shape)
    assert value.shape is not None
    new = tuple(d for d, (a, b) in enumerate(zip(value.shape, shape, strict=True)) if a != b)
    kept = tuple(n for d, n in enumerate(value.shape) if d not in new)
    small = reshaped(x, value, kept) if kept else None
    source, dims = _seen(value)
    if small is None:
        return filled(x.w, _unsplat(x, op, value, shape), shape)
    empty = x.w.value(value.element, f"tensor.empty() : {tensor(shape, value.element)}", shape=shape)
    text = (
        f"linalg.broadcast ins({small.name} : {small.type}) outs({empty.name} : {empty.type}) "
        f"dimensions = [{', '.join(map(str, new))}]"
    )
    made = x.w.value(value.element, text, shape=shape)
    return replace(made, source=source, dims=dims)


def _trans(x: Kernel, op: Any, value: Value, shape: tuple[int, ...]) -> Value:
    order = list(ir.DenseI32ArrayAttr(op.attributes["order"]))
    if value.scalar is not None:
        return filled(x.w, value.scalar, shape)
    empty = x.w.value(value.element, f"tensor.empty() : {tensor(shape, value.element)}", shape=shape)
    text = (
        f"linalg.transpose ins({value.name} : {value.type}) outs({empty.name} : {empty.type}) "
        f"permutation = [{', '.join(map(str, order))}]"
    )
    source, dims = _seen(value)
    made = x.w.value(value.element, text, shape=shape)
    return replace(made, source=source, dims=tuple(-1 if d < 0 else order.index(d) for d in dims))


def _join(x: Kernel, op: Any) -> None:
    """Two tensors become one with a last dimension of two."""
    left, right = (x.get(v) for v in op.operands)
    shape = x.shape(op.results[0]) or ()
    made = x.w.value(left.element, f"tensor.empty() : {tensor(shape, left.element)}", shape=shape)
    for place, part in enumerate((left, right)):
        made = _inserted(x, part, made, [*[0] * (len(shape) - 1), place], [*shape[:-1], 1])
    x.set(op.results[0], made)


def _inserted(x: Kernel, part: Value, into: Value, offsets: list[int], sizes: list[int]) -> Value:
    where = f"[{', '.join(map(str, offsets))}] [{', '.join(map(str, sizes))}] [{', '.join(['1'] * len(sizes))}]"
    text = f"tensor.insert_slice {part.name} into {into.name}{where} : {part.type} into {into.type}"
    return x.w.value(into.element, text, shape=into.shape)


def _split(x: Kernel, op: Any) -> None:
    value = x.get(op.operands[0])
    shape = value.shape or ()
    for place, result in enumerate(op.results):
        offsets = ", ".join([*["0"] * (len(shape) - 1), str(place)])
        sizes = ", ".join([*map(str, shape[:-1]), "1"])
        ones = ", ".join(["1"] * len(shape))
        to = x.shape(result)
        if to is None or not to:
            x.set(
                result, x.w.value(value.element, f"tensor.extract {value.name}[{x.w.index(place).name}] : {value.type}")
            )
            continue
        text = f"tensor.extract_slice {value.name}[{offsets}] [{sizes}] [{ones}] : {value.type} to "
        x.set(result, x.w.value(value.element, text + tensor(to, value.element), shape=to))


def _cat(x: Kernel, op: Any) -> None:
    left, right = (x.get(v) for v in op.operands)
    shape = x.shape(op.results[0]) or ()
    made = x.w.value(left.element, f"tensor.empty() : {tensor(shape, left.element)}", shape=shape)
    rest = [0] * (len(shape) - 1)
    made = _inserted(x, left, made, [0, *rest], list(left.shape or ()))
    made = _inserted(x, right, made, [(left.shape or (0,))[0], *rest], list(right.shape or ()))
    x.set(op.results[0], made)


def _gather(x: Kernel, op: Any) -> None:
    source, where = (x.get(v) for v in op.operands)
    axis = int(ir.IntegerAttr(op.attributes["axis"]).value)
    shape = where.shape or ()
    length = (source.shape or ())[axis]

    def body(w: Writer, args: Sequence[Value]) -> list[Value]:
        numbers = [n.name for n in indices(w, shape)]
        # An index outside of the tensor is an error of the kernel; it must not read outside of the buffer.
        # It is taken without a sign: a narrow type may be one that has none.
        number = w.value("index", f"arith.index_castui {args[0].name} : {args[0].element} to index")
        numbers[axis] = w.value("index", f"arith.minui {number.name}, {w.index(length - 1).name} : index").name
        return [w.value(source.element, f"tensor.extract {source.name}[{', '.join(numbers)}] : {source.type}")]

    x.set(op.results[0], generic(x.w, [where], shape, [source.element], body)[0])


def _constant(x: Kernel, op: Any) -> None:
    result, held = op.results[0], op.attributes["value"]
    element = element_of(result.type)
    shape = x.shape(result)
    if shape is None:
        x.set(result, x.w.value(element, f"arith.constant {_spelled(held)}"))
        return
    dense = ir.DenseElementsAttr(held)
    if dense.is_splat:
        scalar = x.w.value(element, f"arith.constant {_spelled(dense.get_splat_value())}")
        x.set(result, filled(x.w, scalar, shape))
        return
    x.set(result, x.w.value(element, f"arith.constant {held}", shape=shape))


def _spelled(attribute: Any) -> str:
    text = str(attribute)
    return {"true": "true", "false": "false"}.get(text, text)


def _addptr(x: Kernel, op: Any) -> None:
    pointer, moved = x.pointer(op.operands[0]), x.get(op.operands[1])
    shape = x.shape(op.results[0])
    pointee, storage = str(op.attributes["pointee"]), x.storage(pointer.buffers)
    if _bytes(pointee) != _bytes(storage):
        raise UnsupportedOperation("tt.addptr", f"a buffer of {storage} is addressed as one of {pointee}")

    def body(w: Writer, args: Sequence[Value]) -> list[Value]:
        number = args[-1]
        if number.element != "i64":
            number = w.value("i64", f"arith.extsi {number.name} : {number.element} to i64")
        if len(args) == 1:
            return [number]
        return [w.value("i64", f"arith.addi {args[0].name}, {number.name} : i64")]

    inputs = [moved] if pointer.offset is None else [pointer.offset, moved]
    x.set(op.results[0], replace(pointer, offset=elementwise(x.w, inputs, ["i64"], body)[0], shape=shape))


def _bytes(element: str) -> int:
    return 1 if element == "i1" or element.startswith("f8") else width(element) // 8


SHAPES: Mapping[str, Callable[[Kernel, Any], None]] = MappingProxyType(
    {
        "arith.constant": _constant,
        "tt.make_range": _make_range,
        "tt.splat": _moving(_splat),
        "tt.unsplat": _moving(_unsplat),
        "tt.reshape": _moving(_reshape),
        "tt.expand_dims": _moving(_expand_dims),
        "tt.broadcast": _moving(_broadcast),
        "tt.trans": _moving(_trans),
        "tt.join": _join,
        "tt.split": _split,
        "tt.cat": _cat,
        "tt.gather": _gather,
        "tt.addptr": _addptr,
    }
)
"""What writes the operations that move elements, by name."""
