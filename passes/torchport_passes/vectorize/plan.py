"""Decides how a loop nest becomes loops: one plan for each nest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torchport_passes.ir.types import Op, Value
from torchport_passes.vectorize.bounds import Bounds, find_bounds
from torchport_passes.vectorize.functions import registers_of_functions
from torchport_passes.vectorize.nest_info import NestInfo, nest_info
from torchport_passes.vectorize.turning import Turning, find_turning, turned_loops
from torchport_passes.vectorize.vector_dimension import Vectorization, choose_vector_dimension

__all__ = ["Plan", "plan_function"]


@dataclass(frozen=True)
class Plan:
    """How one ``tp.nest`` becomes loops.

    ``nest``: its operations and their coordinates.
    ``vector``: the dimension that becomes vectors, and the order of the loops.
    ``bounds``: where its loops may end early.
    ``turning``: accesses that are turned in registers, if there are any.
    """

    nest: NestInfo
    vector: Vectorization
    bounds: Bounds
    turning: Turning | None = None


def plan_function(function: Op, vector_bits: int) -> list[Plan]:
    """Plans for every ``tp.nest`` of a function, in order. Which loops end at a bound is decided for all together."""
    plans: list[Plan] = []
    readers: list[Op] = []

    def visit(op: Op) -> None:
        if op.name == "tp.nest":
            plans.append(_plan(op, vector_bits))
            return
        if op.name.startswith("tp.") and op.name not in ("tp.buffer",):
            readers.append(op)
        for region in op.regions:
            for block in region.blocks:
                for inner in block.operations:
                    visit(inner.operation)

    visit(function)
    return _trimmed(plans, readers)


def _plan(op: Op, vector_bits: int) -> Plan:
    nest = nest_info(op)
    vector = choose_vector_dimension(nest, vector_bits)
    turning = find_turning(nest, vector)
    if turning is not None:
        vector = turned_loops(vector, turning)
    elif not vector.wraps and (registers := registers_of_functions(nest, vector_bits)) > 1:
        vector = choose_vector_dimension(nest, vector_bits, registers)
    return Plan(nest, vector, find_bounds(nest, vector), turning)


def _trimmed(plans: list[Plan], readers: list[Op]) -> list[Plan]:
    """A nest that fills buffers ends at its bound only if every reader of them ends at the same bound, in the same way.

    ``readers``: operations outside of nests that read buffers. Other plans lose ``bounds.trim``.
    """
    written, read = _buffer_uses(plans)
    outside = {operand for op in readers for operand in op.operands}
    cuts = [_cut(plan) for plan in plans]

    def may_be_cut(use: _Use, buffer: Value) -> bool:
        return buffer not in outside and all(
            (cuts[reader.number], reader.place) == (cuts[use.number], use.place) for reader in read.get(buffer, [])
        )

    pairs = [(use, buffer) for buffer, writers in written.items() for use in writers]
    while wrong := {u.number for u, buffer in pairs if cuts[u.number] is not None and not may_be_cut(u, buffer)}:
        for number in wrong:  # those that fill the buffers it reads may have to follow
            cuts[number] = None
    return [
        plan if cut is not None or not plan.bounds.trim else replace(plan, bounds=replace(plan.bounds, trim=False))
        for plan, cut in zip(plans, cuts, strict=True)
    ]


@dataclass(frozen=True)
class _Use:
    """A plan's number; the shape of a buffer that it uses, and which dimension of that its vectors lie along."""

    number: int
    place: tuple[tuple[int, ...], int | None]


def _buffer_uses(plans: list[Plan]) -> tuple[dict[Value, list[_Use]], dict[Value, list[_Use]]]:
    """For each buffer the plans that write it along their vector dimension, and those that read it."""
    written: dict[Value, list[_Use]] = {}
    read: dict[Value, list[_Use]] = {}
    for number, plan in enumerate(plans):
        dim, shape = plan.vector.dim, plan.nest.shape
        for op, at in plan.nest.uses:
            extents = tuple(1 if d is None else shape[d] for d in at)
            use = _Use(number, (extents, at.index(dim) if dim in at else None))
            if op.name == "tp.write" and dim in plan.nest.coords[op]:
                written.setdefault(op.operands[1], []).append(use)
            elif op.name == "tp.read":
                read.setdefault(op.operands[0], []).append(use)
    return written, read


def _cut(plan: Plan) -> tuple[Any, int] | None:
    """Where the loop over a plan's vector dimension ends, comparable between plans; None if it runs to its end."""
    bound = plan.bounds.vector
    return (bound.key, plan.nest.shape[plan.vector.dim]) if plan.bounds.trim and bound is not None else None
