"""Triton's driver for the CPU: names the target; loads, launches and times kernels."""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from torchport.runtime.sanitizer import install

if TYPE_CHECKING:
    import torch

__all__ = ["CPUDriver"]

install()  # does nothing unless TORCHPORT_SANITIZE is set; Triton imports this module before the first kernel

_NO_LIMIT = 2**30  # threads of a block, bytes of shared memory, registers: a CPU kernel has no such limits
_REGISTERS = 1  # per thread; not 0, because authors of kernels divide by it to find how many programs fit

_being_made = threading.local()  # digest: of the kernel whose launcher was made last; Triton loads the kernel next


class CPUUtils:
    """Loads compiled kernels for Triton's CompiledKernel.

    Code is loaded once and stays: if several threads launch a kernel for the first time at once, each loads it and
    Triton drops all but the last, while the others may be running.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[str, Any] = {}

    def load_binary(self, name: str, kernel: bytes, shared: int, device: str) -> tuple[Any, int, int, int, int]:
        """Load a compiled kernel; returns (module, function address, registers, spills, threads of a block).

        Raises CompilationError if the bytes are damaged, another kernel's or for another CPU, or a symbol is missing.
        """
        from torchport.errors import CompilationError
        from torchport_cpu import codegen
        from torchport_cpu.objects import open_object

        digest = hashlib.sha256(kernel).hexdigest()
        expected = _being_made.__dict__.pop("digest", digest)
        with self._lock:
            loaded = self._loaded.get(digest) if digest == expected else None
            if loaded is None:
                try:
                    if digest != expected:
                        raise CompilationError("it is not the one that was compiled")
                    metadata, image = open_object(kernel)
                except CompilationError as error:
                    raise CompilationError(
                        f"the cached kernel {name} is damaged or another one's ({error}); remove Triton's cache "
                        "directory (TRITON_CACHE_DIR, by default ~/.triton/cache) and run again",
                        kernel=name,
                        stage="load",
                    ) from error
                loaded = self._loaded[digest] = codegen.load(image, metadata["symbol"], metadata["imports"])
        return loaded, loaded.address, _REGISTERS, 0, _NO_LIMIT

    def get_device_properties(self, device: str) -> dict[str, int]:
        """Properties of a device that Triton and authors of kernels use to size grids."""
        import torch

        return {
            "max_shared_mem": _NO_LIMIT,
            "max_num_regs": _NO_LIMIT,
            "multiprocessor_count": torch.get_num_threads(),
            "warpSize": 1,
        }


def make_launcher(src: Any, metadata: Any) -> Callable[..., None]:
    """The launcher of a kernel.

    src: Triton's source object, which has the signature.
    metadata: what the compiler's stages noted.
    """
    from torchport.runtime.descriptors import decompose_descriptors
    from torchport.runtime.launcher import Launcher, flatten_signature

    types, unpack_arguments = decompose_descriptors(list(src.signature.values()))
    signature, positions = flatten_signature(types)
    if not knobs.compilation.override:  # which puts other files in the place of those that were compiled
        _being_made.digest = metadata.tp_object
    launcher: Callable[..., None]
    if metadata.tp_sanitizer is None:
        launcher = Launcher(metadata.name, signature, positions, metadata.tp_cost, metadata.tp_serial)
    else:
        from torchport.runtime.sanitizer.launch import SanitizedLauncher

        launcher = SanitizedLauncher(metadata.name, signature, positions, metadata.tp_cost, metadata.tp_sanitizer)
    return launcher if unpack_arguments is None else unpack_arguments(launcher)


class CPUDriver(DriverBase):
    """The CPU as a Triton device."""

    launcher_cls: Callable[[Any, Any], Callable[..., None]] = staticmethod(make_launcher)

    def __init__(self) -> None:
        super().__init__()
        self.utils = CPUUtils()

    @classmethod
    def is_active(cls) -> bool:
        """Whether no other driver is active: Triton takes exactly one, and a GPU's comes first."""
        from triton.backends import backends

        return not any(b.driver.is_active() for b in backends.values() if not issubclass(b.driver, CPUDriver))

    def map_python_to_cpp_type(self, ty: str) -> str:
        """The C++ type that an argument of Triton type ``ty`` has in an ahead-of-time launcher."""
        if ty[0] == "*":
            return "void*"
        floats = {"fp16": "float", "bf16": "float", "fp32": "float", "f32": "float", "fp64": "double"}
        if ty in floats:
            return floats[ty]
        if ty in ("i1", "u1"):
            return "bool"
        return f"{'u' if ty[0] == 'u' else ''}int{int(ty[1:])}_t"

    def get_current_target(self) -> GPUTarget:
        """The host as a Triton target. A warp has one "thread": a program instance runs on one CPU thread.

        The architecture is only the machine's: Inductor asks for it in every process, and finding the CPU's features
        needs LLVM. They are in the compiler's hash.
        """
        return GPUTarget("cpu", platform.machine(), 1)

    def get_active_torch_device(self) -> torch.device:
        """The device of this driver's tensors."""
        import torch

        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        """torch's module for this device, with events for timing."""
        from torchport.runtime.device_interface import DeviceInterface

        return DeviceInterface()

    def get_current_device(self) -> str:
        """The key under which callers look kernels up: what ``torch.cpu.current_device()`` returns."""
        return "cpu"

    def set_current_device(self, device: str) -> None:
        """Do nothing: there is one CPU."""

    def get_current_stream(self, device: str) -> int:
        """No stream: launches are synchronous."""
        return 0

    def get_benchmarker(self) -> Callable[..., Any]:
        """A timing function with the call shape of ``triton.testing.do_bench``."""
        from torchport.runtime.benchmark import do_bench

        return do_bench

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        """A buffer larger than the caches that should be cold in a benchmark."""
        import torch

        return torch.empty(64 * 2**20, dtype=torch.int8)

    def clear_cache(self, cache: torch.Tensor) -> None:
        """Evict cached data by writing ``cache``."""
        cache.zero_()
