"""What users call: ``torchport.device`` and ``torchport.fallbacks``."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.target import Target
from torchport.torch_device.host import fallback_counts
from torchport.torch_device.register import install
from torchport.torch_device.targets import index_of, target_of

__all__ = ["device", "fallbacks"]


def device(target: str | Target | int = 0) -> torch.device:
    """The torch device of a target, as ``torch.device("torchport:0")``; PyTorch learns of the type at the first call.

    target: its text form, or the device's number.

    Raises TargetError, listing the devices, if this machine has no such device.
    """
    install()
    index = target if isinstance(target, int) else index_of(target)
    target_of(index)
    return torch.device(DEVICE_TYPE, index)


def fallbacks(*, reset: bool = False) -> Mapping[str, int]:
    """How often each operator ran on the host because the device has no kernel for it. ``reset``: count anew."""
    return fallback_counts(reset)
