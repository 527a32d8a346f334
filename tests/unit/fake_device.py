"""A device with memory of its own whose kernels are Python functions: host memory that only its own copies reach."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchport.plugin import Binary
from torchport.runtime.devices import DeviceDriver

Body = Callable[..., None]


@dataclass
class FakeMemory:
    """``room``: bytes of the device. ``log``: the copies, in order, as (direction, bytes)."""

    room: int = 1 << 30
    used: int = 0
    log: list[tuple[str, int]] = field(default_factory=list)

    def allocate(self, nbytes: int) -> np.ndarray[Any, Any]:
        if self.used + nbytes > self.room:
            raise MemoryError("full")
        self.used += nbytes
        return np.full(nbytes, 0xA5, dtype=np.uint8)

    def release(self, buffer: np.ndarray[Any, Any]) -> None:
        self.used -= buffer.nbytes
        buffer[:] = 0x5A  # whoever still reads it sees it

    def upload(self, buffer: np.ndarray[Any, Any], address: int, nbytes: int) -> None:
        self.log.append(("upload", nbytes))
        ctypes.memmove(buffer.ctypes.data, address, nbytes)

    def download(self, address: int, buffer: np.ndarray[Any, Any], nbytes: int) -> None:
        self.log.append(("download", nbytes))
        ctypes.memmove(address, buffer.ctypes.data, nbytes)


def driver(bodies: Mapping[str, Body], memory: FakeMemory, **options: Any) -> DeviceDriver:
    """A driver whose kernel called ``symbol`` runs ``bodies[symbol](grid, *arguments)`` once."""

    def build(binary: Binary, parameters: Sequence[str]) -> Any:
        def function(grid: tuple[int, int, int], arguments: Sequence[Any]) -> None:
            assert len(arguments) == len(parameters)
            bodies[binary.symbol](grid, *arguments)

        return function

    return DeviceDriver(memory, build, (65535, 65535, 65535), **options)


def binary(symbol: str, access: Sequence[str], sites: Sequence[str] = ()) -> Binary:
    """What a compiler would leave."""
    about = {"lanes": 1, "access": list(access), "sites": list(sites), "features": []}
    return Binary(b"", "fake", symbol, metadata=about)


def floats(buffer: np.ndarray[Any, Any], offset: int, count: int) -> np.ndarray[Any, Any]:
    """``count`` fp32 elements of a buffer, which can be written."""
    return buffer[offset : offset + 4 * count].view(np.float32)
