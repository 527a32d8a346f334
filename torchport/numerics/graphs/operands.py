"""Which FX nodes an operator of a library was given and gave: known from its place in the graph, whatever the buffers
it reads are called. Inductor copies operands into layouts that operators want, and names such copies after no node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torchport.numerics.graphs.dump import references
from torchport.numerics.runs.reader import Arg, Launch

__all__ = ["called", "operands", "results"]

Nodes = Mapping[str, Mapping[str, Any]]


def called(nodes: Nodes, launches: Sequence[Launch]) -> dict[int, str]:
    """The FX node that each launch of an operator computes, by the launch's number, where only one can be meant."""
    by_operation: dict[str, list[str]] = defaultdict(list)
    for name, node in nodes.items():
        if node["op"] == "call_function":
            by_operation[_base(node["target"])].append(name)
    externs = [launch for launch in launches if launch.kind == "extern" and launch.operation]
    found: dict[int, str] = {}
    for launch in externs:
        named = {_producer(nodes, one) for one in launch.nodes if one in nodes}
        candidates = [one for one in by_operation[_base(launch.operation or "")] if one in named]
        if len(candidates) == 1:
            found[launch.seq] = candidates[0]
    for launch in externs:
        if launch.seq not in found:
            taken = set(found.values())
            candidates = [
                one for one in by_operation[_base(launch.operation or "")]
                if one not in taken and _fits(nodes, launch, one)
            ]  # fmt: skip
            if len(candidates) == 1:
                found[launch.seq] = candidates[0]
    return found


def operands(nodes: Nodes, launch: Launch, node: str) -> dict[str, str]:
    """FX nodes by name of the argument that holds their value, for a launch of the operator ``node``."""
    found: dict[str, str] = {}
    for arg, value in _arguments(nodes, launch, node):
        name = value.get("node") if isinstance(value, Mapping) else None
        if arg.role == "in" and arg.dtype is not None and isinstance(name, str) and _is(nodes, name, arg):
            found[arg.name] = name
    return found


def results(nodes: Nodes, launch: Launch, node: str) -> dict[str, str]:
    """FX nodes by name of the argument that an operator wrote or made: the node, or those that take one result each."""
    value = nodes[node]["value"]
    made = [arg for arg in launch.args if arg.role == "out"]
    if not isinstance(value, list):
        return {made[0].name: node} if len(made) == 1 and _is(nodes, node, made[0]) else {}
    places = [place for place, one in enumerate(value) if one is not None]
    users = {
        other["args"][1]: name
        for name, other in nodes.items()
        if other["target"] == "operator.getitem" and node in references(other["args"][0])
    }
    return {
        arg.name: users[place]
        for arg, place in zip(made, places, strict=False)
        if len(made) == len(places) and place in users and _is(nodes, users[place], arg)
    }


def _base(operation: str) -> str:
    """An operation without its overload: ``aten.mm.out`` writes what ``aten.mm.default`` gives."""
    return operation.rpartition(".")[0]


def _producer(nodes: Nodes, name: str) -> str:
    node = nodes[name]
    return next(references(node["args"]), name) if node["target"] == "operator.getitem" else name


def _arguments(nodes: Nodes, launch: Launch, node: str) -> Iterator[tuple[Arg, Any]]:
    """Arguments of a launch with what the graph has there; members of lists one by one."""
    given = [arg for arg in launch.args if arg.role in ("in", "inout", "scalar")]
    names = list(dict.fromkeys(arg.name.partition("[")[0] for arg in given))
    values = {**dict(zip(names, nodes[node]["args"], strict=False)), **nodes[node]["kwargs"]}
    for arg in given:
        name, _, index = arg.name.partition("[")
        value = values.get(name)
        if index and isinstance(value, list):
            place = int(index.rstrip("]"))
            value = value[place] if place < len(value) else None
        yield arg, value


def _is(nodes: Nodes, name: str, arg: Arg) -> bool:
    value = nodes[name]["value"] if name in nodes else None
    return isinstance(value, Mapping) and value["dtype"] == arg.dtype and _like(value["shape"], arg.shape)


def _like(shape: Sequence[int | str], sizes: Sequence[int]) -> bool:
    """Whether sizes are a node's, symbolic ones unseen."""
    return len(shape) == len(sizes) and all(
        isinstance(one, str) or one == size for one, size in zip(shape, sizes, strict=True)
    )


def _fits(nodes: Nodes, launch: Launch, node: str) -> bool:
    """Whether a launch may be of ``node``: tensors whose node is known are the graph's, others have their kind."""
    for arg, value in _arguments(nodes, launch, node):
        name = value.get("node") if isinstance(value, Mapping) else None
        if arg.dtype is None or not isinstance(name, str):
            continue
        if arg.node is not None and nodes.get(arg.node, {}).get("op") == "placeholder" and arg.node != name:
            source = nodes[name]
            if source["op"] == "placeholder":
                return False
        if not _is(nodes, name, arg):
            return False
    return True
