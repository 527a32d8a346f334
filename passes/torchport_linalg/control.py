"""Loops and branches. Of a pointer that a loop carries its offset is carried; if its lanes move together, an index.

Which tensors move together is found before the loop is written: it is assumed of all whose value before the loop has a
form, and dropped for those that the loop's body changes in another way, until nothing is dropped any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_linalg.analysis.forms import Form, shape_of
from torchport_linalg.analysis.polynomial import Atom, atom
from torchport_linalg.generic import filled
from torchport_linalg.kernel import Kernel
from torchport_linalg.scalars import element_of
from torchport_linalg.text import Block, Pointer, Value

__all__ = ["CONTROL"]

Body = Callable[[Kernel, Any], None]
"""Writes the operations of a block without its terminator."""


def _zero_offset(x: Kernel, shape: tuple[int, ...] | None) -> Value:
    zero = x.w.constant("0", "i64")
    return zero if shape is None else filled(x.w, zero, shape)


def _offset(x: Kernel, pointer: Pointer) -> Value:
    return pointer.offset if pointer.offset is not None else _zero_offset(x, pointer.shape)


def _plain(x: Kernel, value: Any) -> Value:
    """What a loop or a branch carries of a value: itself, or the offset of a pointer."""
    raw = x.raw(value)
    return _offset(x, raw) if isinstance(raw, Pointer) else raw


def _carried(x: Kernel, value: Any, name: str, like: Value | Pointer) -> Value | Pointer:
    """A value as it arrives from a loop or a branch."""
    shape = x.shape(value)
    if isinstance(like, Pointer):
        return Pointer(like.argument, Value(name, "i64", shape), shape)
    return Value(name, element_of(value.type), shape)


def _types(values: Sequence[Value]) -> str:
    return ", ".join(v.type for v in values)


def _yield(x: Kernel, values: Sequence[Value]) -> None:
    tail = f" {', '.join(v.name for v in values)} : {_types(values)}" if values else ""
    x.w.op(f"scf.yield{tail}", effect=True)


def _agree(one: Value | Pointer, other: Value | Pointer) -> None:
    if isinstance(one, Pointer) and isinstance(other, Pointer) and one.argument != other.argument:
        raise UnsupportedOperation("pointer", "a loop or a branch carries pointers to different arguments")


def _moving(x: Kernel, op: Any, arguments: Sequence[Any]) -> dict[int, str]:
    """Which of the values that a loop carries move by a scalar: their number and the name of the index carried."""
    yielded = list(op.regions[0].blocks[0].operations)[-1].operands
    starts = {i: x.forms.of(value) for i, value in enumerate(list(op.operands)[3:]) if _may_move(x, value)}
    names = {i: x.w.name("start") for i, form in starts.items() if form is not None}
    while names:
        assumed = {i: _assumption(starts[i], name) for i, name in names.items()}
        x.forms.assume({arguments[i]: form for i, form in assumed.items()})
        failed = [i for i, form in assumed.items() if not _moves(x.forms.of(yielded[i]), form)]
        if not failed:
            return names
        x.forms.assume({arguments[i]: None for i in names})
        for i in failed:
            del names[i]
    return {}


def _may_move(x: Kernel, value: Any) -> bool:
    element = element_of(value.type)
    return bool(shape_of(value)) and (element == "!llvm.ptr" or (element.startswith("i") and element != "i1"))


def _assumption(start: Form | None, name: str) -> Form:
    assert start is not None
    return Form(atom(Atom(name=name)), start.strides)


def _moves(after: Form | None, before: Form) -> bool:
    return after is not None and after.strides == before.strides


def _for(x: Kernel, op: Any, body: Body) -> None:
    w = x.w
    low, high, step, *initial = op.operands
    block = op.regions[0].blocks[0]
    induction, *arguments = block.arguments
    likes = [x.raw(value) for value in initial]
    forms = [x.forms.of(value) if _may_move(x, value) else None for value in initial]
    moving = _moving(x, op, arguments)
    names = [w.name("carried") for _ in arguments]
    # A pointer whose lanes move together is the index alone; a tensor of numbers is carried as it is, besides.
    starts = [_plain(x, v) for i, v in enumerate(initial) if not (i in moving and isinstance(likes[i], Pointer))]
    carried = [i for i in range(len(initial)) if not (i in moving and isinstance(likes[i], Pointer))]
    first = {i: x.index(forms[i].start) for i in moving}  # type: ignore[union-attr]
    number = Value(w.name("i"), element_of(induction.type))
    x.set(induction, number)
    with w.inside(Block()) as inner:
        for i, (argument, name) in enumerate(zip(arguments, names, strict=True)):
            like = likes[i]
            if i in moving and isinstance(like, Pointer):
                shape = x.shape(argument) or ()
                offsets = x.offsets_of(_assumption(forms[i], moving[i]), shape)
                x.set(argument, Pointer(like.argument, offsets, shape))
            else:
                x.set(argument, _carried(x, argument, name, like))
        body(x, block)
        results = list(list(block.operations)[-1].operands)
        for like, value in zip(likes, results, strict=True):
            _agree(like, x.raw(value))
        after = [_plain(x, results[i]) for i in carried]
        nexts = [x.index(x.forms.of(results[i]).start) for i in moving]  # type: ignore[union-attr]
        _yield(x, [*after, *nexts])
    pairs = [f"{names[i]} = {value.name}" for i, value in zip(carried, starts, strict=True)]
    pairs += [f"{moving[i]} = {value.name}" for i, value in first.items()]
    types = [*starts, *first.values()]
    head = f"scf.for {number.name} = {_plain(x, low).name} to {_plain(x, high).name} step {_plain(x, step).name} "
    if pairs:
        head += f"iter_args({', '.join(pairs)}) -> ({_types(types)}) "
    kind = "" if number.element == "index" else f": {number.element} "
    made = w.values([(v.element, v.shape) for v in types], f"{head}{kind}{{", inner, "}")
    finals = dict(zip(carried, made, strict=False))
    ends = dict(zip(moving, made[len(carried) :], strict=True))
    for i, result in enumerate(op.results):
        if i in ends:
            x.forms.assume({result: _assumption(forms[i], ends[i].name)})
        like = likes[i]
        if i in finals:
            x.set(result, _carried(x, result, finals[i].name, like))
        elif isinstance(like, Pointer):
            shape = x.shape(result) or ()
            x.set(result, Pointer(like.argument, x.offsets_of(_assumption(forms[i], ends[i].name), shape), shape))


def _if(x: Kernel, op: Any, body: Body) -> None:
    blocks, ends = [], []
    for region in op.regions:
        with x.w.inside(Block()) as block:
            if list(region.blocks):
                inner = region.blocks[0]
                body(x, inner)
                values = list(list(inner.operations)[-1].operands)
                ends.append([x.raw(value) for value in values])
                _yield(x, [_plain(x, value) for value in values])
        blocks.append(block)
    _finish(x, op, f"scf.if {x.get(op.operands[0]).name}", ends, [blocks[0], "} else {", blocks[1], "}"])


def _switch(x: Kernel, op: Any, body: Body) -> None:
    cases = list(ir.DenseI64ArrayAttr(op.attributes["cases"]))
    parts: list[Any] = []
    ends = []
    for number, region in enumerate(op.regions):
        with x.w.inside(Block()) as block:
            inner = region.blocks[0]
            body(x, inner)
            values = list(list(inner.operations)[-1].operands)
            ends.append([x.raw(value) for value in values])
            _yield(x, [_plain(x, value) for value in values])
        parts.append((number, block))
    texts: list[Any] = []
    for number, block in parts[1:]:
        texts += [f"\ncase {cases[number - 1]} {{", block, "}"]
    texts += ["\ndefault {", parts[0][1], "}"]
    _finish(x, op, f"scf.index_switch {x.get(op.operands[0]).name}", ends, texts, brace=False)


def _finish(
    x: Kernel, op: Any, head: str, ends: Sequence[Sequence[Value | Pointer]], parts: list[Any], *, brace: bool = True
) -> None:
    """Write a branch whose blocks are written already, and note its results."""
    likes: list[Value | Pointer] = []
    for group in zip(*ends, strict=True):
        like = next((v for v in group if not (isinstance(v, Pointer) and v.argument < 0)), group[0])
        for other in group:
            if not (isinstance(other, Pointer) and other.argument < 0):
                _agree(like, other)
        likes.append(like)
    shapes = [
        Value("", "i64" if isinstance(like, Pointer) else element_of(r.type), x.shape(r))
        for like, r in zip(likes, op.results, strict=True)
    ]
    results = f" -> ({_types(shapes)})" if shapes and brace else f" -> {_types(shapes)}" if shapes else ""
    if not brace and len(shapes) > 1:
        results = f" -> {_types(shapes)}"
    opened = f"{head}{results} {{" if brace else f"{head}{results}"
    if brace:
        made = x.w.values([(v.element, v.shape) for v in shapes], opened, *parts)
    else:
        made = x.w.values([(v.element, v.shape) for v in shapes], opened + parts[0], *parts[1:])
    for result, value, like in zip(op.results, made, likes, strict=True):
        x.set(result, _carried(x, result, value.name, like))


def _while(x: Kernel, op: Any, body: Body) -> None:
    w = x.w
    likes = [x.raw(value) for value in op.operands]
    starts = [_plain(x, value) for value in op.operands]
    before, after = op.regions[0].blocks[0], op.regions[1].blocks[0]
    names = [w.name("carried") for _ in likes]
    for argument, name, like in zip(before.arguments, names, likes, strict=True):
        x.set(argument, _carried(x, argument, name, like))
    with w.inside(Block()) as first:
        body(x, before)
        condition, *passed = list(before.operations)[-1].operands
        ends = [x.raw(value) for value in passed]
        values = [_plain(x, value) for value in passed]
        tail = f" {', '.join(v.name for v in values)} : {_types(values)}" if values else ""
        w.op(f"scf.condition({x.get(condition).name}){tail}", effect=True)
    inner_names = [w.name("carried") for _ in passed]
    for argument, name, like in zip(after.arguments, inner_names, ends, strict=True):
        x.set(argument, _carried(x, argument, name, like))
    with w.inside(Block()) as second:
        body(x, after)
        results = list(list(after.operations)[-1].operands)
        for like, value in zip(likes, results, strict=True):
            _agree(like, x.raw(value))
        _yield(x, [_plain(x, value) for value in results])
    given = ", ".join(f"{n} = {v.name}" for n, v in zip(names, starts, strict=True))
    into = ", ".join(v.type for v in values)
    types = f" : ({_types(starts)}) -> ({into})" if starts or values else " : () -> ()"
    head = f"scf.while ({given}){types} {{" if given else f"scf.while {types} {{"
    arguments = ", ".join(f"{n}: {v.type}" for n, v in zip(inner_names, values, strict=True))
    middle = f"}} do {{\n^bb0({arguments}):" if arguments else "} do {"
    made = w.values([(v.element, v.shape) for v in values], head, first, middle, second, "}")
    for result, value, like in zip(op.results, made, ends, strict=True):
        x.set(result, _carried(x, result, value.name, like))


CONTROL: Mapping[str, Callable[[Kernel, Any, Body], None]] = MappingProxyType(
    {"scf.for": _for, "scf.if": _if, "scf.index_switch": _switch, "scf.while": _while}
)
"""What writes loops and branches, by name."""
