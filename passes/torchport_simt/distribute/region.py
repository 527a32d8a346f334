"""Copies scalar operations and regions, with their operands replaced."""

from __future__ import annotations

from typing import Any

from torchport_passes.ir.combine import replace_operands
from torchport_passes.ir.elementwise import elementwise
from torchport_passes.ir.traits import is_elementwise

__all__ = ["copy", "inline"]


def copy(op: Any, values: Any) -> Any:
    """Copy an operation on scalars, with its regions, to the insertion point; its results represent the old ones.

    ``values``: a ``Values``, which gives the operands.
    """
    if is_elementwise(op.name) and len(op.results) == 1:
        result = elementwise(op, [values.at(operand) for operand in op.operands], op.results[0].type)
        values.scalars[op.results[0]] = result
        return result.owner
    new = op.clone()
    replace_operands(new, values.scalars)
    values.scalars.update(zip(op.results, new.results, strict=True))
    return new


def inline(region: Any, arguments: list[Any], values: Any) -> list[Any]:
    """Emit the body of a region of one block on scalars. Returns the operands of its last operation."""
    block = region.blocks[0]
    values.scalars.update(zip(block.arguments, arguments, strict=True))
    *body, last = (op.operation for op in block.operations)
    for op in body:
        copy(op, values)
    return [values.at(operand) for operand in last.operands]
