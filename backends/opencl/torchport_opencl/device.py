"""One OpenCL device: its memory, its capabilities, and the building of kernels for it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Annotated, Any, TypedDict

from torchport.capabilities import Capabilities
from torchport.container import pack, unpack
from torchport.errors import CompilationError, TorchportError
from torchport.plugin import Binary
from torchport.runtime.cache import object_cache
from torchport.runtime.devices import host_bytes
from torchport.schema import Mismatch, conform
from torchport_opencl.spelling import spelling

__all__ = ["MAX_LANES", "OpenCLMemory", "build", "capabilities", "describe", "fault", "version"]

MAX_LANES = 1024
"""The most work-items of a work-group; larger work-groups gain nothing on devices that allow them."""

# OpenCL C 1.2 specification, section 7.4, table 7.1 (single precision, full profile), in units in the last place.
_ULP = {
    "acos": 4, "acosh": 4, "asin": 4, "asinh": 4, "atan": 5, "atan2": 6, "atanh": 5, "cbrt": 2, "cos": 4, "cosh": 4,
    "cospi": 4, "div": 2.5, "erf": 16, "erfc": 16, "exp": 3, "exp2": 3, "exp10": 3, "expm1": 3, "fma": 0.5, "fmod": 0,
    "hypot": 4, "log": 3, "log2": 3, "log10": 3, "log1p": 2, "pow": 16, "remainder": 0, "rsqrt": 2, "sin": 4, "sinh": 4,
    "sinpi": 4, "sqrt": 3, "tan": 5, "tanh": 5, "tgamma": 16,
}  # fmt: skip


class _About(TypedDict):
    """What is needed of a kernel's metadata, which may come from a file."""

    lanes: Annotated[int, range(1, MAX_LANES + 1)]
    features: list[str]


class OpenCLMemory:
    """Satisfies ``torchport.runtime.devices.Memory``: one context, one queue whose commands run in order."""

    def __init__(self, device: Any) -> None:
        import pyopencl as cl

        self.device = device
        self.context = cl.Context([device])
        self.queue = cl.CommandQueue(self.context, device)

    def allocate(self, nbytes: int) -> Any:
        """Allocate a buffer at once. Raises MemoryError if the device has no room for it."""
        import pyopencl as cl

        if nbytes > self.device.max_mem_alloc_size:
            raise MemoryError(f"the device's buffers are at most {self.device.max_mem_alloc_size:,} bytes")
        try:
            buffer = cl.Buffer(self.context, cl.mem_flags.READ_WRITE, nbytes)
            # OpenCL allocates at a buffer's first use: use it now, while the caller can still free memory.
            cl.enqueue_migrate_mem_objects(self.queue, [buffer], flags=cl.mem_migration_flags.CONTENT_UNDEFINED)
        except cl.MemoryError as error:
            raise MemoryError(str(error)) from error
        except cl.Error as error:
            full = (cl.status_code.OUT_OF_RESOURCES, cl.status_code.INVALID_BUFFER_SIZE)
            if error.code not in full:
                raise TorchportError(f"{self.device.name.strip()} cannot make a buffer: {error}") from error
            raise MemoryError(str(error)) from error
        return buffer

    def release(self, buffer: Any) -> None:
        """Release a buffer; OpenCL keeps it until the commands that use it are done."""
        buffer.release()

    def upload(self, buffer: Any, address: int, nbytes: int) -> None:
        """Copy host memory to a buffer."""
        import pyopencl as cl

        cl.enqueue_copy(self.queue, buffer, host_bytes(address, nbytes), is_blocking=True)

    def download(self, address: int, buffer: Any, nbytes: int) -> None:
        """Copy a buffer to host memory."""
        import pyopencl as cl

        cl.enqueue_copy(self.queue, host_bytes(address, nbytes), buffer, is_blocking=True)


def build(memory: OpenCLMemory, binary: Binary, parameters: Sequence[str]) -> Callable[..., None]:
    """Build a kernel; returns a function that enqueues it.

    Raises CompilationError with the vendor's log, or if the device runs no work-group of this size.
    """
    import numpy as np
    import pyopencl as cl

    try:
        known = conform(dict(binary.metadata), _About)
    except Mismatch as error:
        reason = f"kernel {binary.symbol[:80]} was not compiled for OpenCL: {error}"
        raise CompilationError(reason, kernel=binary.symbol, stage="load") from error
    lanes = known["lanes"]
    kernel = cl.Kernel(_program(memory, binary, lanes), binary.symbol)
    fits = kernel.get_work_group_info(cl.kernel_work_group_info.WORK_GROUP_SIZE, memory.device)
    if lanes > fits:
        raise CompilationError(
            f"kernel {binary.symbol} has {lanes} work-items in a work-group, {memory.device.name.strip()} runs it with "
            f"at most {fits}; make its blocks smaller",
            kernel=binary.symbol,
            stage="load",
        )
    scalars = {
        "buffer": None, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "u8": np.uint8,
        "u16": np.uint16, "u32": np.uint32, "u64": np.uint64, "fp32": np.float32, "fp64": np.float64,
    }  # fmt: skip
    kernel.set_scalar_arg_dtypes([scalars[type_] for type_ in parameters])
    queue, local = memory.queue, (lanes, 1, 1)
    prints = "printf" in known["features"]

    def launch(grid: tuple[int, int, int], arguments: Sequence[Any]) -> None:
        try:
            kernel(queue, (grid[0] * lanes, grid[1], grid[2]), local, *arguments)
            if prints:
                queue.finish()
                ctypes.CDLL(None).fflush(None)  # drivers print through the C library, which buffers lines
        except cl.Error as error:
            raise TorchportError(f"kernel {binary.symbol} cannot be launched over {grid}: {error}") from error

    return launch


def _program(memory: OpenCLMemory, binary: Binary, lanes: int) -> Any:
    """The program of a kernel, from the cache if the same device and driver have built it before."""
    import pyopencl as cl

    source = spelling().program(binary.data.decode(), lanes, int(binary.metadata.get("width", 0)))
    options = _options(memory.device)
    key = hashlib.sha256("\0".join((source, version(memory.device), *options)).encode()).hexdigest()
    packed = object_cache().get(key)
    if packed is not None:
        try:
            return cl.Program(memory.context, [memory.device], [unpack(packed)[1]]).build(options)
        except cl.Error:
            packed = None  # made by another driver that reports the same version: build it again
    try:
        program = cl.Program(memory.context, source).build(options, cache_dir=False)  # pyopencl's cache holds pickles
    except (cl.Error, RuntimeError) as error:
        raise CompilationError(
            f"{memory.device.name.strip()} does not build kernel {binary.symbol}: {_errors_in(error)}",
            kernel=binary.symbol,
            stage="opencl",
        ) from error
    if not _keeps_binaries(memory.device):
        image = bytes(program.get_info(cl.program_info.BINARIES)[0])
        if image:
            object_cache().put(key, pack({"device": memory.device.name.strip(), "symbol": binary.symbol}, image))
    return program


def _keeps_binaries(device: Any) -> bool:
    """Whether the driver has its own cache on disk.

    PoCL has one. Asked for a binary, it compiles the kernel again for work-groups of any size, which takes ten times as
    long as the build for the size in use.
    """
    return "PoCL" in device.platform.version


def _errors_in(error: Exception) -> str:
    """The lines of a build log that report errors, at most three."""
    lines = [line.strip() for line in str(error).splitlines() if "error:" in line] or str(error).strip().splitlines()
    return "; ".join(lines[:3])


def _options(device: Any) -> tuple[str, ...]:
    """Compiler options: division and square root are rounded correctly if the device can do so.

    Warnings are for who wrote the code: PoCL's tell of vectors that its own functions take.
    """
    return ("-cl-std=CL1.2", "-w", *(["-cl-fp32-correctly-rounded-divide-sqrt"] if _rounds_correctly(device) else []))


def _rounds_correctly(device: Any) -> bool:
    import pyopencl as cl

    return bool(device.single_fp_config & cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT)


@functools.lru_cache(maxsize=64)
def version(device: Any) -> str:
    """A text that changes whenever the device's compiler may generate different code."""
    platform = device.platform
    parts = (platform.name, platform.version, device.name, device.version, device.driver_version)
    return " | ".join(part.strip() for part in parts)


def describe(device: Any) -> str:
    """Describe a device in one line."""
    return (
        f"{device.name.strip()} ({device.platform.name.strip()}, {device.version.strip()}), "
        f"{device.max_compute_units} compute units, {device.global_mem_size / 2**30:.1f} GiB"
    )


_PROMOTED = ("fp16", "bf16", "fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16")
"""Types that are stored unchanged and computed with in fp32, whether the device has cl_khr_fp16 or not."""


def capabilities(device: Any) -> Capabilities:
    """The capabilities that a device reports."""
    import pyopencl as cl

    extensions = set(device.extensions.split())
    double = "cl_khr_fp64" in extensions
    wide_atomics = "cl_khr_int64_base_atomics" in extensions
    fp = device.single_fp_config
    denormal = (
        {"fp16", "bf16"} | ({"fp32"} if fp & cl.device_fp_config.DENORM else set()) | ({"fp64"} if double else set())
    )
    is_cpu = bool(device.type & cl.device_type.CPU)
    width = _width(device, is_cpu)
    most = min(MAX_LANES, device.max_work_group_size, device.max_work_item_sizes[0])
    exact = {"div": 0.5, "sqrt": 0.5} if _rounds_correctly(device) else {}
    return Capabilities(
        simd_width=width,
        simd_groups=tuple(1 << i for i in range(11) if width << i <= most) or (1,),
        lane_elements=1 if is_cpu else 4,
        vector_lanes=is_cpu and width in (4, 8, 16),
        simd_registers=8 if is_cpu and width == 16 and _lacks_avx512(device) else 0,
        block_elements=width * 32 if is_cpu else most * 8,
        grid=(2**31 // most - 1, 65535, 65535),  # some drivers count the work-items of a dimension in 32 bits
        scratchpad_bytes=device.local_mem_size,
        dtypes=frozenset(
            {"int1", "int8", "int16", "int32", "int64", "fp32", *_PROMOTED} | ({"fp64"} if double else set())
        ),
        promoted=MappingProxyType(dict.fromkeys(_PROMOTED, "fp32")),
        atomics=frozenset(
            {"int32", "fp32", "fp16", "bf16"}
            | ({"int64"} if wide_atomics else set())
            | ({"fp64"} if wide_atomics and double else set())
        ),
        dot_precisions=frozenset({"ieee", "tf32", "tf32x3", "bf16x3", "bf16x6"}),
        denormals=frozenset(denormal),
        fma=bool(fp & cl.device_fp_config.FMA),
        rounding="rne" if fp & cl.device_fp_config.ROUND_TO_NEAREST else "rtz",
        ulp=MappingProxyType({**_ULP, **exact}),
    )


_PROBE = """
#if defined(__x86_64__) && !defined(__AVX512F__)
__kernel void lacks_avx512(void) {}
#else
__kernel void may_have_avx512(void) {}
#endif
"""


def fault(device: Any) -> str:
    """Why the device's driver compiles nothing here; empty if it does."""
    import pyopencl as cl

    from torchport_opencl.pocl import give_known_cpu, lacks_cpu

    if not device.type & cl.device_type.CPU:
        return ""  # a GPU's driver is made for the GPU
    try:
        try:
            _probed(device)
        except cl.Error as error:
            if not (lacks_cpu(device, str(error)) and give_known_cpu(device)):
                raise
            _probed(device)
    except cl.Error as error:
        reason = next((line for line in str(error).splitlines() if "error:" in line), str(error).splitlines()[0])
        return (
            f"{device.platform.version.strip()} compiles nothing for this CPU ({reason.strip()}): install another "
            "OpenCL driver (docs/device.md), or use the target cpu"
        )
    return ""


@functools.cache
def _probed(device: Any) -> str:
    """The names of the probe's kernels. Raises pyopencl.Error where it does not compile."""
    import pyopencl as cl

    program = cl.Program(cl.Context([device]), _PROBE).build(cache_dir=False)
    return str(program.get_info(cl.program_info.KERNEL_NAMES))


def _lacks_avx512(device: Any) -> bool:
    """Whether a driver compiles for x86 without AVX-512, though the CPU may have it: PoCL 3.0's LLVM knows no Zen 4.

    A vector of 16 f32 is two of AVX2's 16 registers then.
    """
    return "lacks_avx512" in _probed(device)


def _width(device: Any, is_cpu: bool) -> int:
    """Work-items that run in lockstep: a CPU's vector width, what a vendor's extension reports, or 32."""
    if is_cpu:
        return max(1, int(device.native_vector_width_float))
    import pyopencl as cl

    for name in ("warp_size_nv", "wavefront_width_amd"):
        try:
            return int(getattr(device, name))
        except (cl.Error, AttributeError):
            continue  # an extension of another vendor
    return 32
