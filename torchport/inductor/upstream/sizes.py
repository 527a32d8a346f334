"""Sizes of a tensor after ``unsqueeze_``, ``t_`` and their kind.

Dynamo notes the sizes of each tensor of the program it traces, and again after an operation in place, but only if that
takes another tensor: ``y.t_()`` leaves ``y.shape`` as it was. A backend is asked after that, so Dynamo traces again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.compat import RestartAnalysis, TensorVariable
from torchport.inductor.upstream.corrections import applies

__all__ = ["traced_with_sizes"]

_RESHAPE = {"as_strided_", "resize_", "squeeze_", "swapaxes_", "swapdims_", "t_", "transpose_", "unsqueeze_"}


def traced_with_sizes(gm: torch.fx.GraphModule) -> None:
    """Have Dynamo note sizes after all operations in place, from the first graph on that changes sizes in place.

    Dynamo then does so for other backends, too. Raises Dynamo's RestartAnalysis, with which it traces again.
    """
    stock: Callable[..., None] = TensorVariable._sync_if_inplace_mutation
    if hasattr(stock, "notes_sizes") or not any(n.op == "call_method" and n.target in _RESHAPE for n in gm.graph.nodes):
        return

    def synchronize(self: Any, tx: Any, version_before: int | None, has_tensor_arg: bool) -> None:
        stock(self, tx, version_before, has_tensor_arg or applies("sizes-in-place"))

    synchronize.notes_sizes = True  # type: ignore[attr-defined]
    TensorVariable._sync_if_inplace_mutation = synchronize
    raise RestartAnalysis(restart_reason="sizes that change in place")
