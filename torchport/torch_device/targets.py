"""Which target each torch device is: ``torchport:0``, ``torchport:1`` ... in the order of ``targets``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from torchport.errors import TargetError
from torchport.plugin import backend_for, registry
from torchport.runtime.devices.device import DeviceDriver
from torchport.target import Target

if TYPE_CHECKING:
    from torchport.runtime.devices.mirrors import Mirrors

__all__ = ["index_of", "memory_of", "target_of", "targets"]


@functools.cache
def targets() -> tuple[Target, ...]:
    """The targets of this machine whose kernels run in memory of their own, by backend in alphabetical order."""
    return tuple(
        device.target
        for name in registry().names
        for device in registry().get(name).devices()
        if not device.missing and isinstance(backend_for(device.target).driver(device.target), DeviceDriver)
    )


def target_of(index: int) -> Target:
    """The target of ``torchport:index``. Raises TargetError, listing the devices, if there is none."""
    if not 0 <= index < len(targets()):
        raise TargetError(f"there is no device torchport:{index}; {_listed()}")
    return targets()[index]


def index_of(target: str | Target) -> int:
    """The number of a target's torch device. Raises TargetError, listing the devices, if it has none."""
    parsed = Target.parse(target)
    if parsed not in targets():
        raise TargetError(f"target {parsed} is no torch device; {_listed()}")
    return targets().index(parsed)


@functools.cache
def memory_of(index: int) -> Mirrors:
    """The memory of ``torchport:index``. Raises TargetError as ``target_of`` does."""
    target = target_of(index)
    driver = backend_for(target).driver(target)
    assert isinstance(driver, DeviceDriver)
    return driver.mirrors


def _listed() -> str:
    if not targets():
        return "no target of this machine has memory of its own (torchport targets says what is missing for each)"
    return "devices: " + ", ".join(f"torchport:{i} ({target})" for i, target in enumerate(targets()))
