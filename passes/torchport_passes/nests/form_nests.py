"""Groups tensor operations into loop nests, and decides what is recomputed and what is kept in a buffer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from mlir import ir

from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.nests.grouping import Grouping
from torchport_passes.nests.materialize import Keeping
from torchport_passes.nests.nest import BlockView
from torchport_passes.nests.rebuild import NestEmission

__all__ = ["FormNests"]


@dataclass(frozen=True)
class FormNests:
    """Wrap tensor operations into ``tp.nest`` operations, one loop nest each.

    Takes the IR that ``buffers`` leaves. Each *anchor* (store, reduction, atomic, assertion, ``tp.write``) goes to a
    nest with the anchors before it that have the same iteration space and do not feed it through a reduction. A nest
    gets copies of all the pure operations its anchors need, so that index arithmetic never crosses nests in memory; a
    value that is costly to compute again is written to a ``tp.buffer`` by the first nest that computes it. Memory order
    is kept: a load is never moved over a store with the same root pointer. Leaves no tensor outside a ``tp.nest``; a
    nest's results are the scalars its reductions end in.
    """

    name: ClassVar[str] = "form-nests"

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                blocks = list(function.regions[0].blocks)
                for block in blocks:
                    _form(ProgramMemory(blocks[0]), block)


def _form(memory: ProgramMemory, block: Any) -> None:
    """Form the nests of one block, and of the blocks inside its operations."""
    view = BlockView(block)
    items = Grouping(view, memory, partial(_form, memory)).run()
    keeping = Keeping(view, memory, items)
    keeping.run()
    NestEmission(view, items, keeping.kept).run()
