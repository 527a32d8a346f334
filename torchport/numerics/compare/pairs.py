"""A graph call of run A and the call of run B that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.compare.launch_verdict import LaunchVerdict
from torchport.numerics.graphs.align import Alignment, add_equal, add_near, align_graphs
from torchport.numerics.runs.schema import DTYPES
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
        alignment = align_graphs(a.dump, b.dump)
        if _left_alone(a, alignment.pairs) & _left_alone(b, alignment.back):

            def one_type(node: str, other: str) -> bool:
                values = a.nodes[node]["value"], b.nodes[other]["value"]
                return all(isinstance(one, dict) for one in values) and values[0]["dtype"] == values[1]["dtype"]

            add_equal(alignment, _seen(a), _seen(b), one_type)
            if _are_gradients_of_two_kinds(a, b):

                def limit(node: str, other: str) -> float:
                    return _near(a.nodes[node]["value"]["dtype"]) if one_type(node, other) else 0.0

                add_near(alignment, _seen(a), _seen(b), limit)
        return cls(position, a, b, alignment, verdicts)

    @property
    def calls(self) -> dict[str, RecordedCall]:
        return {"A": self.a, "B": self.b}


def _are_gradients_of_two_kinds(a: RecordedCall, b: RecordedCall) -> bool:
    """Whether one call is the gradients of an eager model, and the other those of a compiled one."""
    eager = [bool(call.run.graphs[call.key].get("eager")) for call in (a, b)]
    return eager[0] != eager[1] and a.direction == b.direction == "backward"


def _near(dtype: str) -> float:
    """How far float64 values may be apart that begin with numbers of a type, rounded in two ways: 64 of its units."""
    known = DTYPES.get(dtype)
    return min(_FAR, 64 * format_of(known).unit) if known is not None and known.is_floating_point else 0.0


_FAR = 0.05


def _left_alone(call: RecordedCall, paired: Mapping[str, str]) -> set[tuple[str, tuple[int, ...]]]:
    """Types and shapes of recorded floating-point values without a partner."""
    seen = ((node, one.value) for node, one in call.observed.by_node.items() if node not in paired)
    values = (value for _, value in seen if value is not None and value.dtype.is_floating_point)
    return {(str(value.dtype), tuple(value.shape)) for value in values}


def _seen(call: RecordedCall) -> dict[str, torch.Tensor]:
    """float64 values of the nodes that were recorded, in the order of the graph."""
    exact, seen = call.reference.values, call.observed.by_node
    return {node: exact[node] for node in call.nodes if node in seen and node in exact}
