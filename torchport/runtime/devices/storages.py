"""Storages of torch tensors in a device's own memory: addresses that stand for its buffers.

A device's memory has no addresses in this process, and torch computes with addresses: views, offsets, overlaps. So each
device reserves a range of addresses that nothing else gets, and each storage has a part of it. Reading one is a fault.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torchport.errors import DeviceMemoryError
from torchport.runtime import _native
from torchport.runtime.devices.memory import Pool

if TYPE_CHECKING:
    import torch

__all__ = ["Storages"]

RESERVED = 1 << 40
"""Addresses of one device. A size's addresses are used again, so that what counts is the most of each size at once."""


class Storages:
    """The storages on one device.

    A range of addresses stays with its buffer when its storage dies, until a storage of the same size takes both, or
    ``reclaim`` gives the buffer back to the pool. Storages are taken without a lock of Python's; all else is done under
    the lock of the device's mirrors, with which it shares ``pool``.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._next = _native.reserve_addresses(RESERVED)
        self._end = self._next + RESERVED
        self._addresses: dict[int, list[int]] = {}
        """Addresses without a buffer, by size."""
        self.arena = _native.storage_arena()
        self.buffers: dict[int, Any] = {}
        """The buffers of the storages, by their first addresses."""

    def take(self, device: int, code: int, bits: int, sizes: Sequence[int], strides: Sequence[int], lock: Any) -> Any:
        """A DLPack capsule of a new tensor (``_native.storage_take``). Raises DeviceMemoryError if the device is full.

        ``lock``: held while a buffer is made.
        """
        made = _native.storage_take(self.arena, device, code, bits, sizes, strides)
        while type(made) is int:
            with lock:
                self._extend(made)
            made = _native.storage_take(self.arena, device, code, bits, sizes, strides)
        return made

    def _extend(self, nbytes: int) -> None:
        """Make a buffer for ``nbytes``, with addresses."""
        if _native.storage_bytes(self.arena)[2] > self._pool.limit:
            self.reclaim()
        buffer = self._pool.allocate(nbytes, self.reclaim, self._collect)
        size = _native.size_class(nbytes)
        free = self._addresses.get(size)
        if free:
            address = free.pop()
        elif self._next + size <= self._end:
            address, self._next = self._next, self._next + size
        else:
            self._pool.give_back(buffer, nbytes)
            raise DeviceMemoryError(f"{RESERVED:,} addresses are not enough for the device's storages")
        self.buffers[address] = buffer
        _native.storage_offer(self.arena, address, nbytes)

    @property
    def allocated(self) -> int:
        """Bytes of the storages that live."""
        return _native.storage_bytes(self.arena)[0]

    @property
    def peak(self) -> int:
        """The most bytes so far."""
        return _native.storage_bytes(self.arena)[1]

    def reset_peak(self) -> None:
        """Let the most bytes so far be those of now."""
        _native.storage_reset_peak(self.arena)

    def buffer(self, tensor: torch.Tensor) -> tuple[Any, int]:
        """The buffer of a tensor's storage, and the tensor's offset there in bytes. Raises KeyError for another's."""
        offset = int(tensor.storage_offset()) * tensor.itemsize
        if not tensor.numel():
            return self.buffers.get(tensor.untyped_storage().data_ptr()), 0
        return self.buffers[tensor.data_ptr() - offset], offset

    def reclaim(self) -> None:
        """Give the buffers of storages that died back to the pool."""
        for address, size in _native.storage_unused(self.arena):
            self._pool.give_back(self.buffers.pop(address), size)
            self._addresses.setdefault(size, []).append(address)

    def _collect(self) -> None:
        """Free what only Python's collector can."""
        gc.collect()
        self.reclaim()
