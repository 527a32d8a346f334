"""Maps an operator call's inputs and outputs to FX nodes.

Its place in the graph tells, whatever the buffers are called: Inductor copies operands into layouts that operators
want, and such copies have no node's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torchport.numerics.graphs.dump import references
from torchport.numerics.runs.reader import Arg, Launch

__all__ = ["operand_nodes", "operator_nodes", "result_nodes"]

Nodes = Mapping[str, Mapping[str, Any]]


def operator_nodes(nodes: Nodes, launches: Sequence[Launch]) -> dict[int, str]:
    """The FX node that each operator call computes, by the launch's number, if only one can be meant.

    First calls whose recorded nodes name it, then the others by their operands, among the nodes that are left.
    """
    by_operation: dict[str, list[str]] = defaultdict(list)
    for name, node in nodes.items():
        if node["op"] == "call_function":
            by_operation[_base(node["target"])].append(name)
    calls = [launch for launch in launches if launch.kind == "extern" and launch.operation]
    matched: dict[int, str] = {}
    for launch in calls:
        named = {_producer(nodes, name) for name in launch.nodes if name in nodes}
        candidates = [name for name in by_operation[_base(launch.operation or "")] if name in named]
        if len(candidates) == 1:
            matched[launch.seq] = candidates[0]
    for launch in calls:
        if launch.seq in matched:
            continue
        free = set(by_operation[_base(launch.operation or "")]) - set(matched.values())
        candidates = [name for name in free if _may_compute(nodes, launch, name)]
        if len(candidates) == 1:
            matched[launch.seq] = candidates[0]
    return matched


def operand_nodes(nodes: Nodes, launch: Launch, node: str) -> dict[str, str]:
    """FX nodes by name of the argument that holds their value, for a call of the operator ``node``."""
    found: dict[str, str] = {}
    for arg, value in _arguments(nodes, launch, node):
        name = value.get("node") if isinstance(value, Mapping) else None
        if arg.role == "in" and arg.dtype is not None and isinstance(name, str) and _has_type(nodes, name, arg):
            found[arg.name] = name
    return found


def result_nodes(nodes: Nodes, launch: Launch, node: str) -> dict[str, str]:
    """FX nodes by name of the argument that an operator wrote or made: ``node``, or the ``getitem`` of each result.

    None where a kernel computes a part of the node: the operator was not given one of its tensors, as a bias.
    """
    if any(
        arg.role == "scalar" and arg.value is None and "node" in value for arg, value in _tensors(nodes, launch, node)
    ):
        return {}
    value = nodes[node]["value"]
    outputs = [arg for arg in launch.args if arg.role == "out"]
    if not isinstance(value, list):
        return {outputs[0].name: node} if len(outputs) == 1 and _has_type(nodes, node, outputs[0]) else {}
    indices = [index for index, result in enumerate(value) if result is not None]
    if len(outputs) != len(indices):
        return {}
    items = {
        other["args"][1]: name
        for name, other in nodes.items()
        if other["target"] == "operator.getitem" and node in references(other["args"][0])
    }
    return {
        arg.name: items[index]
        for arg, index in zip(outputs, indices, strict=True)
        if index in items and _has_type(nodes, items[index], arg)
    }


def _base(operation: str) -> str:
    """An operation without its overload: ``aten.mm.out`` writes what ``aten.mm.default`` returns."""
    return operation.rpartition(".")[0]


def _producer(nodes: Nodes, name: str) -> str:
    node = nodes[name]
    return next(references(node["args"]), name) if node["target"] == "operator.getitem" else name


def _arguments(nodes: Nodes, launch: Launch, node: str) -> Iterator[tuple[Arg, Any]]:
    """Arguments of a launch with what the graph has there; members of lists one by one."""
    args = [arg for arg in launch.args if arg.role in ("in", "inout", "scalar")]
    names = list(dict.fromkeys(arg.name.partition("[")[0] for arg in args))
    values = {**dict(zip(names, nodes[node]["args"], strict=False)), **nodes[node]["kwargs"]}
    for arg in args:
        name, _, index = arg.name.partition("[")
        value = values.get(name)
        if index and isinstance(value, list):
            position = int(index.rstrip("]"))
            value = value[position] if position < len(value) else None
        yield arg, value


def _tensors(nodes: Nodes, launch: Launch, node: str) -> Iterator[tuple[Arg, Mapping[str, Any]]]:
    """Arguments of a launch that the graph has a node for."""
    return ((arg, value) for arg, value in _arguments(nodes, launch, node) if isinstance(value, Mapping))


def _has_type(nodes: Nodes, name: str, arg: Arg) -> bool:
    """Whether the node has the argument's dtype and shape; any size fits a symbolic one."""
    value = nodes[name]["value"] if name in nodes else None
    if not isinstance(value, Mapping) or value["dtype"] != arg.dtype or len(value["shape"]) != len(arg.shape):
        return False
    return all(isinstance(size, str) or size == own for size, own in zip(value["shape"], arg.shape, strict=True))


def _may_compute(nodes: Nodes, launch: Launch, node: str) -> bool:
    """Whether a launch may be of ``node``: its arguments fit, and recorded inputs of the graph are the node's."""
    for arg, value in _arguments(nodes, launch, node):
        name = value.get("node") if isinstance(value, Mapping) else None
        if arg.dtype is None or not isinstance(name, str):
            continue
        is_input = arg.node is not None and nodes.get(arg.node, {}).get("op") == "placeholder"
        if is_input and arg.node != name and nodes[name]["op"] == "placeholder":
            return False
        if not _has_type(nodes, name, arg):
            return False
    return True
