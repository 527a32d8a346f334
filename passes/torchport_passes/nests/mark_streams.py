"""Marks streaming accesses: each continues where the previous program or iteration stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mlir import ir

from torchport_passes.ir.build import byte_width, integer_type
from torchport_passes.ir.ops import (
    constant_behind,
    constant_int,
    element_type,
    is_inside,
    is_tensor,
    matching,
    numel,
    owner_of,
    shape_of,
    squeezed,
    terminator_of,
)
from torchport_passes.ir.slices import backward_slice
from torchport_passes.ir.traits import INDEX_MAPS, LOADS, WITHOUT_ARITHMETIC
from torchport_passes.ir.types import Module, Op, Value

__all__ = ["MarkStreams"]

_AHEAD = 2048  # bytes; of 1, 2, 3 and 4 KiB the best or second best for every kernel measured
_FURTHER = 4096  # bytes, of what goes to the second cache: few operations wait for it, and it has the room
_LONGEST_ROW = 16 * 1024  # bytes; half of the first cache: the others find a longer row in the second
_SHORTEST_ROW = 1024  # bytes; longer ones are streams
_MOST_WORK = 40  # operations of a body that waits for memory

_Step = int | Literal["row"] | None
"""By how many elements a value goes up in an iteration. "row": an unknown number times an index that goes up by one."""


@dataclass(frozen=True)
class MarkStreams:
    """Give ``tt.load`` and ``tt.store`` the attribute ``stream`` if the memory after them is likely touched next.

    Takes and leaves nests. The address of a stream changes by the length of the access from one program instance to
    the next or, inside a loop, from one iteration to the next. It does not come from memory, as that of an embedding's
    rows does. ``lower-nests`` prefetches contiguous streams as many bytes ahead as the attribute says. If several nests
    read one address, only the first is marked: the others find its lines in the cache. What the program keeps in the
    second cache alone (``second_cache``) is prefetched further ahead, and into that.

    ``stores``: whether stores are marked.
    ``next_rows``: of several reads of a row, the last is marked instead, and prefetches the next row.
    ``rows``: rows whose addresses come from memory get this number as the attribute ``rows``; 0: none. The loop over
    them prefetches the row that it needs so many turns later. So do short rows that are read beside a product's result:
    they lie far apart, and a body with long polynomials waits for each of them.
    ``bypass``: stores that follow the program's number get this number of bytes as the attribute ``bypass``; 0: none.
    Where a launch is found to store more, whole lines go to memory around the caches.
    """

    name: ClassVar[str] = "mark-streams"
    rows: int = 0
    stores: bool = True
    next_rows: bool = False
    bypass: int = 0

    def apply(self, module: Module) -> None:
        with module.context:
            for function in module.body.operations:
                addresses = _Addresses()
                kernel = "sym_visibility" not in function.operation.attributes  # others do not know the grid
                accesses = list(matching(function.operation, ("tt.load", "tt.store").__contains__))
                tensors = [op for op in accesses if is_tensor(op.operands[0])]
                multiplies = any(True for _ in matching(function.operation, "tp.dot".__eq__))
                for op in tensors:
                    moves = addresses.moves(op)
                    if addresses.is_new(op) and moves:
                        self._mark(op, _FURTHER if "second_cache" in op.attributes else _AHEAD)
                    beside = multiplies and op.name == "tt.load" and moves and _has_short_rows(op)
                    if self.rows and (beside or addresses.come_from_memory(op)):
                        op.attributes["rows"] = _number(self.rows)
                    follows = moves or addresses.follows_program(op)
                    if op.name == "tt.store" and self.bypass and kernel and follows and _is_light(op.parent):
                        op.attributes["bypass"] = _number(self.bypass)
                if self.next_rows:
                    self._move_to_last(addresses, [op for op in tensors if op.name == "tt.load"])

    def _mark(self, op: Op, ahead: int) -> None:
        if op.name == "tt.load" or self.stores:
            op.attributes["stream"] = _number(ahead)

    def _move_to_last(self, addresses: _Addresses, loads: list[Op]) -> None:
        """Of several reads of one address, the last prefetches instead of the first, if the cache holds their rows."""
        last = {addresses.number(op.operands[0]): op for op in loads}
        for op in loads:
            other = last[addresses.number(op.operands[0])]
            if "stream" not in op.attributes or other is op or other.parent.parent != op.parent.parent:
                continue
            row = numel(shape_of(op.operands[0]) or ()) * byte_width(element_type(op.results[0].type))
            if row <= _LONGEST_ROW:
                del op.attributes["stream"]
                other.attributes["stream"] = _number(row)


def _has_short_rows(load: Op) -> bool:
    """Whether a load takes several rows, each so short that no prefetcher has started at its end."""
    shape = shape_of(load.operands[0]) or ()
    return len(squeezed(shape)) > 1 and shape[-1] * byte_width(element_type(load.results[0].type)) < _SHORTEST_ROW


def _is_light(nest: Op) -> bool:
    """Whether a nest may be as fast as memory: its arithmetic is short."""
    names = [view.operation.name for view in nest.regions[0].blocks[0].operations]
    functions = any(name.startswith("math.") or name == "tt.extern_elementwise" for name in names)
    return not functions and sum(name not in WITHOUT_ARITHMETIC for name in names) <= _MOST_WORK


def _number(value: int) -> ir.IntegerAttr:
    return ir.IntegerAttr.get(integer_type(64), value)


@dataclass
class _Addresses:
    """The addresses of one function, numbered so that equal expressions have equal numbers.

    ``numbers``: the number of each expression.
    ``values``: the numbers of values asked about before.
    ``seen``: accesses (operation name, number of the address) asked about before.
    """

    numbers: dict[Any, int] = field(default_factory=dict)
    values: dict[Value, int] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)

    def is_new(self, op: Op) -> bool:
        """Whether this is the first access of its kind to its address."""
        key = (op.name, self.number(op.operands[0]))
        known = key in self.seen
        self.seen.add(key)
        return not known

    def number(self, value: Value) -> int:
        """The number of the expression that computes ``value``, which is the same for copies in other nests."""
        if value in self.values:
            return self.values[value]
        op = owner_of(value)
        if op is None or len(op.results) > 1 or len(op.regions) > 0 or op.name in LOADS:
            key: Any = value
        else:
            operands = tuple(self.number(v) for v in op.operands)
            key = (op.name, operands, str(op.attributes["value"]) if op.name == "arith.constant" else "")
            if op.name in ("tt.make_range", "tt.get_program_id", *INDEX_MAPS):
                key = (*key, str(value.type), *(str(a) for a in dict(op.attributes.items()).values()))
        self.values[value] = self.numbers.setdefault(key, len(self.numbers))
        return self.values[value]

    def come_from_memory(self, op: Op) -> bool:
        """Whether the addresses of rows are computed from what the kernel loads."""
        several = len(squeezed(shape_of(op.operands[0]) or ())) > 1
        sources = list(backward_slice(op.operands[0], lambda op: op.operands)) if several else []
        return any(one.name == "tt.load" and "volatile" not in one.attributes for one in sources)

    def follows_program(self, op: Op) -> bool:
        """Whether an address is computed from the program's number, or comes from memory: others are shared."""
        sources = _sources(op.operands[0])
        return sources is None or any(source.name == "tt.get_program_id" for source in sources)

    def moves(self, op: Op) -> bool:
        """Whether an access is a stream."""
        around = op.parent
        while around.name not in ("func.func", "scf.for", "scf.while"):
            around = around.parent
        sources = _sources(op.operands[0])
        if sources is None or around.name == "scf.while":
            return False
        if around.name == "func.func":
            return any(source.name == "tt.get_program_id" for source in sources)
        step = _Steps(around).of(op.operands[0])
        return step == "row" or (step is not None and step in (shape_of(op.operands[0]) or ()))


_KEEP_STEP = INDEX_MAPS | {"arith.extsi", "arith.extui", "arith.trunci"}


def _sources(value: Value) -> list[Op] | None:
    """The operations without operands behind an address; None if it comes from memory or from a reduction."""
    operations = list(backward_slice(value, lambda op: op.operands))
    if any(len(op.regions) > 0 or op.name in LOADS for op in operations):
        return None
    return [op for op in operations if len(op.operands) == 0]


class _Steps:
    """By how many elements values go up in one iteration of ``loop``; None if that is not known."""

    def __init__(self, loop: Op) -> None:
        self._loop = loop
        self._known: dict[Value, _Step] = {}

    def of(self, value: Value) -> _Step:
        """The step of one value."""
        if value not in self._known:
            self._known[value] = self._compute(value)
        return self._known[value]

    def _compute(self, value: Value) -> _Step:
        op = owner_of(value)
        if op is None:
            return self._of_argument(value)
        if not is_inside(op, self._loop):
            return 0
        if op.name in _KEEP_STEP:
            return self.of(op.operands[0])
        steps = [self.of(operand) for operand in op.operands]
        if all(step == 0 for step in steps):
            return 0
        if op.name in ("tt.addptr", "arith.addi"):
            return _step_of_sum(*steps)
        if op.name == "arith.muli":
            return _step_of_product(op, *steps)
        return None

    def _of_argument(self, argument: Value) -> _Step:
        """The step of a block argument: 0 unless it is the loop's index or a value that the loop carries."""
        body = self._loop.regions[0].blocks[0]
        if ir.BlockArgument(argument).owner != body:
            return 0
        number = ir.BlockArgument(argument).arg_number
        if number == 0:
            return constant_int(self._loop.operands[2])
        sum_ = owner_of(terminator_of(body).operands[number - 1])
        if sum_ is None or sum_.name not in ("arith.addi", "tt.addptr") or argument not in list(sum_.operands):
            return None
        return next((constant_behind(v) for v in sum_.operands if v != argument), None)


def _step_of_sum(a: _Step, b: _Step) -> _Step:
    if a == 0 or b == 0:
        return b if a == 0 else a
    return a + b if isinstance(a, int) and isinstance(b, int) else None


def _step_of_product(op: Op, a: _Step, b: _Step) -> _Step:
    """A product goes up by a constant factor times the other's step; by a row if that factor is not known."""
    factor, step = (op.operands[0], b) if a == 0 else (op.operands[1], a)
    constant = constant_behind(factor)
    if constant is not None and isinstance(step, int):
        return step * constant
    return "row" if step == 1 and 0 in (a, b) else None
