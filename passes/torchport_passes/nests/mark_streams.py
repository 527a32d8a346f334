"""Finds the memory accesses that go on where they end."""

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

__all__ = ["MarkStreams"]

_Step = int | Literal["row"] | None  # elements; "row": an index that goes up by one, times what is not known here


@dataclass(frozen=True)
class MarkStreams:
    """Give ``tt.load`` and ``tt.store`` the attribute ``stream`` where what lies after them is likely touched next.

    Takes and leaves nests. A stream's address changes from one program instance to the next or, inside a loop, from one
    iteration to the next by as much as the access is long; it does not come from memory (an embedding's rows do). Of
    several nests that read one address, the first has the mark: the others find its lines in the cache. ``lower-nests``
    prefetches streams where they are contiguous.
    """

    name: ClassVar[str] = "mark-streams"

    def apply(self, module: Any) -> None:
        with module.context:
            for function in module.body.operations:
                addresses = _Addresses()
                for op in matching(function.operation, ("tt.load", "tt.store").__contains__):
                    pointers = op.operands[0]
                    if is_tensor(pointers) and addresses.is_new(op) and addresses.moves(op):
                        op.attributes["stream"] = ir.UnitAttr.get()


@dataclass
class _Addresses:
    """What is known about the addresses of one function. ``numbers``: equal expressions have equal numbers; ``values``:
    those of values asked about before, as an expression may use one again and again."""

    numbers: dict[Any, int] = field(default_factory=dict)
    values: dict[Any, int] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)

    def is_new(self, op: Any) -> bool:
        """Whether no access of the same kind to the same address was asked about before."""
        key = (op.name, self.number(op.operands[0]))
        known = key in self.seen
        self.seen.add(key)
        return not known

    def number(self, value: Any) -> int:
        """The number of the expression that ``value`` is: nests hold copies of what they compute addresses with."""
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

    def moves(self, op: Any) -> bool:
        """Whether an access is a stream."""
        around = op.parent
        while around.name not in ("func.func", "scf.for", "scf.while"):
            around = around.parent
        sources = _sources(op.operands[0])
        if sources is None or around.name == "scf.while":
            return False
        if around.name == "func.func":
            return any(source.name == "tt.get_program_id" for source in sources)
        step = _advance(op.operands[0], around, {})
        return step == "row" or (step is not None and step in (shape_of(op.operands[0]) or ()))


_KEEP_STEP = INDEX_MAPS | {"arith.extsi", "arith.extui", "arith.trunci"}


def _sources(value: Any) -> list[Any] | None:
    """The operations without operands behind an address; None where it comes from memory or from a reduction."""
    found: list[Any] = []
    for op in backward_slice(value, lambda op: op.operands):
        if len(op.regions) > 0 or op.name in LOADS:
            return None
        if len(op.operands) == 0:
            found.append(op)
    return found


def _advance(value: Any, loop: Any, known: dict[Any, _Step]) -> _Step:
    """By how many elements ``value`` goes up in one iteration of ``loop``; None where that is not known. ``known``: of
    values asked about before."""
    if value not in known:
        known[value] = _step(value, loop, known)
    return known[value]


def _step(value: Any, loop: Any, known: dict[Any, _Step]) -> _Step:
    op = owner_of(value)
    if op is None:
        return _argument_advance(value, loop)
    if not is_inside(op, loop):
        return 0
    if op.name in _KEEP_STEP:
        return _advance(op.operands[0], loop, known)
    steps = [_advance(operand, loop, known) for operand in op.operands]
    if all(step == 0 for step in steps):
        return 0
    if op.name in ("tt.addptr", "arith.addi"):
        return _step_of_sum(*steps)
    if op.name == "arith.muli":
        return _step_of_product(op, *steps)
    return None


def _step_of_sum(a: _Step, b: _Step) -> _Step:
    if a == 0 or b == 0:
        return b if a == 0 else a
    return a + b if isinstance(a, int) and isinstance(b, int) else None


def _step_of_product(op: Any, a: _Step, b: _Step) -> _Step:
    """A product moves in steps of a constant factor; by a whole row where the other factor is no constant."""
    factor, step = (op.operands[0], b) if a == 0 else (op.operands[1], a)
    constant = constant_behind(factor)
    if constant is not None and isinstance(step, int):
        return step * constant
    return "row" if step == 1 and 0 in (a, b) else None


def _argument_advance(argument: Any, loop: Any) -> _Step:
    """The same for an argument of a block: the loop's index or what the loop carries, if it is the loop's."""
    body = loop.regions[0].blocks[0]
    if ir.BlockArgument(argument).owner != body:
        return 0
    number = ir.BlockArgument(argument).arg_number
    if number == 0:
        return constant_int(loop.operands[2])
    following = owner_of(terminator_of(body).operands[number - 1])
    if (
        following is None
        or following.name not in ("arith.addi", "tt.addptr")
        or argument not in list(following.operands)
    ):
        return None
    return next((constant_behind(v) for v in following.operands if v != argument), None)
