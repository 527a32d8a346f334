"""FX nodes that are views or copies of another node's value, and values that follow from them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchport.numerics.graphs.dump import Dump
from torchport.numerics.graphs.evaluate import evaluate

__all__ = ["aliases_of", "source_of", "value_from_view", "views_of"]

_VIEWS = tuple(
    f"aten.{name}" for name in (
        "view.default", "reshape.default", "_unsafe_view.default", "permute.default", "transpose.int", "t.default",
        "squeeze", "unsqueeze", "clone.default", "alias.default", "detach.default", "expand.default", "slice.Tensor",
        "select.int",
    )
)  # fmt: skip
_PERMUTES = ("aten.permute", "aten.transpose", "aten.t.")

Nodes = Mapping[str, Mapping[str, Any]]
Shape = Callable[[str], Sequence[int] | None]


def source_of(nodes: Nodes, node: str) -> str | None:
    """The node that a view or a copy is taken from; None for other nodes."""
    described = nodes.get(node)
    if described is None or not described["target"].startswith(_VIEWS) or not described["args"]:
        return None
    first = described["args"][0]
    return first.get("node") if isinstance(first, Mapping) else None


def views_of(nodes: Nodes) -> Mapping[str, list[str]]:
    """Views and copies by the node they are taken from."""
    views: dict[str, list[str]] = defaultdict(list)
    for name in nodes:
        if (source := source_of(nodes, name)) is not None:
            views[source].append(name)
    return views


def aliases_of(nodes: Nodes, node: str, shape: Shape) -> list[str]:
    """Nodes with the same elements and shape that ``node`` is a view or copy of."""
    aliases: list[str] = []
    while (source := source_of(nodes, node)) is not None and not nodes[node]["target"].startswith(_PERMUTES):
        if shape(source) is None or shape(source) != shape(node):
            break
        aliases.append(source)
        node = source
    return aliases


def value_from_view(
    graph: Dump, views: Mapping[str, Sequence[str]], node: str, shape: Shape, known: Mapping[str, torch.Tensor]
) -> tuple[str, torch.Tensor] | None:
    """A known view of ``node`` with all its elements, and the node's value from it.

    ``views``: as from ``views_of``. ``known``: recorded values by node.
    """
    size = shape(node)
    todo = list(views.get(node, ())) if size is not None else []
    while todo:
        view = todo.pop(0)
        if shape(view) is None or math.prod(shape(view) or ()) != math.prod(size or ()):
            continue
        if view in known:
            # The view of the elements' numbers tells where each element is in the view.
            numbers = torch.arange(math.prod(size or ())).reshape(tuple(size or ()))
            positions = evaluate(graph, {}, wanted=[view], given={node: numbers}, refused={}).get(view)
            if positions is not None and positions.numel() == numbers.numel():
                value = torch.empty_like(known[view].reshape(-1))
                value[positions.reshape(-1)] = known[view].reshape(-1)
                return view, value.reshape(tuple(size or ()))
        todo += views.get(view, ())
    return None
