"""float64 values of the FX nodes of a recorded call: of the whole graph, and of each launch from what it read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import torch

from torchport.numerics.graphs.dump import needed, references
from torchport.numerics.graphs.evaluate import evaluate
from torchport.numerics.graphs.writes import Writes
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.call_graph import CallGraph
from torchport.numerics.verdicts.observed_values import ObservedValues

__all__ = ["UNKNOWN", "GraphReference"]

UNKNOWN = "not all that it is computed from is known to be an FX node's value"
"""Why a node has no value from what a launch read."""


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
        refused: dict[str, str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """What a launch computes, from what it read: its FX nodes, evaluated eagerly.

        What it read and no FX node stands for follows from what the launches that made that read. ``instead``: values
        of nodes or inputs to take in place of what was read. Nodes are missing that have no float64 value, or need what
        is not known to be an FX node's value; ``refused`` gets the reasons. With ``assume`` such an input is computed
        from what else is known, if any other is.
        """
        observed, inputs = self._observed, self._graph.inputs
        wanted = [name for name, seen in observed.left_by(launch).items() if seen.value is not None]
        if not observed.read_by(launch) and not any(arg.node in inputs for arg in launch.args if arg.role == "in"):
            assume = False
        return self.inside(launch, wanted, instead, assume=assume, refused=refused)

    def inside(
        self,
        launch: Launch,
        wanted: list[str],
        instead: Mapping[str, torch.Tensor] | None = None,
        *,
        assume: bool = False,
        refused: dict[str, str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The nodes ``wanted`` from what a launch read, though it may keep them to itself; else as ``of_launch``."""
        graph, observed = self._graph, self._observed
        reasons = {} if refused is None else refused
        left = observed.left_by(launch)
        given = self.given(launch, assume=assume)
        given |= {name: value for name, value in (instead or {}).items() if name not in left}
        if not assume:
            makers = observed.makers(launch)
            read = {arg.node for one in makers for arg in one.args if arg not in observed.unknown_to(one)}
            reasons.update((name, UNKNOWN) for name in wanted if not self._follows(name, read, given))
            wanted = [name for name in wanted if name not in reasons]
        return evaluate(graph.dump, graph.inputs, wanted=wanted, given=given, refused=reasons) if wanted else {}

    def given(self, launch: Launch, *, assume: bool = False) -> dict[str, torch.Tensor]:
        """Values of FX nodes that what a launch leaves is computed from: what it read, and what its makers did.

        A node that it read and left again, in another layout, is itself among them. ``assume``: as for ``of_launch``.
        """
        observed = self._observed
        known = {node: value for one in observed.makers(launch) for node, value in observed.read_by(one).items()}
        if assume and any(observed.writer_of(arg, launch) is None for arg in observed.unknown_to(launch)):
            before = observed.left_before(launch)
            known = {**{node: seen.value for node, seen in before.items() if seen.value is not None}, **known}
        made = observed.left_by(launch).keys() - self._copied(launch)
        return {name: value for name, value in {**observed.drawn, **known}.items() if name not in made}

    def response(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs, with the values of some nodes replaced. Nodes without a value are missing.

        What does not depend on the replaced nodes is not computed again.
        """
        graph, given = self._graph, {**self._observed.drawn, **self._untouched(values), **values}
        return evaluate(graph.dump, graph.inputs, wanted=graph.outputs, given=given, refused=dict(self.refused))

    def _untouched(self, replaced: Collection[str]) -> dict[str, torch.Tensor]:
        """Values of nodes that do not depend on others; none of a graph in which anything writes into other nodes."""
        nodes = self._graph.nodes
        if self._writes.changed or any(node["target"].startswith("higher_order") for node in nodes.values()):
            return {}
        touched = set(replaced)
        for name, node in nodes.items():  # in the graph's order
            if not touched.isdisjoint(references([node["args"], node["kwargs"]])):
                touched.add(name)
        return {name: value for name, value in self.values.items() if name not in touched}

    def _copied(self, launch: Launch) -> set[str]:
        """Nodes that a launch read, and left in other memory: in another layout, say."""
        left, read = self._observed.left_by(launch), self._observed.read_by(launch)
        return {
            name for name in left if left[name].arg.role == "out" and name in read and not self._writes.ever(name, ())
        }

    @cached_property
    def _writes(self) -> Writes:
        return Writes(self._graph.nodes)

    def _follows(self, name: str, read: Collection[str | None], given: Mapping[str, torch.Tensor]) -> bool:
        """Whether a node follows from what was ``read`` and ``given``, without other inputs that hold floats."""
        nodes = (self._graph.nodes[one] for one in needed(self._graph.dump, [name], given))
        return all(node["op"] != "placeholder" or node["name"] in read or _is_exact(node) for node in nodes)


def _is_exact(node: Mapping[str, Any]) -> bool:
    """Whether a node holds integers, which have no rounding errors."""
    value = node["value"]
    return isinstance(value, dict) and not getattr(torch, value.get("dtype", "float32")).is_floating_point
