"""Which kernel arguments a pointer comes from."""

from __future__ import annotations

from typing import Any

from mlir import ir

from torchport_passes._axis import owner_of

__all__ = ["Roots"]

# Operations whose result points where their first operand does.
_THROUGH = frozenset(
    {"tt.addptr", "tt.splat", "tt.unsplat", "tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.trans", "tt.bitcast"}
)  # fmt: skip


class Roots:
    """Finds the arguments a pointer comes from, through index arithmetic, selections, branches and loops.

    A pointer that was loaded, made from an integer or passed to a function that is not inlined comes from nowhere that
    is known here.
    """

    def __init__(self, function: Any) -> None:
        self.entry = function.regions[0].blocks[0] if "sym_visibility" not in function.attributes else None

    def of(self, pointer: Any) -> tuple[int, ...] | None:
        """Indices of the arguments, in order, or None where there may be others."""
        found: set[int] = set()
        seen: set[Any] = set()
        work = [pointer]
        while work:
            value = work.pop()
            if value in seen:
                continue
            seen.add(value)
            if isinstance(value.owner, ir.Block) and value.owner == self.entry:
                found.add(ir.BlockArgument(value).arg_number)
                continue
            sources = _sources(value)
            if sources is None:
                return None
            work.extend(sources)
        return tuple(sorted(found))


def _sources(value: Any) -> list[Any] | None:
    """The values that ``value`` may be equal to, or point into the same memory as; None where they are not known."""
    op = owner_of(value)
    if op is None:
        return _of_argument(ir.BlockArgument(value))
    if op.name in _THROUGH:
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


def _of_argument(argument: Any) -> list[Any] | None:
    parent, index = argument.owner.owner, argument.arg_number
    op = parent.operation if isinstance(parent, (ir.Operation, ir.OpView)) else None
    if op is None or index < (op.name == "scf.for"):
        return None
    if op.name == "scf.for":  # bounds and step come before the values, the index before their arguments
        return [op.operands[2 + index], _terminator(op.regions[0]).operands[index - 1]]
    if op.name == "scf.while":
        if argument.owner == op.regions[0].blocks[0]:
            return [op.operands[index], _terminator(op.regions[1]).operands[index]]
        return [_terminator(op.regions[0]).operands[1 + index]]
    return None  # a basic block, or a function that is not inlined


def _terminator(region: Any) -> Any:
    return list(region.blocks[0].operations)[-1].operation
