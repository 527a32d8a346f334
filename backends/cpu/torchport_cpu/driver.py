"""Triton's driver contract for the CPU: its target, and how to load, launch and time a kernel."""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from torchport.runtime.sanitizer import install

if TYPE_CHECKING:
    import torch

__all__ = ["CPUDriver"]

install()  # nothing, unless TORCHPORT_SANITIZE asks for it: Triton imports this before the first kernel

_NO_LIMIT = 2**30  # threads of a block, bytes of shared memory, registers: a CPU kernel has no such limits
_REGISTERS = 1  # of a thread; not 0, as kernels' authors divide by it to find how many programs fit


class CPUUtils:
    """Loads compiled kernels for Triton's CompiledKernel.

    Code is loaded once and stays: if several threads launch a kernel for the first time together, each loads it and
    Triton drops all but the last, while others may be running.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[bytes, Any] = {}

    def load_binary(self, name: str, kernel: bytes, shared: int, device: str) -> tuple[Any, int, int, int, int]:
        """Load a compiled kernel; returns (module, function address, registers, spills, threads of a block).

        Raises CompilationError where the bytes are damaged or a symbol is missing.
        """
        from torchport.container import CorruptContainer, unpack
        from torchport.errors import CompilationError
        from torchport_cpu import codegen

        try:
            metadata, image = unpack(kernel)
        except CorruptContainer as error:
            raise CompilationError(
                f"the cached kernel {name} is damaged ({error}); remove Triton's cache directory "
                "(TRITON_CACHE_DIR, by default ~/.triton/cache) and run again",
                kernel=name,
                stage="load",
            ) from error
        key = hashlib.sha256(kernel).digest()
        with self._lock:
            loaded = self._loaded.get(key)
            if loaded is None:
                loaded = self._loaded[key] = codegen.load(image, metadata["symbol"], metadata["imports"])
        return loaded, loaded.address, _REGISTERS, 0, _NO_LIMIT

    def get_device_properties(self, device: str) -> dict[str, int]:
        """What Triton, and kernels' authors who size their grids, ask of a device."""
        import torch

        return {
            "max_shared_mem": _NO_LIMIT,
            "max_num_regs": _NO_LIMIT,
            "multiprocessor_count": torch.get_num_threads(),
            "warpSize": 1,
        }


def make_launcher(src: Any, metadata: Any) -> Callable[..., None]:
    """The launcher of a kernel: ``src`` is Triton's source (its signature), ``metadata`` what compiling left."""
    from torchport.runtime.descriptors import decompose_descriptors
    from torchport.runtime.launcher import Launcher, flatten_signature

    types, unpack_arguments = decompose_descriptors(list(src.signature.values()))
    signature, positions = flatten_signature(types)
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
        """True unless another driver is active: Triton accepts exactly one, and a GPU's has priority."""
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
        """The host as a Triton target. One "thread" a warp: a program instance runs on one CPU thread.

        The architecture is the machine alone: Inductor asks for it in every process, and the CPU's features, which
        need LLVM to be loaded, are in the compiler's hash.
        """
        return GPUTarget("cpu", platform.machine(), 1)

    def get_active_torch_device(self) -> torch.device:
        """Where tensors of this driver live."""
        import torch

        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        """torch's module for this device, with events to take times with."""
        from torchport.runtime.device_interface import DeviceInterface

        return DeviceInterface()

    def get_current_device(self) -> str:
        """There is one CPU: what ``torch.cpu.current_device()`` says, which is what callers look kernels up under."""
        return "cpu"

    def set_current_device(self, device: str) -> None:
        """There is one CPU."""

    def get_current_stream(self, device: str) -> int:
        """Launches are synchronous: there are no streams."""
        return 0

    def get_benchmarker(self) -> Callable[..., Any]:
        """A timing function with the call shape of ``triton.testing.do_bench``."""
        from torchport.runtime.benchmark import do_bench

        return do_bench

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        """A buffer that is larger than the caches that a benchmark should find cold."""
        import torch

        return torch.empty(64 * 2**20, dtype=torch.int8)

    def clear_cache(self, cache: torch.Tensor) -> None:
        """Evict what is cached by writing ``cache``."""
        cache.zero_()
