"""Operators that a device with its own memory computes inside a graph, though no generated kernel does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchport.runtime.devices.products import PRODUCTS, product
from torchport.target import Target

__all__ = ["ON_DEVICE", "OnDevice"]

OnDevice = Callable[[Target, Any, Sequence[Any], Mapping[str, Any]], Any]
"""Called with the target, the operator and its arguments. Returns its result, or a string: why the host must."""

ON_DEVICE: dict[Any, OnDevice] = dict.fromkeys(PRODUCTS, product)
"""By operator. Libraries of kernels add theirs when they define them."""
