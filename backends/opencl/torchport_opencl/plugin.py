"""Targets ``opencl``, ``opencl:1`` and so on: OpenCL devices of any vendor, in the order of the platforms' lists."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.plugin import API_VERSION, Compiler, Device, Driver
from torchport.target import Target

__all__ = ["OpenCLPlugin", "backend"]

_INSTALL = 'pip install "pyopencl[pocl]"'


class OpenCLPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "opencl"
    api_version = API_VERSION
    # Tensors live on the CPU, for which Inductor must generate Triton kernels.
    options: Mapping[str, Any] = MappingProxyType({"cpu_backend": "triton"})

    def devices(self) -> list[Device]:
        """Every device of every platform; without any, the reason."""
        from torchport_opencl.device import describe, fault

        devices, missing = _devices()
        if missing:
            return [Device(Target("opencl"), "devices of OpenCL platforms", missing)]
        return [
            Device(Target("opencl", (str(i),) if i else ()), describe(device), fault(device))
            for i, device in enumerate(devices)
        ]

    def capabilities(self, target: Target) -> Capabilities:
        """The capabilities that the device reports. Raises TargetError if this machine does not have it."""
        return _capabilities(_index(target))

    def compiler(self, target: Target) -> Compiler:
        """torchport's lowering to OpenCL C, within the device's limits. Raises TargetError if it is not here."""
        return _compiler(target, _index(target))

    def driver(self, target: Target) -> Driver:
        """The device's driver. Raises TargetError if this machine does not have the device."""
        return _driver(_index(target))


@functools.cache
def _devices() -> tuple[list[Any], str]:
    """All devices, and if there are none, the reason and what to do."""
    try:
        import pyopencl as cl
    except ImportError as error:
        return [], f"pyopencl cannot be imported ({error}): {_INSTALL}"
    try:
        devices = [device for platform in cl.get_platforms() for device in platform.get_devices()]
    except cl.Error as error:
        return [], f"no OpenCL platform answers ({error}): {_INSTALL}, or the vendor's driver"
    return devices, "" if devices else f"no OpenCL device is here: {_INSTALL}, or the vendor's driver"


def _index(target: Target) -> int:
    """The number of a target's device. Raises TargetError, listing the devices, or with what its driver lacks."""
    from torchport_opencl.device import fault

    devices, missing = _devices()
    if missing:
        raise TargetError(f"target {target} is not available: {missing}")
    index = target.number([device.name.strip() for device in devices], "device")
    if missing := fault(devices[index]):
        raise TargetError(f"target {target} is not available: {missing}")
    return index


@functools.cache
def _capabilities(index: int) -> Capabilities:
    from torchport_opencl.device import capabilities

    return capabilities(_devices()[0][index])


@functools.cache
def _compiler(target: Target, index: int) -> Compiler:
    from torchport_simt import SIMTCompiler

    from torchport_opencl.device import version
    from torchport_opencl.spelling import spelling

    return SIMTCompiler(target, spelling(), _capabilities(index), version(_devices()[0][index]))


@functools.cache
def _driver(index: int) -> Driver:
    from torchport.runtime.devices import DeviceDriver
    from torchport_opencl.device import OpenCLMemory, build

    memory = OpenCLMemory(_devices()[0][index])
    return DeviceDriver(memory, functools.partial(build, memory), _capabilities(index).grid)


backend = OpenCLPlugin()
