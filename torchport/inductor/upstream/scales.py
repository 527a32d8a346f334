"""Attention whose scale is a tensor, or a number that is not known.

Inductor finds attention in a graph by patterns, and calls aten's operation in its place. Some of the patterns match a
scale that is a node of the graph, which the operation does not take. Patterns of PyTorch 2.11 match a division by any
number as one by the root of the head's size.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.compat import fuse_attention
from torchport.inductor.shared import Switch

__all__ = ["scales_of_any_kind"]

_ours = Switch("torchport_scales_of_any_kind")


@_ours.installed
def scales_of_any_kind() -> None:
    """Compile attention with such scales as products and a softmax while the context is open, in this thread.

    What stands here is before the operation that Inductor's replacements call.
    """
    attend: Callable[..., Any] = fuse_attention._scaled_dot_product_attention

    @functools.wraps(attend)
    def either(query: Any, key: Any, value: Any, **kwargs: Any) -> Any:
        scale = kwargs.get("scale")
        if scale is None or isinstance(scale, (int, float)) or kwargs.get("is_causal") or not _ours.is_on():
            return attend(query, key, value, **kwargs)
        return _computed(query, key, value, scale, kwargs.get("attn_mask"), kwargs.get("dropout_p", 0.0))

    fuse_attention._scaled_dot_product_attention = either
    if "inv_scale" in inspect.signature(fuse_attention._sfdp_pattern_5).parameters:
        return
    check: Callable[[Any], bool] = fuse_attention._sfdp_params_check

    @functools.wraps(check)
    def checked(match: Any) -> bool:
        """Patterns have this check from when they are made on: before, if stock Inductor had attention to compile."""
        return check(match) and (not _ours.is_on() or _has_the_usual_scale(match))

    fuse_attention._sfdp_params_check = checked


def _has_the_usual_scale(match: Any) -> bool:
    """Whether what ``match`` divides scores or queries by is what its replacement divides by, unless that is told."""
    if any("scale" in name for name in match.kwargs):
        return True
    usual = math.sqrt(match.kwargs["query"].meta["val"].shape[-1])
    divisions = [node for node in match.nodes if node.target is torch.ops.aten.div.Tensor]
    scales = [
        node.args[1] for node in divisions if getattr(node.args[0], "target", None) is not torch.ops.aten.exp.default
    ]
    return all(_is_number(scale, usual) for scale in scales)


def _is_number(scale: Any, number: float) -> bool:
    if getattr(scale, "target", None) is torch.ops.aten.full.default:
        scale = scale.args[1]
    return isinstance(scale, (int, float)) and math.isclose(scale, number, rel_tol=1e-6)


def _computed(query: Any, key: Any, value: Any, scale: Any, mask: Any, dropout: float) -> Any:
    """What the pattern computes: ``scale`` [] or of any shape that goes with the scores'; ``mask`` of numbers."""
    scores = query @ key.transpose(-2, -1) * scale
    weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
    return (torch.dropout(weights, dropout, True) if dropout else weights) @ value
