"""Devices with their own memory: copies of CPU tensors, launches, and operators that run on the host in between.

A plugin supplies a ``Memory`` and a ``Build``; ``DeviceDriver`` makes a driver of them (docs/plugins.md). The copy of a
tensor is valid while the tensor's version counter and a sample of its bytes are unchanged (TORCHPORT_DEVICE_CHECK sets
how much is compared). Changes through ``.data`` do not move the counter, and the sample may miss a few elements: call
``invalidate`` after such changes. Tensors made in inference mode have no counter and are copied every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchport.runtime.devices.device import DeviceDriver, mirrors_of
from torchport.runtime.devices.memory import Build, Function, Memory, host_bytes
from torchport.runtime.devices.statistics import Statistics, TransferCount
from torchport.target import Target

if TYPE_CHECKING:
    import torch

__all__ = [
    "Build",
    "DeviceDriver",
    "Function",
    "Memory",
    "Statistics",
    "TransferCount",
    "host_bytes",
    "invalidate",
    "release",
    "reset_statistics",
    "statistics",
]


def statistics(target: str | Target) -> Statistics:
    """The counts of a target's device; all zero for a device without its own memory."""
    mirrors = mirrors_of(target)
    return Statistics() if mirrors is None else mirrors.report()


def reset_statistics(target: str | Target) -> None:
    """Reset the counts to zero."""
    mirrors = mirrors_of(target)
    if mirrors is not None:
        with mirrors.lock:
            mirrors.statistics = Statistics()


def invalidate(*changed: torch.Tensor | torch.nn.Module) -> None:
    """Copy tensors, or all parameters and buffers of modules, to every device again at their next use.

    Needed after changes that do not move the version counter and that the sample may miss: writes through ``.data``,
    NumPy views or pointers.
    """
    import torch

    from torchport.runtime.devices.mirrors import every_device

    for item in changed:
        tensors = [*item.parameters(), *item.buffers()] if isinstance(item, torch.nn.Module) else [item]
        for device in every_device():
            for tensor in tensors:
                device.invalidate(tensor)


def release(target: str | Target) -> None:
    """Release all memory of a target's device except results that exist nowhere else."""
    mirrors = mirrors_of(target)
    if mirrors is not None:
        mirrors.clear()
