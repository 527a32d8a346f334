"""Matrix products on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.torch_device.host import on_host, on_several_devices, refuse
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
    *_, left, right = args
    if not _fit(left, right, 3 if "bmm" in operator._schema.name else 2):
        refuse(operator, args, kwargs)
    if 0 in left.shape or 0 in right.shape:
        return _without_terms(args, kwargs)
    result = product(target_of(device.index), operator, args, kwargs)
    return on_host(operator, args, kwargs, result) if isinstance(result, str) else result


def _fit(left: torch.Tensor, right: torch.Tensor, rank: int) -> bool:
    shape, other = left.shape, right.shape
    return len(shape) == len(other) == rank and shape[-1] == other[-2] and shape[:-2] == other[:-2]


def _without_terms(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """A sum of no products: zeros, or the tensor that is added."""
    *added, left, right = args
    made: torch.Tensor = left.new_zeros((*left.shape[:-1], right.shape[-1]))
    if added and (beta := kwargs.get("beta", 1)) != 0:
        made = made + added[0] * beta
    out: torch.Tensor | None = kwargs.get("out")
    return made if out is None else out.resize_(made.shape).copy_(made)
