"""Storages of torch tensors in a device's own memory: addresses that stand for its buffers.

A device's memory has no addresses in this process, and torch computes with addresses: views, offsets, overlaps. So each
device reserves a range of addresses that nothing else gets, and each storage has a part of it. Reading one is a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchport.errors import DeviceMemoryError
from torchport.runtime import _native
from torchport.runtime.devices.memory import Pool, size_class

if TYPE_CHECKING:
    import torch

__all__ = ["Storages", "reclaim"]

RESERVED = 1 << 40
"""Addresses of one device. A size's addresses are used again, so that what counts is the most of each size at once."""


class Storages:
    """The storages on one device. Calls are made under the lock of its mirrors, with which it shares ``pool``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._next = _native.reserve_addresses(RESERVED)
        self._end = self._next + RESERVED
        self.buffers: dict[int, Any] = {}
        """The buffers of the storages that live, by their first addresses."""
        self._sizes: dict[int, int] = {}
        self._unused: dict[int, list[int]] = {}
        self.allocated = 0
        """Bytes of storages that live."""
        self.peak = 0
        """The most bytes so far."""
        _all.append(self)

    def allocate(self, nbytes: int) -> int:
        """The address of a new storage. Raises DeviceMemoryError if the device is full."""
        reclaim()
        buffer = self._pool.allocate(nbytes, _collect)
        size = size_class(nbytes)
        unused = self._unused.get(size)
        if unused:
            address = unused.pop()
        elif self._next + size <= self._end:
            address, self._next = self._next, self._next + size
        else:
            self._pool.give_back(buffer, nbytes)
            raise DeviceMemoryError(f"{RESERVED:,} addresses are not enough for the device's storages")
        self.buffers[address] = buffer
        self._sizes[address] = nbytes
        self.allocated += nbytes
        self.peak = max(self.peak, self.allocated)
        return address

    def buffer(self, tensor: torch.Tensor) -> tuple[Any, int]:
        """The buffer of a tensor's storage, and the tensor's offset there in bytes. Raises KeyError for another's."""
        offset = int(tensor.storage_offset()) * tensor.itemsize
        if not tensor.numel():
            return self.buffers.get(tensor.untyped_storage().data_ptr()), 0
        return self.buffers[tensor.data_ptr() - offset], offset

    def free(self, address: int) -> bool:
        """Take back a storage; False if it is another device's."""
        buffer = self.buffers.pop(address, None)
        if buffer is None:
            return False
        nbytes = self._sizes.pop(address)
        self.allocated -= nbytes
        self._pool.give_back(buffer, nbytes)
        self._unused.setdefault(size_class(nbytes), []).append(address)
        return True


_all: list[Storages] = []


def reclaim() -> None:
    """Take back the storages that died since the last call, on all devices."""
    for address in _native.freed_addresses():
        any(storages.free(address) for storages in _all)


def _collect() -> None:
    """Free what only Python's collector can, where a device is full."""
    import gc

    gc.collect()
    reclaim()
