"""The passes from imported TTIR to the code of one lane, in scalar arithmetic that any C-like language has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torchport.pipeline import Pass

__all__ = ["CleanUp", "passes"]


@dataclass(frozen=True)
class CleanUp:
    """Fold constants, hoist loop invariants and merge equal scalar operations, with upstream's passes."""

    name: ClassVar[str] = "clean-up"

    def apply(self, module: Any) -> None:
        from torchport_simt.distribute.build import clean_up

        clean_up(module)


def passes(
    lanes: int,
    scratchpad: int = 0,
    *,
    double: bool = True,
    vector: bool = False,
    registers: int = 0,
    word: int = 1,
    fused: bool = True,
    unit: int = 1,
) -> list[Pass]:
    """The passes for work-groups of ``lanes`` lanes.

    ``scratchpad``: bytes of local memory that they share, 0 for no limit. ``double``: whether the chip has f64.
    ``vector``: whether one lane does the work of all, with vectors. ``registers``: how many vectors of f32 registers
    hold, 0 if that is not known. ``word``: bytes of the smallest element of local memory.
    ``fused``: whether the chip has a fused multiply-add, which sums of products use then. ``unit``: neighbours that a
    lane accesses at once.
    Functions that the CPU target expands inline (``exp``, ``log``, ``tanh`` ... of f32) are expanded here too, so that
    they give the same bits on every chip; others are calls of the language's functions.
    """
    from torchport_passes.scalar.lower_casts import LowerCasts
    from torchport_passes.scalar.lower_division import LowerDivision
    from torchport_passes.scalar.lower_math import LowerMath
    from torchport_passes.scalar.lower_narrow_floats import LowerNarrowFloats
    from torchport_passes.tensor.decompose_dot import DecomposeDot
    from torchport_passes.tensor.inline_calls import InlineCalls
    from torchport_passes.tensor.lift_branches import LiftBranches
    from torchport_passes.tensor.recognize_flip import RecognizeFlip
    from torchport_passes.tensor.recognize_sort import RecognizeSort
    from torchport_passes.tensor.scalarize import Scalarize
    from torchport_passes.tensor.widen_scans import WidenScans
    from torchport_passes.tensor.widen_sums import WidenSums

    from torchport_simt.distribute.distribute import Distribute
    from torchport_simt.distribute.pack_scratch import PackScratch
    from torchport_simt.neighbours.join_accesses import JoinAccesses
    from torchport_simt.neighbours.order_chains import OrderChains
    from torchport_simt.vectors.join_lanes import JoinLanes

    neighbours: list[Pass] = [JoinAccesses(lanes=lanes), OrderChains()] if unit > 1 else []
    return [
        RecognizeSort(),
        RecognizeFlip(),
        LiftBranches(),
        InlineCalls(),
        WidenSums(),
        WidenScans(double=double),
        Scalarize(),
        DecomposeDot(),
        Distribute(lanes=lanes, vector=vector, registers=registers, fused=fused, unit=unit),
        PackScratch(limit=scratchpad, word=word),
        LowerMath(arch="none"),
        LowerCasts(),
        LowerNarrowFloats(),
        LowerDivision(),
        CleanUp(),
        *([JoinLanes(lanes=lanes)] if vector else []),
        *neighbours,
    ]
