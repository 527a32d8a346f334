"""Graphs that a graph passes to its operations, such as ``score_mod`` of FlexAttention, as functions in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.numerics.graphs.decode import decode
from torchport.numerics.graphs.dump import Dump, by_name, references
from torchport.numerics.graphs.permitted import overload, plain_call
from torchport.numerics.graphs.special import RULES, Refused
from torchport.numerics.graphs.wide_call import Value, wide_call, widened

__all__ = ["Subgraph", "called", "constant"]

_UNINITIALIZED = ("aten.empty", "aten.new_empty")
"""Memory that holds nothing yet holds zeros here: values are the same each time."""


def called(node: Mapping[str, Any], args: list[Value], kwargs: dict[str, Value], dtype: torch.dtype) -> Value:
    """The result of a node's operation. ``node``: as ``torchport.numerics.graphs.special.RULES`` are called with it.

    Raises Refused for an operation that has none, and what PyTorch raises for arguments that are not its own.
    """
    target: str = node["target"]
    if (plain := plain_call(target)) is not None:
        return plain(*args, **kwargs)
    if (rule := RULES.get(target)) is not None:
        return widened(rule(node, *args, **kwargs), dtype)
    result = wide_call(node, overload(target), args, kwargs, dtype)
    return result.zero_() if target.startswith(_UNINITIALIZED) else result


def constant(graph: Dump, target: str) -> torch.Tensor:
    """A tensor that ``graph`` holds; floats are float64. Raises Refused if it was not kept."""
    found = graph.get("constants", {}).get(target)
    if found is None or found["values"] is None:
        raise Refused("the value of this constant was not kept")
    values = [decode(value, lambda name: name) for value in found["values"]]
    dtype: torch.dtype = getattr(torch, found["dtype"])
    return torch.tensor(values, dtype=torch.float64 if dtype.is_floating_point else dtype).reshape(found["shape"])


class Subgraph:
    """A dump as a function of its placeholders, in order. It may be called under ``torch.vmap`` and has gradients.

    Nodes see copies of what they write into: such a graph is a function of its arguments.
    """

    def __init__(self, graph: Dump, dtype: torch.dtype) -> None:
        self._graph, self._dtype = graph, dtype
        self._nodes = by_name(graph)

    def __call__(self, *inputs: Value) -> list[Value]:
        """The graph's outputs; None where it has none. Raises Refused where a node has no float64 value."""
        waiting = iter(inputs)
        values: dict[str, Value] = {}
        for name, node in self._nodes.items():
            try:
                values[name] = next(waiting) if node["op"] == "placeholder" else self._computed(node, values)
            except StopIteration:
                raise Refused("a graph is called with too few arguments") from None
        return [None if name is None else values[name] for name in self._graph["outputs"]]

    def _computed(self, node: Mapping[str, Any], values: Mapping[str, Value]) -> Value:
        if node["op"] == "get_attr":
            return widened(constant(self._graph, node["target"]), self._dtype)
        if node["op"] != "call_function":
            raise Refused(f"{node['op']} is not an operation of a compiled graph")
        args = [decode(value, values.__getitem__) for value in node["args"]]
        kwargs = {key: decode(value, values.__getitem__) for key, value in node["kwargs"].items()}
        first = next(references(node["args"]), None)
        described = {**node, "first": self._nodes[first]["value"] if first is not None else None, "own": False}
        return called(described, args, kwargs, self._dtype)
