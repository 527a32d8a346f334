"""Operators that Inductor has no lowering for, by others that it has one for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from torchport.torch_device import random

__all__ = ["DEFINITIONS"]

_aten = torch.ops.aten


def _put(
    self: torch.Tensor, indices: Any, values: torch.Tensor, accumulate: bool = False, unsafe: bool = False
) -> torch.Tensor:
    _aten.index_put_(self, indices, values, accumulate)
    return self


DEFINITIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {**random.DEFINITIONS, _aten._index_put_impl_.default: _put}
)
"""Operator -> what is traced in its place."""
