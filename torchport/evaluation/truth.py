"""A model in float64: what others' results are compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

__all__ = ["InFloat64"]

SMALL_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class InFloat64(TorchDispatchMode):
    """Run every operation that asks for a smaller float dtype in float64 instead."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def promote(dtype: torch.dtype) -> torch.dtype:
            return torch.float64 if dtype in SMALL_FLOATS else dtype

        return func(*tree_map_only(torch.dtype, promote, args), **tree_map_only(torch.dtype, promote, kwargs or {}))
