"""Targets ``cuda:90`` and so on: machine code for NVIDIA GPUs, made with the tools in Triton's wheel."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.plugin import API_VERSION, Compiler, Device, Driver, Resources
from torchport.target import Target
from torchport.torch_build import built_for
from torchport.triton.compiler import TritonCompiler
from torchport.triton.driver import TritonDriver

__all__ = ["CUDAPlugin", "backend"]

# Maximum amount of shared memory per thread block, in KiB: CUDA C++ Programming Guide 13, "Technical Specifications per
# Compute Capability".
_SHARED_KIB = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 110: 227, 120: 99, 121: 99}
_BF16_FROM, _FP8_FROM = 80, 89  # first compute capability whose tensor cores or conversions support the type
_BLACKWELL = 100  # first compute capability for which Triton uses another ptxas
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


class CUDAPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "cuda"
    api_version = API_VERSION
    options: Mapping[str, Any] = MappingProxyType({})

    def devices(self) -> list[Device]:
        """The GPU of this machine, then one target for each compute capability."""
        known = [Target("cuda", (str(number),)) for number in sorted(_SHARED_KIB)]
        here = _present()
        gpus = [Device(Target("cuda", (str(here[0]),)), here[1])] if here is not None else []
        others = [target for target in known if target not in {gpu.target for gpu in gpus}]
        return [*gpus, *(Device(target, "compiles only", _ABSENT) for target in others)]

    def capabilities(self, target: Target) -> Capabilities:
        """Limits of a compute capability. Errors: CUDA C++ Programming Guide 13, "Mathematical Functions"."""
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
            atomics=frozenset({"int32", "int64", "fp16", "bf16", "fp32", "fp64"}),
            dot_shapes=(16, 16, 16),
            dot_precisions=frozenset({"ieee"} | (split if number >= _BF16_FROM else set())),
            denormals=frozenset({"fp16", "bf16", "fp32", "fp64"}),
            ulp=MappingProxyType({"div": 2.0, "sqrt": 1.0, "exp": 2.0, "log": 1.0, "rsqrt": 2.0, "erf": 2.0}),
        )

    def compiler(self, target: Target) -> Compiler:
        """Triton's own compiler. Raises TargetError if the capability is unknown or ptxas is missing."""
        number = _capability(target)
        return TritonCompiler(
            "nvidia", "cuda", number, 32, partial(_fingerprint, number, _assembler(number)), _resources
        )

    def driver(self, target: Target) -> Driver:
        """Triton's driver for the GPU of this machine. Raises TargetError if there is none of this kind."""
        here = _present()
        if here is None:
            raise TargetError(f"target {target} does not run here: {_ABSENT}")
        number = _capability(target)
        if here[0] != number:
            raise TargetError(f"target {target} is not the GPU that is here, which is cuda:{here[0]} ({here[1]})")
        return TritonDriver("cuda", _versions())


_ABSENT = (
    "PyTorch sees no NVIDIA GPU; `torchport targets` lists what runs here, `torchport build` builds for other machines"
)


def _present() -> tuple[int, str] | None:
    """Compute capability and name of PyTorch's current NVIDIA GPU; None without one.

    PyTorch is imported only where there can be one.
    """
    if built_for("cuda") is None or _cuda_driver() is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor, torch.cuda.get_device_name()


def _cuda_driver() -> ctypes.CDLL | None:
    """The library of the installed CUDA driver; None without one."""
    with contextlib.suppress(OSError):
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    return None


def _versions() -> str:
    """The CUDA versions of PyTorch and of the installed driver (CUDA driver API, cuDriverGetVersion)."""
    import torch

    version = ctypes.c_int(0)
    driver = _cuda_driver()
    if driver is not None:
        driver.cuDriverGetVersion(ctypes.byref(version))
    return f"CUDA {torch.version.cuda}, driver {version.value}"


def _fingerprint(number: int, assembler: str) -> str:
    parts = (importlib.metadata.version("triton"), assembler, str(number))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _resources(stages: Mapping[str, Any]) -> Resources:
    """The registers, spills and shared memory of a cubin, read with the cuobjdump in Triton's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(stages["cubin"])
        output = subprocess.run(
            [_tool("cuobjdump"), "--dump-resource-usage", str(file)], capture_output=True, text=True, check=True
        ).stdout
    usage = _USAGE.search(output)
    if usage is None:
        return Resources()
    registers, stack, shared, local = map(int, usage.groups())
    return Resources(registers=registers, spill_bytes=stack + local, scratchpad_bytes=shared)


def _capability(target: Target) -> int:
    """80 for ``cuda:80``; for ``cuda``, that of this machine's GPU. Raises TargetError, listing what is valid."""
    here = None if target.parts else _present()
    if here is not None:
        return here[0]
    known = ", ".join(f"cuda:{number}" for number in sorted(_SHARED_KIB))
    if len(target.parts) != 1 or not target.parts[0].isdecimal() or int(target.parts[0]) not in _SHARED_KIB:
        raise TargetError(f"target {target} names no known compute capability; valid: {known}")
    return int(target.parts[0])


def _tool(name: str) -> str:
    """The path of a program in Triton's wheel; its bare name without Triton."""
    spec = find_spec("triton")  # to import Triton takes seconds
    return str(Path(spec.origin).parent / "backends" / "nvidia" / "bin" / name) if spec and spec.origin else name


def _assembler(number: int) -> str:
    """The version text of the ptxas that Triton uses for a capability. Raises TargetError if it is missing."""
    return _version_of("ptxas-blackwell" if number >= _BLACKWELL else "ptxas")


@functools.cache
def _version_of(name: str) -> str:
    try:
        return subprocess.run([_tool(name), "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise TargetError(f"this build of Triton has no working {name} ({error}); install triton from PyPI") from error


backend = CUDAPlugin()
