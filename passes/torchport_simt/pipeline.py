"""The passes from imported TTIR to the code of one lane, in scalar arithmetic that any C-like language has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torchport.pipeline import Pass

__all__ = ["CleanUp", "passes"]


@dataclass(frozen=True)
class CleanUp:
    """Fold, hoist out of loops and merge equal scalar operations: upstream's own passes."""

    name: ClassVar[str] = "clean-up"

    def apply(self, module: Any) -> None:
        from mlir import passmanager

        with module.context:
            text = "builtin.module(canonicalize,loop-invariant-code-motion,cse)"
            passmanager.PassManager.parse(text).run(module.operation)


def passes(lanes: int, scratchpad: int = 0, *, double: bool = True) -> list[Pass]:
    """The list for groups of ``lanes`` lanes that share ``scratchpad`` bytes (0: any number), on a chip
    with f64 or without (``double``). Functions are the CPU target's own where it writes them out (``exp``,
    ``log``, ``tanh`` ... of f32), so that they give the same bits on every chip; others are the language's.
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

    return [
        RecognizeSort(),
        RecognizeFlip(),
        LiftBranches(),
        InlineCalls(),
        WidenSums(),
        WidenScans(double=double),
        Scalarize(),
        DecomposeDot(),
        Distribute(lanes=lanes),
        PackScratch(limit=scratchpad),
        LowerMath(arch="none"),
        LowerCasts(),
        LowerNarrowFloats(),
        LowerDivision(),
        CleanUp(),
    ]
