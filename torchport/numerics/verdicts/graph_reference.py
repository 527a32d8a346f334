"""float64 values of the FX nodes of a recorded call: of the whole graph, and of each launch from what it read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from torchport.numerics.graphs.dump import needed
from torchport.numerics.graphs.evaluate import NotEvaluated, evaluate
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.call_graph import CallGraph
from torchport.numerics.verdicts.measure import relative_l2
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
        self,
        launch: Launch,
        instead: Mapping[str, torch.Tensor] | None = None,
        *,
        assume: bool = False,
        dtype: torch.dtype = torch.float64,
    ) -> dict[str, torch.Tensor]:
        """What a launch computes, from what it read: its FX nodes, evaluated eagerly in ``dtype``.

        What it read and no FX node stands for follows from what the launches that made that read. ``instead``: values
        of nodes or inputs to take in place of what was read. Empty if a node has no float64 value, or an input of the
        launch is not known to hold an FX node's. With ``assume`` such an input is computed from what else is known, if
        any other is.
        """
        graph, observed = self._graph, self._observed
        makers = observed.makers(launch)
        known = {node: value for one in makers or [launch] for node, value in observed.read_by(one).items()}
        if not known and not any(arg.node in graph.inputs for arg in launch.args if arg.role == "in"):
            assume = False
        if makers is None:
            if not assume:
                return {}
            before = observed.left_before(launch)
            known = {**{node: seen.value for node, seen in before.items() if seen.value is not None}, **known}
        wanted = [name for name, seen in observed.left_by(launch).items() if seen.value is not None]
        values = {**observed.drawn, **known, **(instead or {})}
        given = {name: value for name, value in values.items() if name not in wanted}
        if not assume and not self._follows(makers or [], wanted, given):
            return {}
        try:
            return evaluate(graph.dump, graph.inputs, dtype, wanted=wanted, given=given)
        except NotEvaluated:
            return {}

    def spread(self, launch: Launch) -> dict[str, float]:
        """How far rounding moves what a launch computes where several share an FX node, relative (L2), by node.

        What one of them hands to the next is rounded, and not by ``launch``: its size follows from the nodes in
        float32. Infinite where it is not known. Empty for a launch that reads nodes and inputs only.
        """
        makers = self._observed.makers(launch)
        if makers is None or len(makers) == 1:
            return {}
        exact = self.of_launch(launch)
        single = self.of_launch(launch, dtype=torch.float32) if not _hands_over_narrow(makers) else {}
        return {
            node: relative_l2(single[node].double() - value, value) if node in single else math.inf
            for node, value in exact.items()
            if value.is_floating_point()
        }

    def response(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs, with the values of some nodes replaced. Nodes without a value are missing."""
        graph, given = self._graph, {**self._observed.drawn, **values}
        return evaluate(graph.dump, graph.inputs, wanted=graph.outputs, given=given, refused=dict(self.refused))

    def _follows(self, makers: Sequence[Launch], wanted: list[str], given: Mapping[str, torch.Tensor]) -> bool:
        """Whether ``wanted`` follows from what the makers read, without other inputs of the graph that hold floats."""
        read = {arg.node for launch in makers for arg in launch.args}
        nodes = (self._graph.nodes[name] for name in needed(self._graph.dump, wanted, given))
        return all(node["op"] != "placeholder" or node["name"] in read or _is_exact(node) for node in nodes)


def _is_exact(node: Mapping[str, Any]) -> bool:
    """Whether a node holds integers, which have no rounding errors."""
    value = node["value"]
    return isinstance(value, dict) and not getattr(torch, value.get("dtype", "float32")).is_floating_point


def _hands_over_narrow(makers: Sequence[Launch]) -> bool:
    """Whether one of these launches hands floats narrower than float32 to another that no FX node stands for."""
    handed = [arg for launch in makers[:-1] for arg in launch.args if arg.node is None and arg.role in ("out", "inout")]
    return any(arg.dtype is not None and getattr(torch, arg.dtype).itemsize < 4 for arg in handed)
