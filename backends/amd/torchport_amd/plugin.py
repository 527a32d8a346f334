"""``hip:gfx942`` and its like: machine code for AMD GPUs, made with the LLVM inside Triton's wheel."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.plugin import API_VERSION, Launcher, Resources
from torchport.target import Target

__all__ = ["HIPPlugin", "backend"]


@dataclass(frozen=True)
class _Chip:
    """Wavefront size, local data share of a work-group in KiB, and whether fp8 conversions are instructions."""

    wavefront: int
    lds_kib: int
    fp8: frozenset[str] = frozenset()


# LLVM, "User Guide for AMDGPU Backend", processors and their wavefront sizes; AMD's ISA guides for CDNA 3, CDNA 4 and
# RDNA 3, sections on the local data share and on 8-bit floats.
_CHIPS = {
    "gfx90a": _Chip(64, 64),
    "gfx942": _Chip(64, 64, frozenset({"fp8e4b8", "fp8e5b16"})),
    "gfx950": _Chip(64, 160, frozenset({"fp8e4nv", "fp8e5"})),
    "gfx1100": _Chip(32, 64),
    "gfx1201": _Chip(32, 64, frozenset({"fp8e4nv", "fp8e5"})),
}
_DIRECTIVE = re.compile(r"^\s*\.(vgpr_count|vgpr_spill_count|sgpr_spill_count|group_segment_fixed_size):\s*(\d+)", re.M)


class HIPPlugin:
    """Satisfies ``torchport.plugin.Backend``. It compiles; kernels are not launched by torchport yet."""

    name = "hip"
    api_version = API_VERSION
    device = "cuda"  # what PyTorch calls AMD GPUs
    launches = False
    inductor_options: Mapping[str, Any] = MappingProxyType({})

    def fingerprint(self, target: Target) -> str:
        """Hash of Triton's version and the architecture. Raises TargetError for one that is not known."""
        parts = (importlib.metadata.version("triton"), _architecture(target))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def capabilities(self, target: Target) -> Capabilities:
        """Limits of an architecture."""
        chip = _CHIPS[_architecture(target)]
        dtypes = {"int1", "int8", "int16", "int32", "int64", "fp16", "fp32", "fp64", "bf16"}
        return Capabilities(
            simd_width=chip.wavefront,
            simd_groups=(1, 2, 4, 8, 16),
            block_elements=4096,
            grid=(2**31 - 1, 65535, 65535),
            scratchpad_bytes=chip.lds_kib * 1024,
            dtypes=frozenset(dtypes | chip.fp8),
            dot_precisions=frozenset({"ieee", "bf16x3", "bf16x6"}),
            denormals=frozenset({"fp16", "bf16", "fp32", "fp64"}),
        )

    def triton_target(self, target: Target) -> tuple[str, str, int]:
        """Triton's backend, architecture and wavefront size."""
        name = _architecture(target)
        return "hip", name, _CHIPS[name].wavefront

    def resources(self, stages: Mapping[str, Any]) -> Resources:
        """Registers, spills and local memory, from the metadata at the end of the assembly."""
        found = {name: int(value) for name, value in _DIRECTIVE.findall(stages["amdgcn"])}
        spilled = found.get("vgpr_spill_count", 0) + found.get("sgpr_spill_count", 0)
        return Resources(
            registers=found.get("vgpr_count"),
            spill_bytes=4 * spilled,
            scratchpad_bytes=found.get("group_segment_fixed_size", 0),
        )

    def load(self, packed: bytes, types: Sequence[str]) -> tuple[Launcher, int]:
        """Raises TargetError: kernels for GPUs are built for another machine, or run by Inductor itself."""
        raise TargetError(
            "torchport compiles for AMD GPUs but does not launch there yet; build for them with `torchport build`, "
            'or run ROCm tensors with torch.compile(backend="inductor")'
        )

    def targets(self) -> list[Target]:
        """One for each architecture."""
        return [Target("hip", (name,)) for name in _CHIPS]

    def describe(self, target: Target) -> str:
        """What it is good for, on one line."""
        return f"offline: {', '.join(map(str, self.targets()))}"


def _architecture(target: Target) -> str:
    """``gfx942`` of ``hip:gfx942``. Raises TargetError, listing those there are."""
    if len(target.parts) != 1 or target.parts[0] not in _CHIPS:
        known = ", ".join(f"hip:{name}" for name in _CHIPS)
        raise TargetError(f"target {target} names no architecture that is known; valid: {known}")
    return target.parts[0]


backend = HIPPlugin()
