"""The CPU as one of torchport's backends."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.listing import Listing
from torchport.pipeline import Pass
from torchport.plugin import API_VERSION, Binary, Compiler, Device, Driver, Launcher
from torchport.target import Target
from torchport.triton.compiler import TritonCompiler

if TYPE_CHECKING:
    from torchport_cpu.host import HostInfo

__all__ = ["CPUPlugin", "backend"]

_ULP = {
    "div": 0.5, "sqrt": 0.5, "rsqrt": 0.51, "exp": 0.9, "exp2": 0.9, "log": 0.9, "log2": 1.0, "tanh": 0.9, "erf": 0.9,
    "sin": 1.0, "cos": 1.0, "tan": 1.0, "pow": 1.0, "expm1": 1.0, "log1p": 1.0, "atan2": 1.0, "log10": 1.0,
}  # fmt: skip
"""Errors of fp32 functions, rounded up from docs/math.md."""


class CPUDevice:
    """Satisfies ``torchport.plugin.Driver``: links kernels into this process."""

    device = "cpu"
    stock = False

    def __init__(self) -> None:
        self._loaded: list[Any] = []  # keeps code linked whose address has been returned

    def load(self, binary: Binary, types: Sequence[str]) -> tuple[Launcher, int]:
        """Link a compiled kernel; returns its launcher and its address. Raises as ``open_object`` and ``load`` do."""
        from torchport.runtime import launcher as native
        from torchport_cpu import codegen
        from torchport_cpu.objects import open_object

        signature, positions = native.flatten_signature(types)
        metadata, image = open_object(binary.data, signature)
        loaded = codegen.load(image, metadata["symbol"], metadata["imports"])
        self._loaded.append(loaded)
        name, cost, info = metadata["name"], metadata["tp_cost"], metadata["tp_sanitizer"]
        if info is not None:
            from torchport.runtime.sanitizer.launch import SanitizedLauncher

            return SanitizedLauncher(name, signature, positions, cost, info), loaded.address
        return native.Launcher(name, signature, positions, cost, metadata["tp_serial"]), loaded.address


class CPUPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "cpu"
    api_version = API_VERSION
    options: Mapping[str, Any] = MappingProxyType({"cpu_backend": "triton"})

    def __init__(self) -> None:
        self._driver = CPUDevice()

    def devices(self) -> list[Device]:
        """This machine's CPU."""
        from torchport_cpu.host import host_info

        host = host_info()
        return [Device(Target("cpu"), f"{host.cpu}, {host.arch}, {host.vector_bits}-bit vectors")]

    def capabilities(self, target: Target) -> Capabilities:
        """Capabilities of this machine's CPU, or of a level.

        A program instance runs on one thread and its blocks are loops, so the only limits are Triton's. Errors of
        functions: docs/math.md.
        """
        from torchport_cpu.measured import measured

        host = _host_of(target)
        facts = measured(host)
        floats = {"fp16", "bf16", "fp32", "fp64", "fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16", "fp8e4b15"}
        return Capabilities(
            simd_width=host.vector_bits // 32,
            simd_groups=(1,),
            block_elements=1 << 20,
            grid=(2**31 - 1, 2**31 - 1, 2**31 - 1),
            scratchpad_bytes=0,
            dtypes=frozenset({"int1", "int8", "int16", "int32", "int64"} | floats),
            promoted=MappingProxyType(dict.fromkeys(sorted(floats - {"fp32", "fp64"}), "fp32")),
            atomics=frozenset({"int32", "int64", "fp16", "bf16", "fp32", "fp64"}),
            dot_precisions=frozenset({"ieee", "tf32", "tf32x3", "bf16x3", "bf16x6"}),
            fast_products=facts.fast_products,
            few_products=facts.few_products,
            ragged_products=facts.ragged_products,
            distant_streams=facts.distant_streams,
            fast_pairs=facts.fast_pairs,
            bf16_pairs=host.bf16_pairs,
            denormals=frozenset(floats),
            ulp=MappingProxyType(_ULP),
        )

    def compiler(self, target: Target) -> Compiler:
        """Triton's ``cpu`` target: for this CPU, or for a level. Raises TargetError for another kind of machine."""
        from torchport_cpu.fingerprint import fingerprint
        from torchport_cpu.levels import LevelCompiler

        host, machine = _host_of(target), platform.machine()
        listing = partial(_listing, host)
        if len(target.parts) < 2:
            return TritonCompiler("cpu", "cpu", machine, 1, fingerprint, pipeline=_passes, listing=listing)
        return LevelCompiler("cpu", "cpu", machine, 1, fingerprint, pipeline=_passes, listing=listing, host=host)

    def driver(self, target: Target) -> Driver:
        """This machine's CPU. Raises TargetError for a level that it has not."""
        from torchport_cpu.levels import has_level

        _host_of(target)
        if len(target.parts) == 2 and not has_level(target.parts[1]):
            raise TargetError(f"target {target} does not run here: this CPU lacks instructions of that level")
        return self._driver


def _host_of(target: Target) -> HostInfo:
    """The CPU that code for ``target`` is compiled for: this machine's, or that of a level. Raises TargetError."""
    from torchport_cpu.host import host_info
    from torchport_cpu.levels import level, levels

    host = host_info()
    machine = host.arch.split("-", 1)[0]
    match target.parts:
        case () | (_,) if target.parts in ((), (machine,)):
            return host
        case (kind, name) if kind == machine and name in levels():
            return level(name)
        case _:
            valid = ", ".join(f"cpu:{machine}:{name}" for name in levels())
            raise TargetError(
                f"target {target} does not fit this machine; valid here: cpu and cpu:{machine} for this CPU, {valid} "
                "for every CPU of a level"
            )


def _passes() -> list[Pass]:
    """The passes from imported TTIR to the llvm dialect on this machine."""
    from torchport_cpu.host import host_info
    from torchport_cpu.pipeline import passes

    return passes(host_info())


def _listing(host: HostInfo, ttir: str, stage: str, arithmetic: str = "") -> Listing:
    """As ``torchport.listing.Lists.listing``, for a CPU."""
    from torchport_cpu.host import compiling_for
    from torchport_cpu.listed import listing

    with compiling_for(host):
        return listing(ttir, stage, arithmetic)


backend = CPUPlugin()
