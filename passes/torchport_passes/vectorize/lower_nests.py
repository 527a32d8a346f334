"""Turns ``tp.nest`` operations into loops over vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir

from torchport_passes.vectorize.loops import NestLoops
from torchport_passes.vectorize.plan import plan_function

__all__ = ["LowerNests"]


@dataclass(frozen=True)
class LowerNests:
    """Emit each nest as scf loops whose innermost step works on vectors.

    Takes what ``form-nests`` leaves; leaves no tensors. ``vector_bits``: width of the machine's vector registers. One
    dimension of each nest, the one most memory accesses are contiguous along, is cut into chunks of lanes. Bounds like
    ``index < n`` split its loop into a part without masks and a masked rest, which is cut off where nothing in it can
    be observed. Reductions keep a vector of partial results a lane, combined in a tree after the loop.
    """

    name: ClassVar[str] = "lower-nests"
    vector_bits: int = 256

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                if len(function.regions[0].blocks) == 0:
                    continue
                for plan in plan_function(function.operation, self.vector_bits):
                    NestLoops(plan).run()
