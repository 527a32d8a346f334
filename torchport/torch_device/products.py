"""Matrix products on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.torch_device.host import on_host, on_several_devices
from torchport.torch_device.targets import target_of

__all__ = ["compute"]


def compute(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Compute ``mm``, ``bmm``, ``addmm`` or ``baddbmm``; on the host what the kernel does not take."""
    from torchport.runtime.devices.products import product

    first: torch.Tensor = args[0]
    device = first.device
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.device != device:
            raise on_several_devices(operator, (device, value.device))
    result = product(target_of(device.index), operator, args, kwargs)
    return on_host(operator, args, kwargs, result) if isinstance(result, str) else result
