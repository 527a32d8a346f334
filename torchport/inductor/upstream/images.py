"""Bilinear and bicubic interpolation of bytes, which aten computes in whole numbers, with roundings of its own.

AOTAutograd takes the operation apart, into float32, before a backend sees it. One result in eight is off by 1 then.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from torchport.runtime import events

__all__ = ["interpolate_in_aten"]

_NAMES = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
_OPERATIONS: dict[Any, dict[str, Any]] = {
    torch.nn.functional.interpolate: {},
    torch.nn.functional.upsample: {},
    torch.nn.functional.upsample_bilinear: {"mode": "bilinear", "align_corners": True},
}
"""What Dynamo's graph may call, with arguments that it implies."""


def _interpolate(
    x: torch.Tensor,
    size: Sequence[int] | None,
    scales: Sequence[float] | None,
    mode: str,
    align_corners: bool,
    recompute: bool,
) -> torch.Tensor:
    """``torch.nn.functional.interpolate`` as one operation, to ``size`` or by ``scales``."""
    return torch.nn.functional.interpolate(x, size, scales, mode, align_corners, recompute)


@functools.cache
def _operation() -> Any:
    """The operation that graphs call. Registering one takes 20 ms, and most graphs have no such interpolation."""
    made = torch.library.custom_op("torchport::interpolate_bytes", _interpolate, mutates_args=())
    made.register_fake(lambda x, *how: torch.empty_like(torch.nn.functional.interpolate(x, *how)))
    return torch.ops.torchport.interpolate_bytes.default


def interpolate_in_aten(gm: torch.fx.GraphModule) -> None:
    """Let Dynamo's graph call aten for such an interpolation."""
    for node in [
        node for operation in _OPERATIONS for node in gm.graph.find_nodes(op="call_function", target=operation)
    ]:
        given = {**_OPERATIONS[node.target], **dict(zip(_NAMES, node.args, strict=False)), **node.kwargs}
        source = given["input"].meta.get("example_value")
        if not isinstance(source, torch.Tensor) or source.dtype != torch.uint8:
            continue
        mode = given.get("mode", "nearest")
        if mode not in ("bilinear", "bicubic") or given.get("antialias"):
            continue
        size, scales = (
            [given[name]] * 2 if isinstance(given.get(name), int | float | torch.fx.Node) else given.get(name)
            for name in ("size", "scale_factor")
        )
        with gm.graph.inserting_before(node):
            flags = bool(given.get("align_corners")), bool(given.get("recompute_scale_factor"))
            args = (given["input"], size, scales, mode, *flags)
            replaced = gm.graph.call_function(_operation(), args)
        replaced.meta.update(node.meta)
        node.replace_all_uses_with(replaced)
        gm.graph.erase_node(node)
        gm.recompile()
        name, reason = f"aten.upsample_{mode}2d.vec", "aten interpolates bytes in whole numbers"
        events.record(events.Fallback(None, name, reason, "aten", (name,)))
