"""What the C++ part of the device (native.cpp) asks."""

from __future__ import annotations

import torch

from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.torch_device.module import (
    empty_cache,
    max_memory_allocated,
    memory_allocated,
    memory_reserved,
    reset_peak_memory_stats,
    synchronize,
)
from torchport.torch_device.storage import elements

__all__ = [
    "bytes_on", "empty_cache", "memory_figures", "new_generator", "reset_peak_memory_stats", "resized", "synchronize",
]  # fmt: skip


def new_generator() -> torch.Generator:
    """A generator for a device's to draw from, in the state of a new one."""
    return torch.Generator()


def bytes_on(index: int, nbytes: int) -> torch.UntypedStorage:
    """A new storage on ``torchport:index``. Raises DeviceMemoryError."""
    return torch.empty(nbytes, dtype=torch.uint8, device=torch.device(DEVICE_TYPE, index)).untyped_storage()


def resized(storage: torch.UntypedStorage, nbytes: int) -> torch.UntypedStorage:
    """A new storage of another size, with the elements of ``storage`` that it has room for."""
    made = torch.empty(nbytes, dtype=torch.uint8, device=storage.device)
    kept = min(nbytes, storage.nbytes())
    if kept:
        made[:kept].copy_(elements(storage)[:kept])
    return made.untyped_storage()


def memory_figures(index: int) -> tuple[int, int, int, int]:
    """Bytes of a device's tensors, the most so far; bytes that the process holds, and the most that is known."""
    reserved, peak = memory_reserved(index), max_memory_allocated(index)
    return memory_allocated(index), peak, reserved, max(reserved, peak)
