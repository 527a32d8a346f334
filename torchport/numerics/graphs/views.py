"""FX nodes that are other views, or copies, of a node's value: what is known of one is known of them all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchport.numerics.graphs.dump import Dump
from torchport.numerics.graphs.evaluate import evaluate

__all__ = ["ahead", "same", "source_of", "users_of"]

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
    """What a view, or a copy, is one of; None for other nodes."""
    described = nodes.get(node)
    if described is None or not described["target"].startswith(_VIEWS) or not described["args"]:
        return None
    first = described["args"][0]
    return first.get("node") if isinstance(first, Mapping) else None


def users_of(nodes: Nodes) -> Mapping[str, list[str]]:
    """Views by what they are one of."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in nodes:
        if (source := source_of(nodes, name)) is not None:
            found[source].append(name)
    return found


def same(nodes: Nodes, node: str, shape: Shape) -> list[str]:
    """What ``node`` is another name of: views behind it that change nothing."""
    found: list[str] = []
    while (source := source_of(nodes, node)) is not None and not nodes[node]["target"].startswith(_PERMUTES):
        if shape(source) is None or shape(source) != shape(node):
            break
        found.append(source)
        node = source
    return found


def ahead(
    graph: Dump, users: Mapping[str, Sequence[str]], node: str, shape: Shape, known: Mapping[str, torch.Tensor]
) -> tuple[str, torch.Tensor] | None:
    """A view of ``node`` in which all its elements were kept, and the node's value from it. ``known``: kept values."""
    size = shape(node)
    todo = list(users.get(node, ())) if size is not None else []
    while todo:
        view = todo.pop(0)
        if shape(view) is None or math.prod(shape(view) or ()) != math.prod(size or ()):
            continue
        if view in known:
            # Where each element is in the view: the view of the elements' numbers.
            numbers = torch.arange(math.prod(size or ())).reshape(tuple(size or ()))
            places = evaluate(graph, {}, wanted=[view], given={node: numbers}, refused={}).get(view)
            if places is not None and places.numel() == numbers.numel():
                value = torch.empty_like(known[view].reshape(-1))
                value[places.reshape(-1)] = known[view].reshape(-1)
                return view, value.reshape(tuple(size or ()))
        todo += users.get(view, ())
    return None
