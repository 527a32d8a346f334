"""Writes operations on each element: ``linalg.generic`` on tensors, the plain operation on scalars."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torchport_linalg.text import Block, Value, Writer, tensor

__all__ = ["Body", "elementwise", "filled", "generic", "indices"]

Body = Callable[[Writer, Sequence[Value]], Sequence[Value]]
"""Writes scalar operations on the elements; returns the results."""


def filled(w: Writer, scalar: Value, shape: tuple[int, ...]) -> Value:
    """A tensor whose elements all are ``scalar``."""
    empty = w.value(scalar.element, f"tensor.empty() : {tensor(shape, scalar.element)}", shape=shape)
    value = w.value(
        scalar.element,
        f"linalg.fill ins({scalar.name} : {scalar.type}) outs({empty.name} : {empty.type}) -> {empty.type}",
        shape=shape,
    )
    return Value(value.name, value.element, shape, scalar=scalar)


def elementwise(w: Writer, inputs: Sequence[Value], elements: Sequence[str], body: Body) -> list[Value]:
    """``body`` on each element of ``inputs``, scalars or tensors of one shape; results have types ``elements``."""
    shape = next((value.shape for value in inputs if value.shape is not None), None)
    if shape is None:
        return list(body(w, inputs))
    if all(value.shape is None or value.scalar is not None for value in inputs):
        return [filled(w, result, shape) for result in body(w, [value.scalar or value for value in inputs])]
    return generic(w, inputs, shape, elements, body)


def indices(w: Writer, shape: tuple[int, ...]) -> list[Value]:
    """The indices of the element that the body of a ``linalg.generic`` is written for."""
    return [w.value("index", f"linalg.index {d} : index") for d in range(len(shape))]


def generic(
    w: Writer, inputs: Sequence[Value], shape: tuple[int, ...], elements: Sequence[str], body: Body
) -> list[Value]:
    """A ``linalg.generic`` over ``shape`` in parallel. Scalars are captured, broadcast tensors read in place."""
    read: list[tuple[Value, str]] = []
    arguments: list[Value] = []
    for value in inputs:
        if value.shape is None or value.scalar is not None:
            arguments.append(value.scalar or value)
            continue
        source, dims = (value, tuple(range(len(shape)))) if value.source is None else (value.source, value.dims)
        argument = Value(w.name("in"), value.element)
        read.append((source, _map(shape, dims)))
        arguments.append(argument)
    names = [a for a, v in zip(arguments, inputs, strict=True) if v.shape is not None and v.scalar is None]
    outs = [w.value(e, f"tensor.empty() : {tensor(shape, e)}", shape=shape) for e in elements]
    unused = [Value(w.name("out"), e) for e in elements]
    with w.inside(Block()) as block:
        results = body(w, arguments)
        w.op(f"linalg.yield {', '.join(r.name for r in results)} : {', '.join(r.type for r in results)}", effect=True)
    maps = ", ".join([*(text for _, text in read), *[_map(shape, tuple(range(len(shape))))] * len(outs)])
    iterators = ", ".join(['"parallel"'] * len(shape))
    ins = _group("ins", [source for source, _ in read])
    parameters = ", ".join(f"{v.name}: {v.element}" for v in (*names, *unused))
    types = ", ".join(out.type for out in outs)
    return w.values(
        [(e, shape) for e in elements],
        f"linalg.generic {{indexing_maps = [{maps}], iterator_types = [{iterators}]}} {ins}{_group('outs', outs)} {{\n"
        f"^bb0({parameters}):",
        block,
        f"}} -> {types if len(outs) == 1 else '(' + types + ')'}",
    )


def _group(word: str, values: Sequence[Value]) -> str:
    if not values:
        return ""
    return f"{word}({', '.join(v.name for v in values)} : {', '.join(v.type for v in values)})" + " " * (word == "ins")


def _map(shape: tuple[int, ...], dims: tuple[int, ...]) -> str:
    names = ", ".join(f"d{d}" for d in range(len(shape)))
    return f"affine_map<({names}) -> ({', '.join('0' if d < 0 else f'd{d}' for d in dims)})>"
