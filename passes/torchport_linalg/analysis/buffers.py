"""Which arguments of the kernel a pointer may point into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlir import ir

from torchport_linalg.analysis.forms import owner

__all__ = ["Buffers", "is_pointer"]

_FOR_BOUNDS = 3


def is_pointer(value: Any) -> bool:
    """Whether a value is a pointer or a tensor of them."""
    type_ = value.type
    return str(type_.element_type if isinstance(type_, ir.RankedTensorType) else type_) == "!llvm.ptr"


class Buffers:
    """The arguments of a kernel that pointers point into; ``entry``: the kernel's first block."""

    def __init__(self, entry: Any) -> None:
        self._numbers = {argument: number for number, argument in enumerate(entry.arguments)}
        self._known: dict[Any, frozenset[int]] = {}

    def of(self, pointer: Any) -> frozenset[int]:
        """The numbers of the arguments; none for a pointer that is never followed, or that is made from a number."""
        if pointer not in self._known:
            self._known[pointer] = frozenset(self._reached(pointer))
        return self._known[pointer]

    def _reached(self, pointer: Any) -> Iterator[int]:
        """Every value that a pointer may come from is looked at once: loops carry pointers in circles."""
        seen, rest = set(), [pointer]
        while rest:
            value = rest.pop()
            if value in seen:
                continue
            seen.add(value)
            if value in self._numbers:
                yield self._numbers[value]
            else:
                rest += _sources(value)


def _sources(value: Any) -> list[Any]:
    """The values of which a pointer may be one, each moved by any number of elements."""
    op = owner(value)
    if op is None:
        return _carried(value)
    number = ir.OpResult(value).result_number
    if op.name in ("scf.if", "scf.index_switch"):
        return [_end(region.blocks[0])[number] for region in op.regions if list(region.blocks)]
    if op.name == "scf.for":
        return [op.operands[_FOR_BOUNDS + number], _end(op.regions[0].blocks[0])[number]]
    if op.name == "scf.while":
        return [_end(op.regions[0].blocks[0])[1 + number]]
    return [operand for operand in op.operands if is_pointer(operand)]


def _carried(value: Any) -> list[Any]:
    """What the argument of a loop's block may be."""
    argument = ir.BlockArgument(value)
    loop, number = argument.owner.owner.operation, argument.arg_number
    if loop.name == "scf.for":
        return [loop.operands[_FOR_BOUNDS + number - 1], _end(argument.owner)[number - 1]]
    if loop.name == "scf.while":
        before, after = (region.blocks[0] for region in loop.regions)
        if argument.owner == before:
            return [loop.operands[number], _end(after)[number]]
        return [_end(before)[1 + number]]
    return []


def _end(block: Any) -> list[Any]:
    """The operands of a block's terminator."""
    return list(list(block.operations)[-1].operands)
