"""Describes a graph in its generated code, as one string that a recording reads.

All generated code holds it, recorded or not, so that recorded and other calls share code and cache entries.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from torchport.inductor.compat import V, ir
from torchport.inductor.input_names import gradient_of, place_of
from torchport.inductor.scope import KernelRecord, Scope, current

__all__ = ["DESCRIPTION", "described", "note_call", "read_description"]

DESCRIPTION = "torchport_graph"
"""The name of the string in generated code."""


def described(scope: Scope) -> str:
    """The description of the graph that is being compiled: compressed JSON in base64.

    ``fx``: the graph, from ``Settings.describe``.
    ``target``: its target's text form.
    ``direction``: ``inference``, ``forward`` or ``backward``.
    ``inputs``, ``outputs``: names of buffers (null for a value that is no tensor).
    ``buffers``: by name, the FX node whose value the buffer holds at the end.
    ``changed``: by name of an input, the FX node that is written into it.
    ``rewritten``: buffers that are written more than once.
    ``kernels``: by name in the code, ``nodes`` (for each call in order, the FX nodes that it computes); for torchport's
    kernels also ``key``, ``function``, ``operations`` and ``config``; for user-defined ones ``writes``, the buffers
    that they write; for those from templates ``roles``, ``out`` or ``inout``, of arguments that they fill or add to.
    ``names``: by placeholder, its kind and name in the model (``torchport.inductor.input_names``).
    ``results``: by result, its name; null for one that is only kept for the backward graph.
    ``asked``: what the user asked for (``Settings.asked``).
    """
    assert scope.settings.describe is not None
    graph = V.graph
    once = {*V.graph.graph_inputs, *scope.filled}
    buffers = {buffer.get_name(): node for buffer in graph.buffers if (node := _node(buffer)) is not None}
    buffers.update((name, name) for name in graph.graph_input_names)
    for buffer, node in (*_returned(), *_handed_over()):
        buffers.setdefault(buffer, node)
    description = {
        "fx": scope.settings.describe(graph.graph),
        "target": scope.settings.target,
        "direction": "backward" if graph.is_backward else "inference" if graph.is_inference else "forward",
        "inputs": list(graph.graph_input_names),
        "outputs": [_name(value) for value in graph.graph_outputs],
        "buffers": buffers,
        "changed": dict(_changed(buffers)),
        "rewritten": sorted({name for buffer in graph.buffers for name in _mutated(buffer)} - once),
        "kernels": {name: _kernel(record) for name, record in scope.kernels.items()},
        "names": _input_names(graph.graph, scope.settings.inputs),
        "results": _result_names(graph.graph, scope.settings.inputs),
        "asked": dict(scope.settings.asked),
    }
    text = json.dumps(description, separators=(",", ":"), sort_keys=True)
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def _kernel(record: KernelRecord) -> dict[str, Any]:
    entry: dict[str, Any] = {"nodes": record.computed}
    if (kernel := record.source) is not None:
        entry.update(key=kernel.key, function=kernel.function, config=kernel.config)
        entry["operations"] = list(kernel.operations)
    if record.writes is not None:
        entry["writes"] = record.writes
    if record.roles:
        entry["roles"] = record.roles
    return entry


def _input_names(graph: torch.fx.Graph, names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for node in graph.find_nodes(op="placeholder"):
        description = node.meta.get("desc")
        place, gradient = place_of(description), gradient_of(description)
        if gradient is not None:
            found[node.name] = f"gradient result {gradient[1]}"
        elif place is not None and place < len(names) and names[place]:
            found[node.name] = names[place]
    return found


def _result_names(graph: torch.fx.Graph, names: tuple[str, ...]) -> list[str | None]:
    (output,) = graph.find_nodes(op="output")
    found: list[str | None] = []
    for place, description in enumerate(output.meta.get("desc") or ()):
        gradient = gradient_of(description)
        if gradient is not None:
            of = names[gradient[1]] if gradient[1] < len(names) else ""
            found.append(f"gradient of {of.partition(' ')[2] or gradient[1]}")
        else:
            found.append(None if description is None or "Saved" in type(description).__name__ else f"result {place}")
    return found


def note_call(kernel: str) -> None:
    """Record what a call of ``kernel``, now being written, computes: the scheduler's current node.

    ``define_kernel`` records it for kernels that Inductor generates.
    """
    scope = current()
    if scope is None or (kernel in scope.kernels and scope.kernels[kernel].generated):
        return
    record = scope.kernels.setdefault(kernel, KernelRecord(generated=False))
    computed: dict[Any, None] = {}
    current_node: Any = V.graph.scheduler.current_node
    for node in current_node.get_nodes():
        if isinstance(node.node, ir.UserDefinedTritonKernel):
            record.writes = record.writes or []
            record.writes.extend(buffer.get_name() for buffer in node.node.mutable_args)
        if node.node is not None:
            origins = node.node.get_origins()
            computed.update(dict.fromkeys(origin for origin in origins if origin.op == "call_function"))
    record.calls.append(list(computed))


def read_description(text: str) -> dict[str, Any]:
    """Decode the result of ``described``."""
    description: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return description


def _node(buffer: Any) -> str | None:
    """The FX node whose value a buffer holds; the ``getitem`` for one of several results of an operation."""
    node = buffer.get_origin_node()
    if not isinstance(buffer, ir.MultiOutput):
        return None if node is None else str(node.name)
    producer = buffer.inputs[0]
    origin = producer.get_origin_node() if isinstance(producer, ir.Buffer) else None
    if origin is None or len(buffer.indices) != 1:
        return None if node is None else str(node.name)
    for user in origin.users:
        if user.op == "call_function" and user.args[1:] == (buffer.indices[0][1],):
            return str(user.name)
    return None


def _returned() -> Iterator[tuple[str, str]]:
    """Buffers that the graph returns unchanged, each with the FX node returned."""
    (output,) = V.graph.graph.find_nodes(op="output")
    for node, value in zip(output.args[0], V.graph.graph_outputs, strict=False):
        name = _name(value)
        if name is not None and _holds(name, node):
            yield name, str(node.name)


def _handed_over() -> Iterator[tuple[str, str]]:
    """Inputs of library calls, including copies in another layout, each with the FX node whose value it holds."""
    operations: list[Any] = V.graph.operations
    for operation in operations:
        origin = operation.get_origin_node() if isinstance(operation, ir.ExternKernel) else None
        if origin is None or origin.op != "call_function":
            continue
        arguments: list[Any] = []
        torch.fx.map_arg((origin.args, origin.kwargs), arguments.append)
        inputs = tree_leaves(operation.inputs)
        if len(inputs) == len(arguments):
            for value, node in zip(inputs, arguments, strict=True):
                name = _name(value)
                if name is not None and _holds(name, node):
                    yield name, str(node.name)


def _holds(name: str, node: Any) -> bool:
    """Whether a buffer has the shape of a node's value."""
    tensor = getattr(node, "meta", {}).get("val")
    buffer = V.graph.try_get_buffer(name)
    if not isinstance(buffer, ir.Buffer) or not isinstance(tensor, torch.Tensor) or buffer.maybe_get_size() is None:
        return False
    return list(map(str, buffer.get_size())) == list(map(str, tensor.shape))


def _name(value: Any) -> str | None:
    """The name of the buffer behind a value; None if it is no tensor."""
    while isinstance(value, (ir.TensorBox, ir.StorageBox, ir.ReinterpretView)):
        value = value.data
    return str(value.get_name()) if isinstance(value, (ir.Buffer, ir.InputBuffer)) else None


def _changed(buffers: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Inputs that the graph writes, each with the FX node whose value it gets."""
    for buffer in V.graph.buffers:
        for name in _mutated(buffer):
            if name in V.graph.graph_inputs and buffer.get_name() in buffers:
                yield name, buffers[buffer.get_name()]
    for node in V.graph.graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default):
        if getattr(node.args[0], "op", None) == "placeholder" and isinstance(node.args[1], torch.fx.Node):
            yield node.args[0].name, node.args[1].name


def _mutated(buffer: Any) -> list[str]:
    return list(buffer.get_mutation_names()) if isinstance(buffer, ir.Buffer) else []
