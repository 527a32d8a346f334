"""Notes what a kernel's launcher must know about its memory operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.analysis.provenance import SourceArguments
from torchport_passes.ir.atomics import needs_order
from torchport_passes.ir.ops import matching
from torchport_passes.ir.traits import ATOMICS, WRITES
from torchport_passes.ir.types import Module

__all__ = ["MarkOrder", "needs_order_in", "written_arguments"]


@dataclass(frozen=True)
class MarkOrder:
    """Leave on the module whether program instances must run in order, and which arguments they write.

    Takes imported TTIR, and changes nothing else. ``tp.serial`` (unit): a floating-point atomic is there, whose sum
    depends on the order. ``tp.written`` (array of i64): the arguments that stores and atomics may go to; missing where
    they may go anywhere, and without ``written``, as finding them takes time.
    """

    name: ClassVar[str] = "mark-order"
    written: bool = False

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            attributes = module.operation.attributes
            if any(map(needs_order, matching(module, ATOMICS.__contains__))):
                attributes["tp.serial"] = ir.UnitAttr.get()
            if self.written and (arguments := _written(module)) is not None:
                attributes["tp.written"] = ir.DenseI64ArrayAttr.get(arguments)


def _written(module: Module) -> list[int] | None:
    roots = SourceArguments(module)
    found = [roots.of(op.operands[0]) for op in matching(module, (WRITES - {"tp.write"}).__contains__)]
    return None if None in found else sorted({index for indices in found for index in indices or ()})


def needs_order_in(module: Module) -> bool:
    """Whether ``mark-order`` found that program instances must run in order."""
    return "tp.serial" in module.operation.attributes


def written_arguments(module: Module) -> list[int] | None:
    """The arguments that ``mark-order`` found to be written, None where that is not known."""
    attributes = module.operation.attributes
    return list(ir.DenseI64ArrayAttr(attributes["tp.written"])) if "tp.written" in attributes else None
