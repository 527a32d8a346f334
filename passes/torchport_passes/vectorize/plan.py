"""Decides how a loop nest becomes loops: one plan for each nest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torchport_passes.ir.ops import numel
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
    """A nest that fills buffers ends at its bound only if every reader of them ends at the same bound.

    ``readers``: operations outside of nests that read buffers. Other plans lose ``bounds.trim``.
    """
    written, read = _buffer_uses(plans)
    outside = {operand for op in readers for operand in op.operands}
    cuts = [_cut(plan) for plan in plans]

    def may_be_cut(number: int, buffer: Value) -> bool:
        shape, dim = plans[number].nest.shape, plans[number].vector.dim
        same = all(cuts[reader] == cuts[number] for reader in read.get(buffer, []))
        return same and buffer not in outside and numel(shape) == shape[dim]

    pairs = [(number, buffer) for buffer, writers in written.items() for number in writers]
    while wrong := {n for n, buffer in pairs if cuts[n] is not None and not may_be_cut(n, buffer)}:
        for number in wrong:  # those that fill the buffers it reads may have to follow
            cuts[number] = None
    return [
        plan if cut is not None or not plan.bounds.trim else replace(plan, bounds=replace(plan.bounds, trim=False))
        for plan, cut in zip(plans, cuts, strict=True)
    ]


def _buffer_uses(plans: list[Plan]) -> tuple[dict[Value, list[int]], dict[Value, list[int]]]:
    """For each buffer the numbers of the plans that write it along their vector dimension, and that read it."""
    written: dict[Value, list[int]] = {}
    read: dict[Value, list[int]] = {}
    for number, plan in enumerate(plans):
        for op, _ in plan.nest.uses:
            if op.name == "tp.write" and plan.vector.dim in plan.nest.coords[op]:
                written.setdefault(op.operands[1], []).append(number)
            elif op.name == "tp.read":
                read.setdefault(op.operands[0], []).append(number)
    return written, read


def _cut(plan: Plan) -> tuple[Any, int] | None:
    """Where the loop over a plan's vector dimension ends, comparable between plans; None if it runs to its end."""
    bound = plan.bounds.vector
    return (bound.key, plan.nest.shape[plan.vector.dim]) if plan.bounds.trim and bound is not None else None
