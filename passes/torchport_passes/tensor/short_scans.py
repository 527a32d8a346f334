"""Removes scans along a dimension of one element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torchport_passes.ir.ops import int_attribute, matching, shape_of
from torchport_passes.ir.types import Module, Op

__all__ = ["ShortScans"]


@dataclass(frozen=True)
class ShortScans:
    """Replace scans along a dimension of one element by what they scan: nothing is combined there.

    Takes imported TTIR. Loops over the rows of a block of one row, as Inductor generates them for running sums of
    columns, have such scans.
    """

    name: ClassVar[str] = "short-scans"

    def apply(self, module: Module) -> None:
        for op in matching(module, "tt.scan".__eq__):
            if _is_short(op):
                for result, operand in zip(op.results, op.operands, strict=True):
                    result.replace_all_uses_with(operand)
                op.erase()


def _is_short(op: Op) -> bool:
    shape = shape_of(op.operands[0])
    same = all(result.type == operand.type for result, operand in zip(op.results, op.operands, strict=True))
    return same and shape is not None and shape[int_attribute(op, "axis")] == 1
