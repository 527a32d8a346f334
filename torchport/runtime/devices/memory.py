"""The interface that a plugin supplies to run kernels in a device's own memory, and a pool of reused buffers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torchport.errors import DeviceMemoryError
from torchport.runtime import _native

__all__ = ["DEVICE_TYPE", "POOL_BYTES", "Build", "Function", "Memory", "Pool", "host_bytes"]


DEVICE_TYPE = "torchport"
"""Type of the torch devices whose tensors live in the memory of a target."""


class Memory(Protocol):
    """A device's memory. Calls come one at a time and take effect in order, launches included.

    A buffer's handle may be any object. Addresses are those of this process, sizes are in bytes.
    """

    def allocate(self, nbytes: int) -> Any:
        """A buffer of ``nbytes``, at least 1. Raises MemoryError immediately if there is no room."""

    def release(self, buffer: Any) -> None:
        """Free a buffer once all earlier calls are done with it."""

    def upload(self, buffer: Any, address: int, nbytes: int) -> None:
        """Copy host memory to the start of a buffer. The host memory may change as soon as this returns."""

    def download(self, address: int, buffer: Any, nbytes: int) -> None:
        """Copy the start of a buffer to host memory, and wait for it."""


class Function(Protocol):
    """A kernel that is ready to run on one device."""

    def __call__(self, grid: tuple[int, int, int], arguments: Sequence[Any], /) -> None:
        """Run over ``grid`` work-groups, in order with the memory's copies. May return before the kernel is done.

        ``arguments``: one for each parameter of docs/plugins.md, buffers as handles (None: no memory), others as
        Python numbers.
        """


Build = Callable[[Any, Sequence[str]], Function]
"""Makes a Function of a ``torchport.plugin.Binary``. The strings are its parameters' types: ``buffer``, ``i8`` to
``i64``, ``u8`` to ``u64``, ``fp32``, ``fp64``. Raises CompilationError."""


def host_bytes(address: int, nbytes: int) -> memoryview:
    """Writable bytes at an address of this process, which must stay allocated while they are used."""
    return memoryview((ctypes.c_char * nbytes).from_address(address)).cast("B")


POOL_BYTES = 1 << 30
"""Bytes of unused buffers that a device keeps."""


class Pool:
    """The buffers of a memory; at most ``limit`` bytes of unused ones are kept."""

    def __init__(self, memory: Memory, limit: int) -> None:
        self.memory = memory
        self.limit = limit
        self.unused = 0
        """Bytes of unused buffers."""
        self.used = 0
        """Bytes of buffers in use."""
        self._free: dict[int, list[Any]] = {}

    def reuse(self, nbytes: int) -> Any | None:
        """An unused buffer for ``nbytes``, if there is one."""
        size = _native.size_class(nbytes)
        unused = self._free.get(size)
        if not unused:
            return None
        self.unused -= size
        self.used += size
        return unused.pop()

    def allocate(self, nbytes: int, *reclaims: Callable[[], None]) -> Any:
        """A buffer for ``nbytes``.

        If the device has no room, unused buffers are released first, then what each of ``reclaims`` releases. Raises
        DeviceMemoryError if that is not enough.
        """
        size = _native.size_class(nbytes)
        for reclaim in (None, *reclaims):
            if reclaim is not None:
                reclaim()
            buffer = self.reuse(nbytes)
            if buffer is not None:
                return buffer
            for attempt in (False, True):
                if attempt:
                    self.trim(0)
                try:
                    buffer = self.memory.allocate(size)
                except MemoryError:
                    continue
                self.used += size
                return buffer
        raise DeviceMemoryError(
            f"the device has no room for {size:,} bytes beside the {self.used:,} in use: use smaller batches or a "
            "smaller model, or, where a tensor is a small view of a large one, clone it (a whole storage is copied)"
        )

    def give_back(self, buffer: Any, nbytes: int) -> None:
        """Take back a buffer that was allocated for ``nbytes``."""
        size = _native.size_class(nbytes)
        self.used -= size
        if self.unused + size > self.limit:
            self.memory.release(buffer)
            return
        self.unused += size
        self._free.setdefault(size, []).append(buffer)

    def trim(self, limit: int) -> None:
        """Release unused buffers until at most ``limit`` bytes are kept."""
        for size, waiting in self._free.items():
            while waiting and self.unused > limit:
                self.memory.release(waiting.pop())
                self.unused -= size
