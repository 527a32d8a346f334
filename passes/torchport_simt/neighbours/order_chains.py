"""Computes a result at a time, where a lane has several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torchport_passes.ir.ops import matching

__all__ = ["OrderChains"]

_ARITHMETIC = ("arith.", "math.")
_PURE = frozenset({"tt.addptr", "tp.extern", "func.call", "llvm.ptrtoint", "tt.get_program_id", "tt.get_num_programs"})


@dataclass(frozen=True)
class OrderChains:
    """Move arithmetic to what first needs it, in the order of its operands.

    ``distribute`` leaves each operation for all registers of a lane before the next operation, so that all of them hold
    something. From here on a register's result is finished before the next one's is begun. Accesses of memory and
    branches stay in their order.
    """

    name: ClassVar[str] = "order-chains"

    def apply(self, module: Any) -> None:
        with module.context:
            for op in matching(module, lambda name: True):
                for region in op.regions:
                    for block in region.blocks:
                        if op.name != "builtin.module" and len(block.operations):
                            _order(block)


def _order(block: Any) -> None:
    """Move the operations of a block."""
    ops = [op.operation for op in block.operations]
    inside = {result: i for i, op in enumerate(ops) for result in op.results}
    placed = [False] * len(ops)
    order: list[Any] = []
    for i, op in enumerate(ops):
        if not _moves(op):
            _place(i, ops, inside, placed, order)
    *_, last = ops
    for op in order[:-1]:
        op.move_before(last)


def _place(start: int, ops: list[Any], inside: dict[Any, int], placed: list[bool], order: list[Any]) -> None:
    """Append an operation to ``order``, after what it needs that is not there yet."""
    waiting = [start]
    while waiting:
        at = waiting[-1]
        if placed[at]:
            waiting.pop()
            continue
        missing = [inside[value] for value in _needs(ops[at]) if value in inside and not placed[inside[value]]]
        if missing:
            waiting += reversed(missing)
            continue
        placed[at] = True
        order.append(ops[at])
        waiting.pop()


def _needs(op: Any) -> list[Any]:
    """The values that an operation uses, in its regions too."""
    values = list(op.operands)
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                values += _needs(inner.operation)
    return values


def _moves(op: Any) -> bool:
    return not len(op.regions) and (op.name.startswith(_ARITHMETIC) or op.name in _PURE)
