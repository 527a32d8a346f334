"""FX graphs as JSON, as run folders keep them.

A dump is a dictionary that JSON can hold: ``format``, ``nodes`` in the graph's order, ``outputs`` (names or None) and
``constants`` (small tensors the graph refers to); ``graphs``, where there are any, has the dumps of graphs that it
passes to operations, by the target of their ``get_attr`` nodes; ``key``, where it has one, names it in every process.
A node has ``name``, ``op`` (as in FX), ``target``
(text: ``aten.mm.default``, ``operator.getitem``, ``higher_order.cond``), ``args``, ``kwargs``, ``value`` (its result:
dtype, shape, stride; a list for several; None if unknown), ``source`` (the user's line, or that of torch's module:
file, line, function, code), ``module`` (path and class), ``original`` (the operation it was decomposed from) and, where
it has one, ``key`` (``torchport.inductor.precision.keys``).

Arguments: numbers, text and None are themselves (floats without a JSON number are ``{"float": "nan"}``), lists are
lists, all else is a dictionary with one key: node, tuple, dict, slice, dtype, device, layout, memory_format, symbol
(a symbolic size, text), complex, unknown (text, for people).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.fx

from torchport.errors import ArtifactError
from torchport.inductor.precision.keys import key_of
from torchport.numerics.graphs.source_lines import module_of, source_of
from torchport.numerics.graphs.writes import Writes

__all__ = ["FORMAT", "Dump", "by_name", "dump", "encode", "needed", "references", "slice_graph", "target_text"]

FORMAT = "torchport.fx/1"

Dump = dict[str, Any]
"""See the module's docstring."""

CONSTANT_ELEMENTS = 4096
"""Constants with more elements are not kept; their values must be given to evaluate the graph."""


def dump(graph: torch.fx.Graph) -> Dump:
    """``graph`` as a dictionary that JSON can hold; no tensor but small constants, no pickle."""
    nodes = [_node(node) for node in graph.nodes if node.op != "output"]
    outputs: list[str | None] = []
    key = None
    for node in graph.find_nodes(op="output"):
        key = key_of(node)
        flat = torch.utils._pytree.tree_leaves(node.args, is_leaf=lambda leaf: leaf is None)
        outputs += [leaf.name if isinstance(leaf, torch.fx.Node) else None for leaf in flat]
    found: Dump = {"format": FORMAT, "nodes": nodes, "outputs": outputs, "constants": _constants(graph)}
    if key is not None:
        found["key"] = key
    inner = {str(node.target): _attribute(graph, node) for node in graph.find_nodes(op="get_attr")}
    graphs = {name: dump(value.graph) for name, value in inner.items() if isinstance(value, torch.fx.GraphModule)}
    return {**found, "graphs": graphs} if graphs else found


def by_name(graph: Dump) -> dict[str, dict[str, Any]]:
    """The nodes of a dump by name, in order. Raises ArtifactError for a dump of another format."""
    if graph.get("format") != FORMAT:
        raise ArtifactError(f"an FX graph of format {graph.get('format')!r}; this version reads {FORMAT!r}")
    return {node["name"]: node for node in graph["nodes"]}


def references(value: Any) -> Iterator[str]:
    """The names of the nodes that an encoded argument, or a list or dictionary of them, refers to."""
    if isinstance(value, list):
        for one in value:
            yield from references(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key == "node" and isinstance(one, str):
                yield one
            else:
                yield from references(one)


def needed(graph: Dump, wanted: Iterable[str], given: Collection[str] = ()) -> list[str]:
    """The nodes that must be evaluated for ``wanted`` if ``given`` are known, in order.

    They include nodes that write into values that others need.
    """
    nodes = by_name(graph)
    writes = Writes(nodes)
    names = list(wanted)
    todo, found = [name for name in names if name not in given], set()
    todo += [one for name in names for one in writes.ever(name, given) if one not in given]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        if name not in nodes:
            raise ArtifactError(f"the FX graph has no node {name}")
        found.add(name)
        uses = list(references([nodes[name]["args"], nodes[name]["kwargs"]]))
        todo += [one for one in (*uses, *writes.before(name, uses, given)) if one not in given]
    return [name for name in nodes if name in found]


def slice_graph(graph: Dump, outputs: Iterable[str], boundary: Collection[str]) -> Dump:
    """The part of a dump that computes ``outputs`` from ``boundary``, whose nodes become its placeholders.

    Placeholders of ``graph`` that are reached stay. Raises ArtifactError for names the graph does not have.
    """
    outputs = list(outputs)
    nodes = by_name(graph)
    inside = needed(graph, outputs, boundary)
    used = set(references([[nodes[name]["args"], nodes[name]["kwargs"]] for name in inside])) | set(outputs)
    kept = []
    for name, node in nodes.items():
        if name in boundary and name in used:
            kept.append({**node, "op": "placeholder", "target": name, "args": [], "kwargs": {}})
        elif name in inside:
            kept.append(node)
    targets = {node["target"] for node in kept if node["op"] == "get_attr"}
    constants = {name: value for name, value in graph.get("constants", {}).items() if name in targets}
    graphs = {name: inner for name, inner in graph.get("graphs", {}).items() if name in targets}
    found = {"format": FORMAT, "nodes": kept, "outputs": outputs, "constants": constants}
    return {**found, "graphs": graphs} if graphs else found


def target_text(target: Any) -> str:
    """An operation as text: ``aten.mm.default``, ``operator.getitem``, ``math.sqrt``, ``higher_order.cond``."""
    if isinstance(target, str):
        return target
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    if isinstance(target, torch._ops.OpOverloadPacket):  # as mkl's, of whose overloads there is one
        return f"{target}.default"
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order.{target.name()}"
    module = str(getattr(target, "__module__", None) or "builtins")
    return f"{module.removeprefix('_')}.{getattr(target, '__name__', repr(target))}"


def _node(node: torch.fx.Node) -> dict[str, Any]:
    path, kind = module_of(node)
    original = node.meta.get("original_aten")
    return {
        "name": node.name,
        "op": node.op,
        "target": target_text(node.target),
        "args": [encode(one) for one in node.args],
        "kwargs": {name: encode(one) for name, one in node.kwargs.items()},
        "value": _value(node.meta.get("val", node.meta.get("example_value"))),
        "source": source_of(node),
        "module": None if path is None else {"path": str(path), "class": getattr(kind, "__name__", str(kind))},
        "original": None if original is None else target_text(original),
        **({} if (key := key_of(node)) is None else {"key": key}),
    }


def _value(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        strided = value.layout == torch.strided
        return {
            "dtype": _plain(value.dtype),
            "shape": [_size(one) for one in value.shape],
            "stride": [_size(one) for one in value.stride()] if strided else None,
            "device": value.device.type,
        }
    if isinstance(value, (list, tuple)):
        return [_value(one) for one in value]
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return {"symbol": str(value)}
    return value if isinstance(value, (bool, int)) else None


def _size(size: int | torch.SymInt) -> int | str:
    return size if isinstance(size, int) else str(size)


def _plain(value: object) -> str:
    return str(value).removeprefix("torch.")


_TORCH_VALUES: Mapping[type, str] = {
    torch.dtype: "dtype",
    torch.device: "device",
    torch.layout: "layout",
    torch.memory_format: "memory_format",
}


def encode(value: Any) -> Any:
    """An argument of a node or an operator as JSON can hold it; see the module's docstring."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, torch.fx.Node):
        return {"node": value.name}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, complex):
        return {"complex": [encode(value.real), encode(value.imag)]}
    if isinstance(value, tuple):  # torch.Size, too
        return {"tuple": [encode(one) for one in value]}
    if isinstance(value, list):  # FX's immutable lists, too
        return [encode(one) for one in value]
    if isinstance(value, dict):
        return {"dict": {str(name): encode(one) for name, one in value.items()}}
    if isinstance(value, slice):
        return {"slice": [encode(one) for one in (value.start, value.stop, value.step)]}
    for kind, key in _TORCH_VALUES.items():
        if isinstance(value, kind):
            return {key: _plain(value)}
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return {"symbol": str(value)}
    return {"unknown": target_text(value) if callable(value) else repr(value)}


def _attribute(graph: torch.fx.Graph, node: torch.fx.Node) -> Any:
    """What a ``get_attr`` node names."""
    value: Any = graph.owning_module
    for part in str(node.target).split("."):
        value = getattr(value, part, None)
    return value


def _constants(graph: torch.fx.Graph) -> dict[str, Any]:
    """Values of ``get_attr`` nodes by target: dtype, shape and values (null for large tensors and for modules)."""
    found: dict[str, Any] = {}
    for node in graph.find_nodes(op="get_attr"):
        value = _attribute(graph, node)
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            found[str(node.target)] = None
            continue
        kept = value.numel() <= CONSTANT_ELEMENTS and not isinstance(value, torch._subclasses.FakeTensor)
        dense = value.detach().cpu()
        if dense.dtype.is_floating_point:
            dense = dense.to(torch.float64)
        found[str(node.target)] = {
            "dtype": _plain(value.dtype),
            "shape": list(value.shape),
            "values": [encode(one) for one in dense.reshape(-1).tolist()] if kept else None,
        }
    return found
