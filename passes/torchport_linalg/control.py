"""Loops and branches. Of a pointer that a loop carries its offset is carried; if its lanes move together, an index.

Which tensors move together is found before the loop is written: it is assumed of all whose value before the loop has a
form, and dropped for those that the loop's body changes in another way, until nothing is dropped any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mlir import ir

from torchport_linalg.analysis.buffers import is_pointer
from torchport_linalg.analysis.forms import Form, shape_of
from torchport_linalg.analysis.polynomial import Atom, atom
from torchport_linalg.generic import filled
from torchport_linalg.kernel import Kernel
from torchport_linalg.scalars import element_of
from torchport_linalg.text import Block, Pointer, Value, Writer

__all__ = ["CONTROL", "carried", "plain"]

Body = Callable[[Kernel, Any], None]
"""Writes the operations of a block without its terminator."""


def plain(x: Kernel, value: Any, result: Any, *, offset: bool = True) -> list[Value]:
    """What a loop or a branch carries of a value to ``result``, which a value of the TTIR becomes there.

    A number is carried as it is. Of a pointer its offset is carried (unless ``offset`` is false), and the memref before
    it, if ``result`` may point into one of several arguments.
    """
    raw = x.raw(value)
    if not isinstance(raw, Pointer):
        return [raw]
    parts = []
    if len(among := x.buffers.of(result)) > 1:
        x.storage(among)  # all have elements of one type
        parts.append(x.base(raw if raw.buffers else Pointer(among)))
    if offset:
        zero = x.w.constant("0", "i64")
        parts.append(raw.offset or (zero if raw.shape is None else filled(x.w, zero, raw.shape)))
    return parts


def carried(x: Kernel, result: Any, parts: Sequence[Value]) -> Value | Pointer:
    """A value as it arrives from a loop or a branch, from what ``plain`` gave of it."""
    *chosen, last = parts
    if not is_pointer(result):
        return last
    return Pointer(x.buffers.of(result), last, x.shape(result), chosen[0] if chosen else None)


def _named(w: Writer, parts: Sequence[Value]) -> list[Value]:
    """New names for what a loop's block is given."""
    return [Value(w.name("carried"), part.element, part.shape) for part in parts]


def _types(values: Sequence[Value]) -> str:
    return ", ".join(v.type for v in values)


def _yield(x: Kernel, values: Sequence[Value]) -> None:
    tail = f" {', '.join(v.name for v in values)} : {_types(values)}" if values else ""
    x.w.op(f"scf.yield{tail}", effect=True)


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
    forms = [x.forms.of(value) if _may_move(x, value) else None for value in initial]
    moving = _moving(x, op, arguments)
    # A pointer whose lanes move together is the index alone; a tensor of numbers is carried as it is, besides.
    alone = {i for i in moving if is_pointer(arguments[i])}
    starts = [plain(x, value, arguments[i], offset=i not in alone) for i, value in enumerate(initial)]
    first = [x.index(forms[i].start) for i in moving]  # type: ignore[union-attr]
    given = [_named(w, parts) for parts in starts]
    number = Value(w.name("i"), element_of(induction.type))

    def arrive(i: int, value: Any, parts: Sequence[Value], start: str) -> None:
        if i in alone:
            offsets = x.offsets_of(_assumption(forms[i], start), x.shape(value) or ())
            parts = [*parts, offsets]
        x.set(value, carried(x, value, parts))

    x.set(induction, number)
    with w.inside(Block()) as inner:
        for i, (argument, parts) in enumerate(zip(arguments, given, strict=True)):
            arrive(i, argument, parts, moving.get(i, ""))
        body(x, block)
        results = list(list(block.operations)[-1].operands)
        after = [v for i, r in enumerate(results) for v in plain(x, r, arguments[i], offset=i not in alone)]
        nexts = [x.index(x.forms.of(results[i]).start) for i in moving]  # type: ignore[union-attr]
        _yield(x, [*after, *nexts])
    types = [*(part for parts in starts for part in parts), *first]
    names = [*(part.name for parts in given for part in parts), *moving.values()]
    head = f"scf.for {number.name} = {_one(x, low)} to {_one(x, high)} step {_one(x, step)} "
    if names:
        pairs = ", ".join(f"{name} = {value.name}" for name, value in zip(names, types, strict=True))
        head += f"iter_args({pairs}) -> ({_types(types)}) "
    kind = "" if number.element == "index" else f": {number.element} "
    made = iter(w.values([(v.element, v.shape) for v in types], f"{head}{kind}{{", inner, "}"))
    finals = [[next(made) for _ in parts] for parts in starts]
    ends = {i: next(made).name for i in moving}
    for i, result in enumerate(op.results):
        if i in ends:
            x.forms.assume({result: _assumption(forms[i], ends[i])})
        arrive(i, result, finals[i], ends.get(i, ""))


def _one(x: Kernel, value: Any) -> str:
    return x.get(value).name


def _if(x: Kernel, op: Any, body: Body) -> None:
    blocks, ends = [], []
    for region in op.regions:
        with x.w.inside(Block()) as block:
            if list(region.blocks):
                ends.append(_branch(x, op, region.blocks[0], body))
        blocks.append(block)
    into = f" -> ({_types(ends[0])})" if ends[0] else ""
    parts = [blocks[0], "} else {", blocks[1], "}"]
    _finish(x, op, ends[0], f"scf.if {_one(x, op.operands[0])}{into} {{", parts)


def _switch(x: Kernel, op: Any, body: Body) -> None:
    cases = list(ir.DenseI64ArrayAttr(op.attributes["cases"]))
    blocks, ends = [], []
    for region in op.regions:
        with x.w.inside(Block()) as block:
            ends.append(_branch(x, op, region.blocks[0], body))
        blocks.append(block)
    parts: list[Any] = []
    for case, block in zip(cases, blocks[1:], strict=True):
        parts += [f"\ncase {case} {{", block, "}"]
    parts += ["\ndefault {", blocks[0], "}"]
    into = f" -> {_types(ends[0])}" if ends[0] else ""
    _finish(x, op, ends[0], f"scf.index_switch {_one(x, op.operands[0])}{into}{parts[0]}", parts[1:])


def _branch(x: Kernel, op: Any, block: Any, body: Body) -> list[Value]:
    """Write one block of a branch; what it gives to the branch's results."""
    body(x, block)
    operands = list(list(block.operations)[-1].operands)
    values = [part for value, result in zip(operands, op.results, strict=True) for part in plain(x, value, result)]
    _yield(x, values)
    return values


def _finish(x: Kernel, op: Any, like: Sequence[Value], head: str, parts: Sequence[Any]) -> None:
    """Write a branch whose blocks are written already, and note its results; ``like``: their types."""
    made = iter(x.w.values([(v.element, v.shape) for v in like], head, *parts))
    for result in op.results:
        x.set(result, carried(x, result, [next(made) for _ in range(_count(x, result))]))


def _count(x: Kernel, result: Any) -> int:
    """How many values a loop or a branch carries for one of the TTIR."""
    return 2 if is_pointer(result) and len(x.buffers.of(result)) > 1 else 1


def _while(x: Kernel, op: Any, body: Body) -> None:
    w = x.w
    before, after = op.regions[0].blocks[0], op.regions[1].blocks[0]
    starts = [plain(x, value, a) for value, a in zip(op.operands, before.arguments, strict=True)]
    given = [_named(w, parts) for parts in starts]
    for argument, parts in zip(before.arguments, given, strict=True):
        x.set(argument, carried(x, argument, parts))
    with w.inside(Block()) as first:
        body(x, before)
        condition, *passed = list(before.operations)[-1].operands
        ends = [plain(x, value, a) for value, a in zip(passed, after.arguments, strict=True)]
        values = [part for parts in ends for part in parts]
        tail = f" {', '.join(v.name for v in values)} : {_types(values)}" if values else ""
        w.op(f"scf.condition({_one(x, condition)}){tail}", effect=True)
    inner = [_named(w, parts) for parts in ends]
    for argument, parts in zip(after.arguments, inner, strict=True):
        x.set(argument, carried(x, argument, parts))
    with w.inside(Block()) as second:
        body(x, after)
        results = list(list(after.operations)[-1].operands)
        _yield(x, [part for r, a in zip(results, before.arguments, strict=True) for part in plain(x, r, a)])
    initial, names = ([part for parts in group for part in parts] for group in (starts, given))
    pairs = ", ".join(f"{name.name} = {value.name}" for name, value in zip(names, initial, strict=True))
    types = f" : ({_types(initial)}) -> ({_types(values)})" if initial or values else " : () -> ()"
    head = f"scf.while ({pairs}){types} {{" if pairs else f"scf.while {types} {{"
    arguments = ", ".join(f"{part.name}: {part.type}" for parts in inner for part in parts)
    middle = f"}} do {{\n^bb0({arguments}):" if arguments else "} do {"
    made = iter(w.values([(v.element, v.shape) for v in values], head, first, middle, second, "}"))
    for result, parts in zip(op.results, ends, strict=True):
        x.set(result, carried(x, result, [next(made) for _ in parts]))


CONTROL: Mapping[str, Callable[[Kernel, Any, Body], None]] = MappingProxyType(
    {"scf.for": _for, "scf.if": _if, "scf.index_switch": _switch, "scf.while": _while}
)
"""What writes loops and branches, by name."""
