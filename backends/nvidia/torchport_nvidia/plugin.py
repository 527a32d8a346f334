"""``cuda:90`` and its like: machine code for NVIDIA GPUs, made with the tools inside Triton's wheel."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.plugin import API_VERSION, Launcher, Resources
from torchport.target import Target

__all__ = ["CUDAPlugin", "backend"]

# Shared memory a block can have, in KiB: CUDA C++ Programming Guide 13, "Technical Specifications per Compute
# Capability", the row on the maximum amount of shared memory per thread block.
_SHARED_KIB = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 110: 227, 120: 99, 121: 99}
_BF16_FROM, _FP8_FROM = 80, 89  # compute capabilities whose tensor cores or conversions know the type
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


class CUDAPlugin:
    """Satisfies ``torchport.plugin.Backend``. It compiles; kernels are not launched by torchport yet."""

    name = "cuda"
    api_version = API_VERSION
    device = "cuda"
    launches = False
    inductor_options: Mapping[str, Any] = MappingProxyType({})

    def fingerprint(self, target: Target) -> str:
        """Hash of Triton's version, its assembler and the architecture. Raises TargetError as ``_capability`` does."""
        parts = (importlib.metadata.version("triton"), _assembler(), str(_capability(target)))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def capabilities(self, target: Target) -> Capabilities:
        """Limits of a compute capability."""
        number = _capability(target)
        split = {"tf32", "tf32x3", "bf16x3", "bf16x6"}
        dtypes = {"int1", "int8", "int16", "int32", "int64", "fp16", "fp32", "fp64", "bf16", "fp8e5"}
        if number >= _FP8_FROM:
            dtypes.add("fp8e4nv")
        return Capabilities(
            simd_width=32,
            simd_groups=(1, 2, 4, 8, 16, 32),
            block_elements=4096,
            grid=(2**31 - 1, 65535, 65535),
            scratchpad_bytes=_SHARED_KIB[number] * 1024,
            dtypes=frozenset(dtypes),
            dot_precisions=frozenset({"ieee"} | (split if number >= _BF16_FROM else set())),
            denormals=frozenset({"fp16", "bf16", "fp32", "fp64"}),
        )

    def triton_target(self, target: Target) -> tuple[str, int, int]:
        """Triton's backend, compute capability and warp size."""
        return "cuda", _capability(target), 32

    def resources(self, stages: Mapping[str, Any]) -> Resources:
        """Registers, spills and shared memory of a cubin, read with the cuobjdump in Triton's wheel."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "kernel.cubin"
            file.write_bytes(stages["cubin"])
            shown = subprocess.run(
                [_tool("cuobjdump"), "--dump-resource-usage", str(file)], capture_output=True, text=True, check=True
            ).stdout
        found = _USAGE.search(shown)
        if found is None:
            return Resources()
        registers, stack, shared, local = map(int, found.groups())
        return Resources(registers=registers, spill_bytes=stack + local, scratchpad_bytes=shared)

    def load(self, packed: bytes, types: Sequence[str]) -> tuple[Launcher, int]:
        """Raises TargetError: kernels for GPUs are built for another machine, or run by Inductor itself."""
        raise TargetError(
            "torchport compiles for NVIDIA GPUs but does not launch there yet; build for them with `torchport build`, "
            'or run CUDA tensors with torch.compile(backend="inductor")'
        )

    def targets(self) -> list[Target]:
        """One for each compute capability."""
        return [Target("cuda", (str(number),)) for number in sorted(_SHARED_KIB)]

    def describe(self, target: Target) -> str:
        """What it is good for, on one line."""
        return f"offline: {', '.join(map(str, self.targets()))}"


def _capability(target: Target) -> int:
    """80 of ``cuda:80``. Raises TargetError, listing those there are."""
    known = ", ".join(f"cuda:{number}" for number in sorted(_SHARED_KIB))
    if len(target.parts) != 1 or not target.parts[0].isdecimal() or int(target.parts[0]) not in _SHARED_KIB:
        raise TargetError(f"target {target} names no compute capability that is known; valid: {known}")
    return int(target.parts[0])


def _tool(name: str) -> str:
    import triton.backends.nvidia

    return str(Path(triton.backends.nvidia.__file__).parent / "bin" / name)


@functools.cache
def _assembler() -> str:
    """What ptxas says of itself. Raises TargetError where this build of Triton has none."""
    try:
        return subprocess.run([_tool("ptxas"), "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise TargetError(f"this build of Triton has no working ptxas ({error}); install triton from PyPI") from error


backend = CUDAPlugin()
