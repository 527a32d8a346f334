"""Results of a graph that are tensors, or memory, of their own.

Inductor removes copies one at a time. It leaves one that keeps a result apart from an input, but not where another copy
follows: both go. And it gives one tensor for a result and its ``detach()``, which autograd then takes for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchport.inductor.compat import ir, post_grad
from torchport.inductor.shared import Switch
from torchport.inductor.upstream.fx import base, call, computed, value

__all__ = ["distinct", "results_apart"]

_apart = Switch("torchport_results_apart")


@_apart.installed
def results_apart() -> None:
    """Compile with results kept apart, by a pass behind Inductor's, while the context is open, in this thread."""
    stock: Callable[[torch.fx.Graph], None] = post_grad.remove_noop_ops

    def remove_noop_ops(graph: torch.fx.Graph) -> None:
        (output,) = graph.find_nodes(op="output")
        given: Any = output.args[0]  # one node in a loop's body
        memories = [_memory(node) for node in given] if isinstance(given, tuple | list) else []
        stock(graph)
        if _apart.is_on():
            _keep_apart(graph, output, memories)

    post_grad.remove_noop_ops = remove_noop_ops


def _keep_apart(graph: torch.fx.Graph, output: torch.fx.Node, memories: list[Any]) -> None:
    """Copy what results came to share with an input or an earlier result; ``memories`` are those that they had."""
    owners: dict[torch.fx.Node, Any] = {node: _memory(node) for node in graph.find_nodes(op="placeholder")}
    copies: dict[Any, dict[torch.fx.Node, torch.fx.Node]] = {}
    given: Any = output.args[0]
    results = list(given) if memories else []
    for position, memory in enumerate(memories):
        result = results[position]
        if memory is None or value(result) is None or owners.setdefault(base(result), memory) == memory:
            continue
        with graph.inserting_before(output):
            results[position] = _copied(graph, result, copies.setdefault(memory, {}))
    if copies:
        output.args = (tuple(results),)


def _copied(graph: torch.fx.Graph, node: torch.fx.Node, copies: dict[torch.fx.Node, torch.fx.Node]) -> torch.fx.Node:
    """``node``, a view or none, in a copy of the memory that it is in; ``copies`` has the nodes that are there yet."""
    if node not in copies:
        home = base(node)
        if node is home:
            copies[node] = computed(call(graph, node, torch.ops.aten.clone.default, node))
        else:
            copies[node] = graph.node_copy(node, lambda source: _copied(graph, source, copies))
    return copies[node]


def _memory(node: Any) -> Any:
    """A number for the storage of a node's fake tensor; None where it has none."""
    tensor = value(node)
    if tensor is None or tensor.layout != torch.strided:
        return None
    return tensor.untyped_storage()._cdata


def distinct(results: list[str], nodes: Sequence[Any]) -> list[str]:
    """Expressions for results, no tensor twice: one that was there is detached, which shares its memory.

    ``nodes``: Inductor's, for each result. Sizes among them are numbers.
    """
    numbers = (ir.ShapeAsConstantBuffer, ir.NoneAsConstantBuffer)
    return [
        f"{result}.detach()" if result in results[:i] and not isinstance(nodes[i], numbers) else result
        for i, result in enumerate(results)
    ]
