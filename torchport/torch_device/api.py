"""What users call: ``torchport.device`` and ``torchport.fallbacks``."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from torchport.runtime import ranks
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.target import Target
from torchport.torch_device.host import fallback_counts
from torchport.torch_device.register import install
from torchport.torch_device.targets import index_of, target_of, targets

__all__ = ["device", "fallbacks"]


def device(target: str | Target | int = 0) -> torch.device:
    """The torch device of a target, as ``torch.device("torchport:0")``; PyTorch learns of the type at the first call.

    target: its text form, or the device's number. In a job of several ranks a target that does not say which device
    (``opencl``) is the one of the local rank, of those that its backend has here.

    Raises TargetError, listing the devices, if this machine has no such device.
    """
    install()
    index = target if isinstance(target, int) else index_of(_of_this_rank(Target.parse(target)))
    target_of(index)
    return torch.device(DEVICE_TYPE, index)


def _of_this_rank(target: Target) -> Target:
    """One of the devices of a target's backend, if the target names none and each rank is to have another."""
    if target.parts or ranks.world_size() == 1:
        return target
    same = [one for one in targets() if one.backend == target.backend]
    return same[ranks.local_rank() % len(same)] if same else target


def fallbacks(*, reset: bool = False) -> Mapping[str, int]:
    """How often each operator ran on the host because the device has no kernel for it. ``reset``: count anew."""
    return fallback_counts(reset)
