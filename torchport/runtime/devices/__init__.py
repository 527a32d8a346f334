"""Devices with memory of their own: copies of CPU tensors, launches, and what runs on the host in between.

A plugin supplies a ``Memory`` and a ``Build``; ``DeviceDriver`` makes a driver of them (docs/plugins.md). The copy of
a tensor is good for as long as its version counter, and a sample of its bytes, are what they were
(TORCHPORT_DEVICE_CHECK says how much is looked at). Changes through ``.data`` move no counter, and a few elements
changed that way may be missed by the sample: call ``invalidate`` after them. Tensors made in inference mode have no
counter and are copied every time.
"""

from __future__ import annotations

import torch

from torchport.runtime.devices.device import DeviceDriver, mirrors_of
from torchport.runtime.devices.memory import Build, Function, Memory, host_bytes
from torchport.runtime.devices.mirrors import every_device
from torchport.runtime.devices.statistics import Statistics, TransferCount
from torchport.target import Target

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
    """The counts of a target's device. Those of a device without memory of its own are all zero."""
    mirrors = mirrors_of(target)
    return Statistics() if mirrors is None else mirrors.report()


def reset_statistics(target: str | Target) -> None:
    """Count from zero again."""
    mirrors = mirrors_of(target)
    if mirrors is not None:
        with mirrors.lock:
            mirrors.statistics = Statistics()


def invalidate(*changed: torch.Tensor | torch.nn.Module) -> None:
    """Have tensors, or all parameters and buffers of modules, copied again to every device when they are next used.

    Necessary after changes that move no version counter and that a sample of the bytes may miss: writes through
    ``.data``, NumPy views or pointers.
    """
    for one in changed:
        tensors = [*one.parameters(), *one.buffers()] if isinstance(one, torch.nn.Module) else [one]
        for device in every_device():
            for tensor in tensors:
                device.invalidate(tensor)


def release(target: str | Target) -> None:
    """Give back to a target's device all memory but that of results which are nowhere else."""
    mirrors = mirrors_of(target)
    if mirrors is not None:
        mirrors.clear()
