"""Targets ``hip:gfx942`` and so on: machine code for AMD GPUs, made with the LLVM in Triton's wheel."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.plugin import API_VERSION, Compiler, Device, Driver, Resources
from torchport.target import Target
from torchport.torch_build import built_for
from torchport.triton.compiler import TritonCompiler
from torchport.triton.driver import TritonDriver

__all__ = ["HIPPlugin", "backend"]


@dataclass(frozen=True)
class _Chip:
    """What differs between the chips.

    wavefront: lanes of a wavefront.
    lds_kib: KiB of local memory (local data share) of a work-group.
    fp8: the fp8 types that the chip has conversion instructions for.
    dots: further precisions of ``tl.dot``.
    """

    wavefront: int
    lds_kib: int
    fp8: frozenset[str] = frozenset()
    dots: frozenset[str] = frozenset()


# LLVM, "User Guide for AMDGPU Backend", processors and their wavefront sizes; AMD's ISA guides for CDNA 3, CDNA 4 and
# RDNA 3, sections on the local data share and on 8-bit floats. xf32 products are instructions of CDNA 3 alone.
_CHIPS = {
    "gfx90a": _Chip(64, 64),
    "gfx942": _Chip(64, 64, frozenset({"fp8e4b8", "fp8e5b16"}), frozenset({"tf32"})),
    "gfx950": _Chip(64, 160, frozenset({"fp8e4nv", "fp8e5"})),
    "gfx1100": _Chip(32, 64),
    "gfx1201": _Chip(32, 64, frozenset({"fp8e4nv", "fp8e5"})),
}
_DIRECTIVE = re.compile(r"^\s*\.(vgpr_count|private_segment_fixed_size|group_segment_fixed_size):\s*(\d+)", re.M)


class HIPPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "hip"
    api_version = API_VERSION
    options: Mapping[str, Any] = MappingProxyType({})

    def devices(self) -> list[Device]:
        """The GPU of this machine, then one target for each architecture."""
        here = _present()
        gpus = [Device(Target("hip", (here[0],)), here[1])] if here is not None else []
        known = [Target("hip", (name,)) for name in _CHIPS]
        others = [target for target in known if target not in {gpu.target for gpu in gpus}]
        return [*gpus, *(Device(target, "compiles only", _ABSENT) for target in others)]

    def capabilities(self, target: Target) -> Capabilities:
        """Limits of an architecture. Errors of functions: HIP documentation, "HIP math API", maximum ULP errors."""
        chip = _CHIPS[_architecture(target)]
        dtypes = {"int1", "int8", "int16", "int32", "int64", "fp16", "fp32", "fp64", "bf16"}
        return Capabilities(
            simd_width=chip.wavefront,
            simd_groups=(1, 2, 4, 8, 16),
            block_elements=4096,
            grid=(2**31 - 1, 65535, 65535),
            scratchpad_bytes=chip.lds_kib * 1024,
            dtypes=frozenset(dtypes | chip.fp8),
            atomics=frozenset({"int32", "int64", "fp16", "bf16", "fp32", "fp64"}),
            dot_shapes=(16, 16, 16),
            dot_precisions=frozenset({"ieee", "bf16x3", "bf16x6"} | chip.dots),
            denormals=frozenset({"fp16", "bf16", "fp32", "fp64"}),
            ulp=MappingProxyType({"exp": 1.0, "log": 2.0, "erf": 4.0}),
        )

    def compiler(self, target: Target) -> Compiler:
        """Triton's own compiler. Raises TargetError for an unknown architecture."""
        name = _architecture(target)
        return TritonCompiler("amd", "hip", name, _CHIPS[name].wavefront, partial(_fingerprint, name), _resources)

    def driver(self, target: Target) -> Driver:
        """Triton's driver for the GPU of this machine. Raises TargetError if there is none of this kind."""
        here = _present()
        if here is None:
            raise TargetError(f"target {target} does not run here: {_ABSENT}")
        name = _architecture(target)
        if here[0] != name:
            raise TargetError(f"target {target} is not the GPU that is here, which is hip:{here[0]} ({here[1]})")
        return TritonDriver("cuda", f"ROCm {built_for('hip')}")  # "cuda" is PyTorch's name for AMD GPUs, too


_ABSENT = (
    "PyTorch sees no AMD GPU; `torchport targets` lists what runs here, `torchport build` builds for other machines"
)


def _present() -> tuple[str, str] | None:
    """Architecture and name of PyTorch's current AMD GPU; None without one.

    PyTorch is imported only where there can be one.
    """
    if built_for("hip") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties()
    return properties.gcnArchName.split(":")[0], properties.name


def _fingerprint(name: str) -> str:
    parts = (importlib.metadata.version("triton"), name)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _resources(stages: Mapping[str, Any]) -> Resources:
    """The registers, spills and local memory, from the metadata at the end of the assembly.

    Scalar registers spill to lanes of vector registers; what goes to memory is the private segment.
    """
    usage = {name: int(value) for name, value in _DIRECTIVE.findall(stages["amdgcn"])}
    return Resources(
        registers=usage.get("vgpr_count"),
        spill_bytes=usage.get("private_segment_fixed_size", 0),
        scratchpad_bytes=usage.get("group_segment_fixed_size", 0),
    )


def _architecture(target: Target) -> str:
    """``gfx942`` for ``hip:gfx942``; for ``hip``, this machine's GPU. Raises TargetError, listing what is valid."""
    here = None if target.parts else _present()
    if here is not None and here[0] in _CHIPS:
        return here[0]
    if len(target.parts) != 1 or target.parts[0] not in _CHIPS:
        known = ", ".join(f"hip:{name}" for name in _CHIPS)
        raise TargetError(f"target {target} names no known architecture; valid: {known}")
    return target.parts[0]


backend = HIPPlugin()
