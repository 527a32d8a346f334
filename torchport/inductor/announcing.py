"""What is told of a graph's compilation while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchport.runtime import events

__all__ = ["announced", "operations_of"]


@contextmanager
def announced(graph: str) -> Iterator[None]:
    """Announce that the compilation of ``graph`` begins and ends."""
    events.announce(events.Step(graph))
    try:
        yield
    finally:
        events.announce(events.Step(graph, ended=True))


def operations_of(gm: torch.fx.GraphModule) -> int:
    """How many operations a graph has."""
    return sum(node.op == "call_function" for node in gm.graph.nodes)
