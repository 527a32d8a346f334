"""The CPU as one of torchport's backends."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.pipeline import Pass
from torchport.plugin import API_VERSION, Launcher, Resources
from torchport.target import Target

__all__ = ["CPUPlugin", "backend"]


class CPUPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "cpu"
    api_version = API_VERSION
    device = "cpu"
    launches = True
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

    def capabilities(self, target: Target) -> Capabilities:
        """What this machine's CPU can do. A program instance runs on one thread, its blocks are loops: no limit but
        Triton's own.
        """
        from torchport_cpu.host import host_info

        floats = {"fp16", "bf16", "fp32", "fp64", "fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16", "fp8e4b15"}
        return Capabilities(
            simd_width=host_info().vector_bits // 32,
            simd_groups=(1,),
            block_elements=1 << 20,
            grid=(2**31 - 1, 2**31 - 1, 2**31 - 1),
            scratchpad_bytes=0,
            dtypes=frozenset({"int1", "int8", "int16", "int32", "int64"} | floats),
            dot_precisions=frozenset({"ieee", "tf32", "tf32x3", "bf16x3", "bf16x6"}),
            denormals=frozenset(floats),
        )

    def triton_target(self, target: Target) -> tuple[str, str, int]:
        """Triton's backend, machine and SIMD width: one "thread" a warp."""
        return "cpu", platform.machine(), 1

    def resources(self, stages: Mapping[str, Any]) -> Resources:
        """Nothing is counted: a CPU's registers spill to its stack, which is its first-level cache."""
        return Resources()

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

    def targets(self) -> list[Target]:
        """This machine's CPU, by its short and its full name."""
        from torchport_cpu.host import host_info

        return [Target("cpu"), Target("cpu", tuple(host_info().arch.split("-")))]

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
