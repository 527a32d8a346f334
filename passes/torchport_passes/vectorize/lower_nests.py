"""Turns ``tp.nest`` operations into loops over vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.types import Module
from torchport_passes.vectorize.loops import NestLoops
from torchport_passes.vectorize.plan import plan_function

__all__ = ["LowerNests"]


@dataclass(frozen=True)
class LowerNests:
    """Emit each nest as scf loops whose innermost step works on vectors.

    Takes what ``form-nests`` leaves; leaves no tensors. The dimension of a nest along which most memory accesses are
    contiguous is divided into chunks of lanes. A bound like ``index < n`` splits its loop into a part without masks and
    a masked epilogue, which ends at the bound if nothing beyond it can be observed. Reductions accumulate in each lane,
    and lanes are combined in a tree after the loop, those of up to four alike reductions in one. Elements two to four
    apart are loaded with their neighbours and picked out; others that are not contiguous are gathered.

    ``vector_bits``: width of the machine's vector registers.
    ``next_tiles``: whether squares prefetch what the next tile down takes. What is read in columns of a power of two of
    bytes lies in few sets of a cache, and what is prefetched then drives out what is needed first.
    """

    name: ClassVar[str] = "lower-nests"
    removes: ClassVar[frozenset[str]] = frozenset(
        {"tp.nest", "tp.read", "tp.write", "tp.yield", "tt.reduce", "tt.reduce.return"}
    )
    vector_bits: int = 256
    next_tiles: bool = True

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                if len(function.regions[0].blocks) == 0:
                    continue
                for plan in plan_function(function.operation, self.vector_bits):
                    NestLoops(plan, self.next_tiles).run()
