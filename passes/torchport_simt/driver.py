"""Triton's driver contract for targets that torchport lowers itself; ``torchport.use`` makes it active."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["SIMTDriver"]

_NO_LIMIT = 2**30


class _Utils:
    """Loads compiled kernels for Triton's CompiledKernel."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def load_binary(self, name: str, kernel: bytes, shared: int, device: str) -> tuple[Any, Any, int, int, int]:
        """Return (kernel, kernel, registers, spills, lanes).

        Nothing is linked here: the launcher does so, as it knows the types of the arguments.
        """
        return kernel, kernel, 1, 0, _NO_LIMIT

    def get_device_properties(self, device: str) -> dict[str, int]:
        """Properties of a device that Triton and authors of kernels use to size grids."""
        limits = backend_for(self._target).capabilities(self._target)
        return {
            "max_shared_mem": limits.scratchpad_bytes or _NO_LIMIT, "max_num_regs": _NO_LIMIT,
            "multiprocessor_count": 1, "warpSize": limits.simd_width,
        }  # fmt: skip


class SIMTDriver(DriverBase):
    """One target as a Triton device."""

    def __init__(self, target: Target | None = None) -> None:
        super().__init__()
        self.target = target or Target("cpu")
        self.utils = _Utils(self.target)
        self.launcher_cls: Callable[[Any, Any], Callable[..., None]] = self._launcher

    @classmethod
    def is_active(cls) -> bool:
        """Always False: a caller activates it."""
        return False

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Not needed: launchers are not compiled."""
        raise NotImplementedError("launchers of this target are not made ahead of time")

    def _launcher(self, src: Any, metadata: Any) -> Callable[..., None]:
        """The launcher of a kernel: ``src`` is Triton's source (its signature)."""
        from torchport.runtime.descriptors import decompose_descriptors
        from torchport_simt.compilation import binary_of

        types, unpack_arguments = decompose_descriptors(list(src.signature.values()))
        driver = backend_for(self.target).driver(self.target)
        loaded: list[Any] = []

        def launch(x: int, y: int, z: int, stream: Any, kernel: bytes, *args: Any) -> None:
            if not loaded:
                loaded.append(driver.load(binary_of(kernel), types))  # several threads may: the first one counts
            launcher, function = loaded[0]
            launcher(x, y, z, stream, function, *args)

        return launch if unpack_arguments is None else unpack_arguments(launch)

    def get_current_target(self) -> GPUTarget:
        """The target as Triton knows it."""
        return GPUTarget("torchport", str(self.target), 1)

    def get_active_torch_device(self) -> Any:
        """The device of this driver's tensors."""
        import torch

        return torch.device(backend_for(self.target).driver(self.target).device)

    def get_device_interface(self) -> Any:
        """torch's module for this device, with events for timing: a launch is complete on return."""
        from torchport.runtime.device_interface import DeviceInterface

        return DeviceInterface()

    def get_current_device(self) -> str:
        """The key under which callers look kernels up: the target's name."""
        return str(self.target)

    def set_current_device(self, device: str) -> None:
        """Do nothing: ``torchport.use`` chooses the target."""

    def get_current_stream(self, device: str) -> int:
        """No stream: launches are in order."""
        return 0

    def get_benchmarker(self) -> Callable[..., Any]:
        """A timing function with the call shape of ``triton.testing.do_bench``."""
        from torchport.runtime.benchmark import do_bench

        return do_bench

    def get_empty_cache_for_benchmark(self) -> Any:
        """A buffer larger than most caches."""
        import torch

        return torch.empty(64 * 2**20, dtype=torch.int8)

    def clear_cache(self, cache: Any) -> None:
        """Evict cached data by writing ``cache``."""
        cache.zero_()
