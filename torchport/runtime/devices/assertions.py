"""Assertions of kernels on a device: a failed one sets a word that is read when the host next waits."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from torchport.errors import KernelAssertionError
from torchport.runtime.devices.mirrors import Mirrors

__all__ = ["Assertions", "check_assertions"]

_WORD = ctypes.sizeof(ctypes.c_int32)


class Assertions:
    """The assertions of one kernel. ``sites``: their messages by number."""

    def __init__(self, name: str, sites: Sequence[str], mirrors: Mirrors) -> None:
        self.name = name
        self.sites = sites
        self.mirrors = mirrors
        self._buffer: Any = None

    def before(self) -> Any:
        """The buffer of the kernel's word; 0 unless an assertion of an earlier launch failed."""
        if self._buffer is None:
            self._buffer = self.mirrors.pool.allocate(_WORD, self.mirrors.reclaim)
            self._write(0)
        self.mirrors.pending[self] = None
        return self._buffer

    def failed(self) -> str | None:
        """The message of an assertion that failed since the last call."""
        value = ctypes.c_int32()
        self.mirrors.memory.download(ctypes.addressof(value), self._buffer, _WORD)
        if value.value == 0:
            return None
        self._write(0)
        number = value.value - 1
        return self.sites[number] if 0 <= number < len(self.sites) else f"assertion {number}"

    def _write(self, value: int) -> None:
        word = ctypes.c_int32(value)
        self.mirrors.memory.upload(self._buffer, ctypes.addressof(word), _WORD)


def check_assertions(mirrors: Mirrors) -> None:
    """Raise KernelAssertionError if an assertion failed in a kernel launched since the last check."""
    waiting = list(mirrors.pending)
    mirrors.pending.clear()
    failures = [(kernel.name, message) for kernel in waiting if (message := kernel.failed()) is not None]
    if failures:
        raise KernelAssertionError(
            "; ".join(f"kernel {name}: device-side assertion failed: {message}" for name, message in failures)
        )
