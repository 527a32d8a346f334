"""What the launches of a recorded call read and left, by FX node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from torchport.numerics.graphs.evaluate import evaluate
from torchport.numerics.graphs.operands import operand_nodes, operator_nodes, result_nodes
from torchport.numerics.graphs.sizes import same_order
from torchport.numerics.graphs.views import aliases_of, source_of, value_from_view, views_of
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.verdicts.call_graph import CallGraph
from torchport.numerics.verdicts.observed import Observed, tensor_of

__all__ = ["ObservedValues"]

_RANDOM = (
    "prims.inductor_seed",
    "aten.rand",
    "aten.bernoulli",
    "aten.native_dropout",
    "aten.normal",
    "aten.multinomial",
)


class ObservedValues:
    """Recorded values of FX nodes. ``launches``: the call's kernels and operators, in order."""

    def __init__(self, run: Run, graph: CallGraph, launches: Sequence[Launch]) -> None:
        self._run, self._graph, self._launches = run, graph, launches

    @cached_property
    def by_node(self) -> dict[str, Observed]:
        """What the last launch that wrote a node left."""
        return {node: value for launch in self._launches for node, value in self.left_by(launch).items()}

    @cached_property
    def drawn(self) -> dict[str, torch.Tensor]:
        """Values of nodes that draw random numbers."""
        nodes = self._graph.nodes
        return {name: value for name, value in self._kept.items() if nodes[name]["target"].startswith(_RANDOM)}

    def left_by(self, launch: Launch) -> dict[str, Observed]:
        """What a launch left, by FX node: outputs that hold a node's elements in the node's order."""
        return self._left[launch.seq]

    def left_before(self, launch: Launch) -> dict[str, Observed]:
        """What the launches before this one left."""
        earlier = (one for one in self._launches if one.seq < launch.seq)
        return {node: value for one in earlier for node, value in self.left_by(one).items()}

    def read_by(self, launch: Launch) -> dict[str, torch.Tensor]:
        """Values of FX nodes that a launch read, by node."""
        before, nodes = self.left_before(launch), self._operands(launch)
        values: dict[str, torch.Tensor] = {}
        for arg in launch.args:
            read = self._node_read(arg, before)
            left = before[read].value if read is not None else None
            passed = tensor_of(self._run, arg, after=False) if arg.name in nodes else None
            for node, value in ((read, left), (nodes.get(arg.name), passed)):
                if node is not None and value is not None:
                    values[node] = value
                    values.update((other, value) for other in aliases_of(self._graph.nodes, node, self._graph.shape))
        return values

    def nodes_read(self, launch: Launch) -> dict[str, str]:
        """The FX node or input that an argument held before a launch, by the argument's name, where that is known."""
        before, operands = self.left_before(launch), self._operands(launch)
        found: dict[str, str] = {}
        for arg in launch.args:
            is_input = arg.role in ("in", "inout") and arg.node in self._graph.inputs
            node = self._node_read(arg, before) or operands.get(arg.name) or (arg.node if is_input else None)
            if node is not None:
                found[arg.name] = node
        return found

    def makers(self, launch: Launch) -> list[Launch]:
        """The launches that together compute from nodes and inputs what ``launch`` leaves, ``launch`` itself last.

        Others than itself made what it reads and no FX node stands for, as the sums of parts.
        """
        found: list[Launch] = []
        for arg in self.unknown_to(launch):
            maker = self.writer_of(arg, launch)
            found += [one for one in self.makers(maker) if one not in found] if maker is not None else []
        return [*found, launch]

    def unknown_to(self, launch: Launch) -> list[Arg]:
        """Tensors that a launch may read and that are not known to hold an FX node's value or an input's."""
        before, nodes = self.left_before(launch), self._operands(launch)
        return [
            arg
            for arg in launch.args
            if arg.role in ("in", "inout")
            and not (self._is_input(arg) or arg.name in nodes or self._node_read(arg, before) is not None)
        ]

    def writer_of(self, arg: Arg, launch: Launch) -> Launch | None:
        """The last launch before ``launch`` that left what its argument held; None if that is not known."""
        found = None
        for one in self._launches:
            left = (each.after for each in one.args if each.role in ("out", "inout") and each.after != each.before)
            if one.seq < launch.seq and arg.before is not None and arg.before in left:
                found = one
        return found

    def _is_input(self, arg: Arg) -> bool:
        """Whether an argument held an input of the graph as that was at the beginning."""
        if arg.node is None or arg.node not in self._graph.inputs:
            return False
        first = self._graph.input_args.get(arg.node)
        return first is None or first.before in (None, arg.before) or arg.before is None

    def seen_through(self, node: str) -> Observed | None:
        """The exact value of a node that is a view or a copy of a recorded one, or of which a recorded one is one."""
        graph = self._graph
        if node not in graph.nodes:
            return None
        source = node
        while source not in self.by_node:
            behind = source_of(graph.nodes, source)
            if behind is None:
                return self._seen_in_view(node)
            source = behind
        seen = self.by_node[source]
        if seen.value is None or not seen.value.dtype.is_floating_point:
            return seen if source == node else None
        wide = evaluate(graph.dump, {}, wanted=[node], given={source: seen.value}, refused={}).get(node)
        return None if wide is None else replace(seen, value=wide.to(seen.value.dtype))

    def outputs(self) -> dict[str, torch.Tensor]:
        """The graph's outputs as they were; float64 values, from what was recorded, of those that were not kept."""
        graph = self._graph
        return evaluate(graph.dump, graph.inputs, wanted=graph.outputs, given=self._kept, refused={})

    @cached_property
    def _kept(self) -> dict[str, torch.Tensor]:
        return {name: seen.value for name, seen in self.by_node.items() if seen.value is not None}

    @cached_property
    def _left(self) -> dict[int, dict[str, Observed]]:
        return {launch.seq: self._left_by(launch) for launch in self._launches}

    def _left_by(self, launch: Launch) -> dict[str, Observed]:
        graph, operator = self._graph, self._operators.get(launch.seq)
        nodes = result_nodes(graph.nodes, launch, operator) if operator is not None else {}
        values = {}
        for arg in launch.args:
            node = arg.node or nodes.get(arg.name) or self._read_as.get((arg.buffer, arg.after))
            # An unchanged argument was only read: a store that nobody needs is dropped.
            wrote = arg.role == "out" or (arg.role == "inout" and (arg.after is None or arg.after != arg.before))
            if not wrote or node is None or node not in graph.nodes:
                continue
            shape = graph.shape(node)
            if shape is None or math.prod(shape) != math.prod(arg.shape) or not same_order(shape, arg.shape):
                continue
            value = tensor_of(self._run, arg)
            values[node] = Observed(launch, arg, None if value is None else value.reshape(shape))
        return values

    @cached_property
    def _operators(self) -> dict[int, str]:
        """The FX node that a launch of an operator computes, by the launch's number."""
        return operator_nodes(self._graph.nodes, self._launches)

    def _operands(self, launch: Launch) -> dict[str, str]:
        """The FX node that an argument of an operator holds, by the argument's name."""
        operator = self._operators.get(launch.seq)
        return operand_nodes(self._graph.nodes, launch, operator) if operator is not None else {}

    @cached_property
    def _read_as(self) -> dict[tuple[str | None, str | None], str]:
        """FX nodes by buffer and content, for buffers whose node only the operators that read them tell."""
        return {
            (arg.buffer, arg.before): node
            for launch in self._launches
            for arg in launch.args
            if arg.node is None
            and arg.before is not None
            and (node := self._operands(launch).get(arg.name)) is not None
        }

    def _node_read(self, arg: Arg, before: Mapping[str, Observed]) -> str | None:
        """The node whose value an argument held before the launch; it may hold another one afterwards."""
        node = arg.node
        if arg.role == "in" and node is not None and node in before and arg.before in (None, before[node].arg.after):
            return node
        if arg.role in ("in", "inout") and arg.before is not None:
            size = math.prod(arg.shape)  # a part of a joined storage has the storage's hash
            equal = (node for node, value in before.items() if value.arg.after == arg.before)
            return next((node for node in equal if math.prod(before[node].arg.shape) >= size), None)
        return None

    def _seen_in_view(self, node: str) -> Observed | None:
        graph = self._graph
        found = value_from_view(graph.dump, self._views, node, graph.shape, self._kept)
        return None if found is None else replace(self.by_node[found[0]], value=found[1])

    @cached_property
    def _views(self) -> Mapping[str, list[str]]:
        return views_of(self._graph.nodes)
