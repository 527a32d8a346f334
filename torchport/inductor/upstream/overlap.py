"""Values scattered into a tensor whose elements overlap.

aten keeps the strides of such a tensor in the result (``clone_preserve_strides``), so several of the values are written
to one place, and the last one counts. Only aten knows which one that is.
"""

from __future__ import annotations

from typing import Any

import torch

from torchport.inductor.upstream.fx import value
from torchport.inductor.upstream.outputs import overlaps
from torchport.registering import registering
from torchport.runtime import events

__all__ = ["scatter_in_aten"]

_aten = torch.ops.aten


def _opaque(operation: Any) -> Any:
    """An operation that does what aten's does, and that Inductor has no code for."""
    name, _, arguments = str(operation._schema).removeprefix("aten::").partition("(")
    ours = f"torchport::overlapping_{name}"
    torch.library.define(ours, f"({arguments}")
    torch.library.impl(ours, "CompositeExplicitAutograd")(operation)
    with registering():
        torch.library.register_fake(ours)(operation)
    return getattr(torch.ops.torchport, f"overlapping_{name}").default


_OPERATIONS = {
    operation: _opaque(operation)
    for operation in (
        _aten.slice_scatter.default,
        _aten.select_scatter.default,
        _aten.diagonal_scatter.default,
        _aten.as_strided_scatter.default,
    )
}


def scatter_in_aten(graph: torch.fx.Graph) -> None:
    """Leave such operations to aten."""
    for operation, opaque in _OPERATIONS.items():
        for node in graph.find_nodes(op="call_function", target=operation):
            result = value(node)
            if result is not None and overlaps(result):
                node.target = opaque
                events.record(
                    events.Fallback(None, str(operation), "elements of the result overlap", "aten", (str(operation),))
                )
