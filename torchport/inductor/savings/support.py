"""Whether Inductor can compute with a tensor: it asks five questions of all inputs and results of each operation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.compat import lowering_module
from torchport.inductor.savings.state import saves

__all__ = ["install"]

_ORDINARY = frozenset(
    {
        torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.bool,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    }
)  # fmt: skip


@functools.cache
def install() -> None:
    """Ask one question of dense tensors of ordinary types: whether they have values."""
    stock: Callable[..., bool] = lowering_module.unsupported_input_tensor

    @functools.wraps(stock)
    def unsupported(t: Any, *node: Any, **named: Any) -> bool:
        if saves() and t.dtype in _ORDINARY and t.layout is torch.strided and t.device.type != "meta":
            return False
        return stock(t, *node, **named)

    lowering_module.unsupported_input_tensor = unsupported
