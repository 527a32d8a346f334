"""Calls of graphs, read back from run folders."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from torchport.errors import RunError
from torchport.numerics.graphs.dump import Dump
from torchport.numerics.runs.calls import calls_in
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.call_graph import CallGraph
from torchport.numerics.verdicts.graph_reference import GraphReference
from torchport.numerics.verdicts.observed_values import ObservedValues

__all__ = ["RecordedCall", "calls_of"]

_READS = ("aten._local_scalar_dense.default",)  # reads a number out of a tensor


class RecordedCall:
    """One call of one graph.

    key: of the graph in the run.
    number: of the call.
    lines: all that was recorded of it, in order.
    launches: its kernels and operators, in order.
    direction: forward or backward.
    graph: the FX graph with this call's inputs.
    """

    def __init__(self, run: Run, key: str, number: int, launches: list[Launch]) -> None:
        self.run, self.key, self.number, self.lines = run, key, number, launches
        self.launches = [one for one in launches if one.kind in ("kernel", "extern") and one.operation not in _READS]
        described = run.graphs.get(key)
        if described is None:
            raise RunError(f"{run.path} has no graph {key}, which launches belong to")
        self.direction: str = described["direction"]
        self.graph = CallGraph(run, described["fx"], [one for one in launches if one.kind == "input"])

    @property
    def dump(self) -> Dump:
        return self.graph.dump

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """FX nodes by name."""
        return self.graph.nodes

    @cached_property
    def observed(self) -> ObservedValues:
        """What launches read and left."""
        return ObservedValues(self.run, self.graph, self.launches)

    @cached_property
    def reference(self) -> GraphReference:
        """float64 values of FX nodes."""
        return GraphReference(self.graph, self.observed)


def calls_of(run: Run) -> Iterator[RecordedCall]:
    """The calls of graphs in the order they began. Unreadable graphs are left out; ``run.damaged`` says why."""
    for call in calls_in(run):
        if call.graph in run.graphs:
            yield RecordedCall(run, call.graph, call.number, call.launches)
