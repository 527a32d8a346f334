"""Operations that take no negative indices: aten raises, Inductor's decompositions count them from the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["OPERATIONS", "without_negative"]

_aten = torch.ops.aten

OPERATIONS = (_aten.index_select.default, _aten.index_add.default, _aten.index_copy.default)


def without_negative(stock: Callable[..., Any]) -> Callable[..., Any]:
    """A decomposition to which a negative index is one beyond the end, which the kernel's own check finds."""

    def decomposition(x: torch.Tensor, dim: int, index: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        size = x.shape[dim] if x.ndim else 1
        return stock(x, dim, torch.where(index < 0, size, index), *args, **kwargs)

    return decomposition
