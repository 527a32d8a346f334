"""Matrix products on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.torch_device.host import on_host
from torchport.torch_device.targets import target_of

__all__ = ["compute"]


def compute(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Compute ``mm``, ``bmm``, ``addmm`` or ``baddbmm``; on the host what the kernel does not take."""
    from torchport.runtime.devices.products import product

    devices = {value.device for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)}
    if len(devices) > 1:
        return on_host(operator, args, kwargs, "its tensors are on several devices")
    (device,) = devices
    assert device.type == DEVICE_TYPE
    result = product(str(target_of(device.index)), operator, args, dict(kwargs))
    return on_host(operator, args, kwargs, result) if isinstance(result, str) else result
