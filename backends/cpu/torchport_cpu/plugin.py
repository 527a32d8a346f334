"""The CPU as one of torchport's backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torchport.errors import TargetError
from torchport.pipeline import Pass
from torchport.plugin import API_VERSION, Launcher
from torchport.target import Target

__all__ = ["CPUPlugin", "backend"]


class CPUPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "cpu"
    api_version = API_VERSION
    device = "cpu"
    inductor_options: Mapping[str, Any] = MappingProxyType({"cpu_backend": "triton"})

    def __init__(self) -> None:
        self._loaded: list[Any] = []  # code that has been handed out stays linked

    def fingerprint(self, target: Target) -> str:
        """Hash of all that the machine code depends on.

        Raises TargetError where ``target`` names another CPU than this machine's.
        """
        from torchport_cpu.fingerprint import fingerprint
        from torchport_cpu.host import host_info

        machine, vectors = host_info().arch.split("-")
        if target.parts not in ((), (machine,), (machine, vectors)):
            raise TargetError(
                f"target {target} does not fit this machine; valid here: cpu, cpu:{machine}, cpu:{machine}:{vectors}"
            )
        return fingerprint()

    def load(self, packed: bytes, types: Sequence[str]) -> tuple[Launcher, int]:
        """Link a compiled kernel; returns its launcher and its address."""
        from torchport.runtime import launcher as native
        from torchport.runtime.container import unpack
        from torchport_cpu import codegen

        metadata, image = unpack(packed)
        loaded = codegen.load(image, metadata["symbol"], metadata["imports"])
        self._loaded.append(loaded)
        signature, positions = native.flatten_signature(types)
        name, cost, info = metadata["name"], metadata["tp_cost"], metadata["tp_sanitizer"]
        if info is not None:
            from torchport.runtime.sanitizer.launch import SanitizedLauncher

            return SanitizedLauncher(name, signature, positions, cost, info), loaded.address
        return native.Launcher(name, signature, positions, cost, metadata["tp_serial"]), loaded.address

    def describe(self, target: Target) -> str:
        """This machine's CPU on one line, for ``torchport targets`` and ``torchport doctor``."""
        from torchport_cpu.host import host_info

        host = host_info()
        return f"{host.cpu}, {host.arch}, {host.vector_bits}-bit vectors"

    def pipeline(self, target: Target) -> list[Pass]:
        """The passes from imported TTIR to the llvm dialect on this machine, for ``torchport opt``."""
        from torchport_cpu.host import host_info
        from torchport_cpu.pipeline import passes

        return passes(host_info())


backend = CPUPlugin()
