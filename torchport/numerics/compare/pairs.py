"""A graph call of run A and the call of run B that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchport.numerics.compare.launch_verdict import LaunchVerdict
from torchport.numerics.graphs.align import Alignment, align_graphs
from torchport.numerics.verdicts.recorded_call import RecordedCall

__all__ = ["PairedCalls"]


@dataclass(frozen=True)
class PairedCalls:
    """A graph call of run A and the call of run B that belongs to it.

    position: of the pair in the runs
    a, b: the calls
    alignment: of their FX nodes
    verdicts: on the launches of run "A" and of run "B", by ``seq``
    """

    position: int
    a: RecordedCall
    b: RecordedCall
    alignment: Alignment
    verdicts: Mapping[str, Mapping[int, LaunchVerdict]]

    @classmethod
    def of(
        cls, position: int, a: RecordedCall, b: RecordedCall, verdicts: Mapping[str, Mapping[int, LaunchVerdict]]
    ) -> PairedCalls:
        return cls(position, a, b, align_graphs(a.dump, b.dump), verdicts)

    @property
    def calls(self) -> dict[str, RecordedCall]:
        return {"A": self.a, "B": self.b}
