"""Marks streaming accesses: each continues where the previous program or iteration stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mlir import ir

from torchport_passes.ir.ops import (
    constant_behind,
    constant_int,
    is_inside,
    is_tensor,
    matching,
    owner_of,
    shape_of,
    terminator_of,
)
from torchport_passes.ir.slices import backward_slice
from torchport_passes.ir.traits import INDEX_MAPS, LOADS
from torchport_passes.ir.types import Module, Op, Value

__all__ = ["MarkStreams"]

_Step = int | Literal["row"] | None
"""By how many elements a value goes up in an iteration. "row": an unknown number times an index that goes up by one."""


@dataclass(frozen=True)
class MarkStreams:
    """Give ``tt.load`` and ``tt.store`` the attribute ``stream`` if the memory after them is likely touched next.

    Takes and leaves nests. The address of a stream changes by the length of the access from one program instance to
    the next or, inside a loop, from one iteration to the next. It does not come from memory, as that of an embedding's
    rows does. If several nests read one address, only the first is marked: the others find its lines in the cache.
    ``lower-nests`` prefetches contiguous streams.
    """

    name: ClassVar[str] = "mark-streams"

    def apply(self, module: Module) -> None:
        with module.context:
            for function in module.body.operations:
                addresses = _Addresses()
                for op in matching(function.operation, ("tt.load", "tt.store").__contains__):
                    pointers = op.operands[0]
                    if is_tensor(pointers) and addresses.is_new(op) and addresses.moves(op):
                        op.attributes["stream"] = ir.UnitAttr.get()


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
