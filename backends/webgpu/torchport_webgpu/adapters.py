"""The adapters of this machine: GPUs first, software last; each once, by the interface made for it."""

from __future__ import annotations

import contextlib
import os
from typing import Any

__all__ = ["adapters", "describe", "version"]

_INTERFACES = ("Vulkan", "Metal", "DX12")
"""OpenGL's adapters are the same devices again, with less."""
_ORDER = ("DiscreteGPU", "IntegratedGPU", "VirtualGPU", "CPU", "Unknown")


def adapters() -> list[Any]:
    """The adapters, best first. Raises ImportError or RuntimeError where WebGPU cannot start."""
    import wgpu
    from wgpu.backends.wgpu_native.extras import set_instance_extras

    # Mesa's layer that asks the desktop for its favourite device prints an error where there is no desktop.
    os.environ.setdefault("NODEVICE_SELECT", "1")
    with contextlib.suppress(RuntimeError):  # another library of this process has started it with its own choice
        set_instance_extras(backends=list(_INTERFACES))
    found = [a for a in wgpu.gpu.enumerate_adapters_sync() if a.info["backend_type"] in ("Vulkan", "Metal", "D3D12")]
    kinds = {kind: place for place, kind in enumerate(_ORDER)}
    return sorted(found, key=lambda adapter: kinds.get(adapter.info["adapter_type"], len(_ORDER)))


def version(adapter: Any) -> str:
    """A text that changes whenever the adapter's compiler may generate different code."""
    import wgpu

    info = adapter.info
    return " | ".join((wgpu.__version__, info["backend_type"], info["device"], info["description"]))


def describe(adapter: Any) -> str:
    """Describe an adapter in one line: its interface, limits and the parts of the language beyond every browser's."""
    info, limits = adapter.info, adapter.limits
    extra = [name.removeprefix("shader-") for name in _EXTRA if name in adapter.features]
    return (
        f"{info['device']} ({info['backend_type']}, {info['description']}), "
        f"{limits['max-storage-buffer-binding-size'] >> 20} MiB a buffer, {', '.join(extra) or 'no 64-bit types'}"
    )


_EXTRA = ("shader-int64", "shader-f64", "shader-f16", "subgroup")
