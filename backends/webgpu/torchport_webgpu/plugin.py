"""Targets ``webgpu``, ``webgpu:1`` and so on: the adapters of WebGPU, GPUs before software."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.plugin import API_VERSION, Compiler, Device, Driver, Page
from torchport.target import Target
from torchport_webgpu.browser.limits import BROWSER
from torchport_webgpu.browser.limits import capabilities as browser_capabilities

if TYPE_CHECKING:
    from torchport_webgpu.device import WebGPUDevice

__all__ = ["WebGPUPlugin", "backend"]

_INSTALL = "pip install 'torchport[webgpu]'"
_DRIVER = "install the vendor's Vulkan driver, or mesa-vulkan-drivers (Debian), which runs on the CPU"


class WebGPUPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "webgpu"
    api_version = API_VERSION
    # Tensors live on the CPU, for which Inductor must generate Triton kernels.
    options: Mapping[str, Any] = MappingProxyType({"cpu_backend": "triton"})

    def devices(self) -> list[Device]:
        """Every adapter; without any, the reason."""
        from torchport_webgpu.adapters import describe

        adapters, missing = _adapters()
        if missing:
            return [Device(Target("webgpu"), "adapters of WebGPU (Vulkan, Metal, D3D12)", missing)]
        return [
            Device(Target("webgpu", (str(i),) if i else ()), describe(adapter)) for i, adapter in enumerate(adapters)
        ]

    def capabilities(self, target: Target) -> Capabilities:
        """What the adapter reports and was measured to do. Raises TargetError if this machine does not have it."""
        if target == BROWSER:
            return browser_capabilities()
        return _device(_index(target)).capabilities

    def compiler(self, target: Target) -> Compiler:
        """torchport's lowering to WGSL, within the adapter's limits. Raises TargetError if it is not here."""
        return _browser_compiler() if target == BROWSER else _compiler(target, _index(target))

    def driver(self, target: Target) -> Driver:
        """The adapter's driver. Raises TargetError if this machine does not have the adapter."""
        if target == BROWSER:
            from torchport_webgpu.browser.driver import driver

            return driver()
        return _driver(_index(target))

    def write_page(self, model: Callable[..., Any], args: Sequence[Any], folder: Path, name: str) -> Page:
        """Write a folder of static files that runs ``model`` in a browser (``torchport_webgpu.browser.page``)."""
        from torchport_webgpu.browser.page import write_page

        return write_page(model, args, folder, name)


@functools.cache
def _browser_compiler() -> Compiler:
    from torchport_simt import SIMTCompiler
    from torchport_simt.wgsl.spelling import spelling

    return SIMTCompiler(BROWSER, spelling(), browser_capabilities())


@functools.cache
def _adapters() -> tuple[list[Any], str]:
    """All adapters, and if there are none, the reason and what to do."""
    try:
        from torchport_webgpu.adapters import adapters

        found = adapters()
    except ImportError as error:
        return [], f"wgpu cannot be imported ({error}): {_INSTALL}"
    except RuntimeError as error:
        return [], f"WebGPU does not start ({error}): {_DRIVER}"
    return found, "" if found else f"WebGPU finds no adapter: {_DRIVER}"


def _index(target: Target) -> int:
    """The number of a target's adapter. Raises TargetError, listing the adapters."""
    adapters, missing = _adapters()
    if missing:
        raise TargetError(f"target {target} is not available: {missing}")
    return target.number([adapter.info["device"] for adapter in adapters], "adapter")


@functools.cache
def _device(index: int) -> WebGPUDevice:
    from torchport_webgpu.device import WebGPUDevice

    return WebGPUDevice(_adapters()[0][index])


@functools.cache
def _compiler(target: Target, index: int) -> Compiler:
    from torchport_simt import SIMTCompiler
    from torchport_simt.wgsl.spelling import spelling

    device = _device(index)
    return SIMTCompiler(target, spelling(), device.capabilities, f"{device.version} | {device.language}")


@functools.cache
def _driver(index: int) -> Driver:
    from torchport.runtime.devices import DeviceDriver
    from torchport_webgpu.kernels import build
    from torchport_webgpu.memory import WebGPUMemory

    device = _device(index)
    memory = WebGPUMemory(device)
    return DeviceDriver(memory, functools.partial(build, memory), device.capabilities.grid)


backend = WebGPUPlugin()
