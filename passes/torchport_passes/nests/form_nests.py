"""Groups tensor operations into loop nests, and decides which values are computed again and which get a buffer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.types import Block, Module
from torchport_passes.nests.grouping import Grouping
from torchport_passes.nests.materialize import Materialization
from torchport_passes.nests.nest import BlockView
from torchport_passes.nests.rebuild import NestEmission

__all__ = ["FormNests"]


@dataclass(frozen=True)
class FormNests:
    """Wrap tensor operations into ``tp.nest`` operations, one loop nest each.

    Takes the IR that ``buffers`` leaves. An *anchor* is an operation that a loop nest exists for: a store, reduction,
    atomic, assertion or ``tp.write``. It joins the nest of the anchors before it if they have the same iteration space
    and it does not need the result of one of their reductions. A nest gets copies of all pure operations that its
    anchors need, so no index arithmetic passes from nest to nest through memory. A value that is costly to compute
    again is written to a buffer by the first nest that computes it. Loads do not move across stores with the same root
    pointer. Leaves no tensors outside of nests; the results of a nest are the scalars that its reductions give.
    """

    name: ClassVar[str] = "form-nests"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                blocks = list(function.regions[0].blocks)
                for block in blocks:
                    _form(ProgramMemory(blocks[0]), block)


def _form(memory: ProgramMemory, block: Block) -> None:
    """Form the nests of one block, and of the blocks inside its operations."""
    view = BlockView(block)
    items = Grouping(view, memory, partial(_form, memory)).run()
    materialization = Materialization(view, memory, items)
    materialization.run()
    NestEmission(view, items, materialization.buffers).run()
