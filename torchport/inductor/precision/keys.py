"""Names for the nodes of an FX graph that stay the same in every process, and whatever kernels are made of them.

A node's key is a hash of its operation, its arguments' keys, and the dtypes and shapes of its results. So it names a
computation from the graph's inputs on: another operation, constant or shape before it is another key. Devices, strides,
names of nodes, source lines and weights' values do not count.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.fx

__all__ = ["KEY", "key_of", "name_nodes", "operation_of", "standing_for"]

KEY = "torchport_key"
"""Where a node's ``meta`` has its key."""
_KEPT = ("stack_trace", "nn_module_stack", "fwd_nn_module_stack", "original_aten", "source_fn_stack", KEY)
"""What nodes that stand for another one have of its ``meta``."""


def standing_for(
    graph: torch.fx.Graph, origin: torch.fx.Node, target: Any, args: Any, kwargs: Any, value: Any
) -> torch.fx.Node:
    """A new node that computes ``value`` in place of ``origin``, whose place and key it has."""
    made = graph.call_function(target, args, kwargs)
    made.meta = {name: origin.meta[name] for name in _KEPT if name in origin.meta}
    made.meta["val"] = value
    return made


def name_nodes(graph: torch.fx.Graph) -> str:
    """Give every node of ``graph`` its key. Returns the graph's, which is of all nodes; the output node has it."""
    keys: dict[torch.fx.Node, str] = {}
    everything = hashlib.sha256()
    inputs = 0
    for node in graph.nodes:
        if node.op == "placeholder":
            text = f"input {inputs} {_kind(_value(node))}"
            inputs += 1
        else:
            text = f"{operation_of(node)} {_kind(_value(node))} {_text(node.args, keys)} {_text(node.kwargs, keys)}"
        keys[node] = node.meta[KEY] = _hash(text)
        everything.update(keys[node].encode())
    key = everything.hexdigest()[:16]
    for node in graph.find_nodes(op="output"):
        node.meta[KEY] = key
    return key


def key_of(node: torch.fx.Node) -> str | None:
    """The node's key; None for one that was made since."""
    found: str | None = node.meta.get(KEY)
    return found


def operation_of(node: torch.fx.Node) -> str:
    """What a node computes, as text: ``aten.mm.default``, ``operator.getitem``, ``get_attr _tensor_constant0``."""
    target: Any = node.target
    if node.op == "get_attr":
        return f"get_attr {target}"
    if isinstance(target, (str, torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return str(target)
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order.{target.name()}"
    module = str(getattr(target, "__module__", None) or "builtins")
    return f"{module.removeprefix('_')}.{getattr(target, '__name__', type(target).__name__)}"


def _value(node: torch.fx.Node) -> Any:
    return node.meta.get("val", node.meta.get("example_value"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, (list, tuple)):
        return f"({','.join(map(_kind, value))})"
    return str(value) if isinstance(value, (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)) else "-"


def _text(value: Any, keys: dict[torch.fx.Node, str]) -> str:
    if isinstance(value, torch.fx.Node):
        return f"%{keys[value]}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_text(one, keys) for one in value)}]"
    if isinstance(value, dict):
        parts = [f"{name}={_text(one, keys)}" for name, one in sorted(value.items()) if name != "device"]
        return f"{{{','.join(parts)}}}"
    if isinstance(value, slice):
        return _text([value.start, value.stop, value.step], keys)
    if isinstance(value, torch.device):
        return "device"
    if value is None or isinstance(
        value, (bool, int, float, complex, str, torch.dtype, torch.layout, torch.memory_format, torch.SymInt,
                torch.SymFloat, torch.SymBool)
    ):  # fmt: skip
        return repr(value) if isinstance(value, (str, float, complex)) else str(value)
    return type(value).__name__
