"""Finds the kernel arguments that a pointer comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlir import ir

from torchport_passes.ir.ops import matching, owner_of, root_pointer, terminator_of, text_attribute
from torchport_passes.ir.traits import SAME_MEMORY
from torchport_passes.ir.types import Module, Op, Region, Value

__all__ = ["SourceArguments", "chosen_roots"]


class SourceArguments:
    """Follows pointers through index arithmetic, selections, branches, loops and calls to the kernel's arguments.

    Nothing is known about a pointer that was loaded, made from an integer or returned by a function.
    """

    def __init__(self, module: Module) -> None:
        self.calls: dict[str, list[Op]] = {}
        for call in matching(module, "tt.call".__eq__):
            self.calls.setdefault(ir.FlatSymbolRefAttr(call.attributes["callee"]).value, []).append(call)

    def of(
        self, pointer: Value, through: Callable[[Op], list[Value] | None] = lambda op: None
    ) -> tuple[int, ...] | None:
        """Indices of the arguments in ascending order; None if the pointer may come from elsewhere.

        ``through``: the values that the result of an operation not known here may be.
        """
        arguments: set[int] = set()
        seen: set[Value] = set()
        work = [pointer]
        while work:
            value = work.pop()
            if value in seen:
                continue
            seen.add(value)
            sources: list[Value] | int | None
            if (op := owner_of(value)) is not None:
                sources = _sources(value) or through(op)
            else:
                sources = self._of_argument(ir.BlockArgument(value))
            if sources is None:
                return None
            if isinstance(sources, int):
                arguments.add(sources)
            else:
                work.extend(sources)
        return tuple(sorted(arguments))

    def _of_argument(self, argument: Value) -> list[Value] | int | None:
        """What a block argument may be: one of some values, a kernel argument (its index), or None if not known."""
        op, index = argument.owner.owner.operation, argument.arg_number
        if op.name == "func.func" and argument.owner == op.regions[0].blocks[0]:
            if "sym_visibility" not in op.attributes:
                return int(index)
            return [call.operands[index] for call in self.calls.get(text_attribute(op, "sym_name"), ())]
        return _carried(argument)  # None: a basic block between branches


def chosen_roots(root: Value) -> frozenset[Value]:
    """The root pointers that a root pointer may be one of: itself, unless it was chosen, kept or carried.

    ``root``: as of ``root_pointer``.
    """
    found: set[Value] = set()
    seen: set[Value] = set()
    work = [root]
    while work:
        value = root_pointer(work.pop())
        if value in seen:
            continue
        seen.add(value)
        op = owner_of(value)
        if op is None:
            sources = _carried(ir.BlockArgument(value))
        else:
            sources = _kept(op) if op.name == "tp.read" else _sources(value)
        if sources:
            work.extend(sources)
        else:
            found.add(value)
    return frozenset(found)


def _kept(read: Op) -> list[Value]:
    """What was written to the buffer that an operation reads."""
    users = (use.owner.operation for use in read.operands[0].uses)
    return [op.operands[0] for op in users if op.name == "tp.write"]


def _carried(argument: Value) -> list[Value] | None:
    """What a loop's block argument may be, None for others."""
    op, index = argument.owner.owner.operation, argument.arg_number
    if op.name == "scf.for":  # bounds and step come before the values, the index before their arguments
        return None if index == 0 else [op.operands[2 + index], _terminator(op.regions[0]).operands[index - 1]]
    if op.name == "scf.while":
        if argument.owner == op.regions[0].blocks[0]:
            return [op.operands[index], _terminator(op.regions[1]).operands[index]]
        return [_terminator(op.regions[0]).operands[1 + index]]
    return None


def _sources(value: Value) -> list[Value] | None:
    """Values into whose memory ``value``, an operation's result, may point; None if not known."""
    op: Any = owner_of(value)
    if op.name in SAME_MEMORY:
        return [op.operands[0]]
    if op.name in ("tt.join", "tt.cat"):
        return list(op.operands)
    if op.name == "arith.select":
        return [op.operands[1], op.operands[2]]
    if op.name in ("scf.if", "scf.for", "scf.while"):
        index = next(i for i, result in enumerate(op.results) if result == value)
        if op.name == "scf.while":  # what its condition passes on
            return [_terminator(op.regions[0]).operands[1 + index]]
        sources = [_terminator(region).operands[index] for region in op.regions]
        return sources if op.name == "scf.if" else [*sources, op.operands[3 + index]]
    return None


def _terminator(region: Region) -> Op:
    return terminator_of(region.blocks[0])
