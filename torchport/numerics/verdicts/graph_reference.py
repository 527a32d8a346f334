"""float64 values of the FX nodes of a recorded call: of the whole graph, and of each launch from what it read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch

from torchport.numerics.graphs.dump import needed
from torchport.numerics.graphs.evaluate import NotEvaluated, evaluate
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.call_graph import CallGraph
from torchport.numerics.verdicts.observed_values import ObservedValues

__all__ = ["GraphReference"]


class GraphReference:
    """The float64 reference of a graph. ``refused``: by FX node, why it has no value; known after ``values``."""

    def __init__(self, graph: CallGraph, observed: ObservedValues) -> None:
        self._graph, self._observed = graph, observed
        self.refused: dict[str, str] = {}

    @cached_property
    def values(self) -> dict[str, torch.Tensor]:
        """Observed nodes and outputs, from the graph's recorded inputs alone."""
        graph = self._graph
        wanted = list(dict.fromkeys([*self._observed.by_node, *graph.outputs]))
        return evaluate(graph.dump, graph.inputs, wanted=wanted, given=self._observed.drawn, refused=self.refused)

    def of_launch(
        self, launch: Launch, instead: Mapping[str, torch.Tensor] | None = None, *, assume: bool = False
    ) -> dict[str, torch.Tensor]:
        """What a launch computes, from what it read: its FX nodes, evaluated eagerly.

        ``instead``: values of nodes or inputs to take in place of what was read. Empty if a node has no float64 value,
        or an input of the launch is not known to hold an FX node's. With ``assume`` such an input is computed from what
        else is known, if any other is.
        """
        graph, observed = self._graph, self._observed
        known = observed.read_by(launch)
        if not known and not any(arg.node in graph.inputs for arg in launch.args if arg.role == "in"):
            assume = False
        if not observed.reads_nodes_only(launch):
            if not assume:
                return {}
            before = observed.left_before(launch)
            known = {**{node: seen.value for node, seen in before.items() if seen.value is not None}, **known}
        wanted = [name for name, seen in observed.left_by(launch).items() if seen.value is not None]
        values = {**observed.drawn, **known, **(instead or {})}
        given = {name: value for name, value in values.items() if name not in wanted}
        if not assume and not self._follows(launch, wanted, given):
            return {}
        try:
            return evaluate(graph.dump, graph.inputs, wanted=wanted, given=given)
        except NotEvaluated:
            return {}

    def response(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs, with the values of some nodes replaced. Nodes without a value are missing."""
        graph, given = self._graph, {**self._observed.drawn, **values}
        return evaluate(graph.dump, graph.inputs, wanted=graph.outputs, given=given, refused=dict(self.refused))

    def _follows(self, launch: Launch, wanted: list[str], given: Mapping[str, torch.Tensor]) -> bool:
        """Whether ``wanted`` follows from what the launch read, without other inputs of the graph."""
        read = {arg.node for arg in launch.args}
        inner = needed(self._graph.dump, wanted, given)
        return all(self._graph.nodes[name]["op"] != "placeholder" or name in read for name in inner)
