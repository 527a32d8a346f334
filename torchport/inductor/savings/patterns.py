"""The patterns that Inductor finds attention by: a fifth of a second of each process, for graphs that can hold one.

All of them have an exponential and batched products. A graph without is not searched for them, and so they are not made
before one has both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.compat import fuse_attention, init_once_fakemode, joint_graph
from torchport.inductor.savings.state import saves

__all__ = ["NEEDED", "install"]

NEEDED = (torch.ops.aten.exp.default, torch.ops.aten.bmm.default)
"""What all of the patterns contain."""


@functools.cache
def install() -> None:
    """Make them before the first graph that they may match, and before the first that is not torchport's."""
    make: Callable[..., None] = fuse_attention._sfdp_init
    first: Callable[[torch.fx.GraphModule], None] = joint_graph.canonicalize_aten_ir_passes
    left: dict[tuple[Any, ...], None] = {}

    @functools.wraps(make)
    def initialize(*device: Any) -> None:
        if saves():
            left[device] = None
        else:
            make(*device)

    @functools.wraps(first)
    def canonicalize(gm: torch.fx.GraphModule) -> None:
        """The first of Inductor's passes over a graph, after the patterns were made."""
        if left and (not saves() or _may_match(gm.graph)):
            for device in list(left):
                init_once_fakemode(lambda *_, device=device: make(*device))()
                del left[device]
        first(gm)

    fuse_attention._sfdp_init = initialize
    joint_graph.canonicalize_aten_ir_passes = canonicalize


def _may_match(graph: torch.fx.Graph) -> bool:
    return all(graph.find_nodes(op="call_function", target=target, sort=False) for target in NEEDED)
