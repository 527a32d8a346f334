"""The settings under which a device's operators and graphs are compiled."""

from __future__ import annotations

import functools

from torchport.inductor.request import Request
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.torch_device.targets import target_of

__all__ = ["request_for"]

_OPTIONS = {"size_asserts": False, "alignment_asserts": False, "fx_graph_cache": False}


@functools.cache
def request_for(index: int) -> Request:
    """How single operators of ``torchport:index`` are compiled."""
    return Request(target_of(index), "error", _OPTIONS, device=DEVICE_TYPE)
