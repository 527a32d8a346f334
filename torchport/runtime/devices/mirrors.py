"""Mirrors of CPU tensors' storages on a device, and which side has the newest bytes of each.

A mirror is of a whole storage, so views and overlapping tensors share one. Mirrors are found by the StorageImpl; a weak
reference keeps its address from being reused while the mirror exists.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from torchport.config import config
from torchport.errors import TargetError
from torchport.runtime import ranks
from torchport.runtime.devices.memory import POOL_BYTES, Memory, Pool, host_bytes
from torchport.runtime.devices.statistics import Statistics
from torchport.runtime.devices.storages import Storages

__all__ = ["Mirror", "Mirrors", "Stamp", "every_device", "version_of"]

WORDS = 64
"""Number of 8-byte words of a storage in a sample."""

SWEEP_EVERY = 256
"""Number of new mirrors between two sweeps."""

_lock: Any = threading.RLock()

Stamp = tuple[int | None, int]
"""A tensor's version counter and a digest of its bytes, from when both sides were equal."""


@dataclass(eq=False, slots=True)
class Mirror:
    """The mirror of one storage.

    storage: a weak reference to it.
    address: its address on the host.
    nbytes: its size.
    buffer: the device's buffer, once allocated.
    host: whether the host has the newest bytes.
    device: whether the device has the newest bytes; neither has them in memory that is not written yet.
    stamp: what the tensor was like when both sides were last equal.
    used: number of the launch that last used it.
    reason: why the next upload is necessary.
    """

    storage: StorageWeakRef
    address: int
    nbytes: int
    buffer: Any = None
    host: bool = True
    device: bool = False
    stamp: Stamp | None = None
    used: int = 0
    reason: str = "argument"


@dataclass(eq=False)
class Mirrors:
    """All mirrors on one device.

    Methods are thread-safe under ``lock``, which all devices share, as one device's work can concern another's mirrors.
    """

    memory: Memory
    pool_bytes: int = POOL_BYTES
    lock: Any = field(default_factory=lambda: _lock)
    statistics: Statistics = field(default_factory=Statistics)
    pending: dict[Any, None] = field(default_factory=dict)
    """Assertions of the kernels launched since the last check."""

    def __post_init__(self) -> None:
        self.pool = Pool(self.memory, self.pool_bytes)
        self._storages: Storages | None = None
        self.starts: Mapping[int, Any] = {}
        """The buffers of storages on the device by their first addresses."""
        self._table: dict[int, Mirror] = {}
        self._launch = 0
        self._made = 0
        _devices.add(self)

    @property
    def storages(self) -> Storages:
        """The storages of tensors that live on the device."""
        if self._storages is not None:
            return self._storages
        with self.lock:
            if self._storages is None:
                made = Storages(self.pool)
                self.starts = made.buffers
                self._storages = made
            return self._storages

    def __len__(self) -> int:
        return len(self._table)

    def find(self, tensor: torch.Tensor) -> Mirror | None:
        """The mirror of a tensor's storage, if there is one."""
        storage = tensor.untyped_storage()
        mirror = self._table.get(storage._cdata)
        if mirror is not None and (mirror.address != storage.data_ptr() or mirror.nbytes != storage.nbytes()):
            self._drop(storage._cdata)  # the storage was resized
            return None
        return mirror

    def open(self, tensor: torch.Tensor) -> Mirror:
        """The mirror of a tensor's storage; a new one has no bytes yet."""
        mirror = self.find(tensor)
        if mirror is None:
            storage = tensor.untyped_storage()
            self._made += 1
            if self._made % SWEEP_EVERY == 0:
                self.sweep()
            mirror = Mirror(StorageWeakRef(storage), storage.data_ptr(), storage.nbytes())
            self._table[storage._cdata] = mirror
        return mirror

    def unwritten(self, tensor: torch.Tensor) -> None:
        """Note that a new tensor's memory need not be copied."""
        with self.lock:
            mirror = self.open(tensor)
            mirror.host = mirror.device = False

    def begin_launch(self) -> None:
        """Start a launch: the mirrors that ``on_device`` returns from now on are used together."""
        self._launch += 1

    def on_device(self, tensor: torch.Tensor) -> Mirror:
        """The mirror of a tensor's storage, with the newest bytes on the device. Raises DeviceMemoryError."""
        mirror = self.open(tensor)
        mirror.used = self._launch
        if mirror.buffer is None:
            mirror.buffer = self.pool.reuse(mirror.nbytes)
            if mirror.buffer is None:
                mirror.buffer = self.pool.allocate(mirror.nbytes, self.reclaim, self._evict)
        if mirror.host and not mirror.device:
            if mirror.nbytes:
                self.memory.upload(mirror.buffer, mirror.address, mirror.nbytes)
                self.statistics.count("upload", mirror.reason, mirror.nbytes)
            mirror.device = True
        return mirror

    def on_host(self, tensor: torch.Tensor, reason: str) -> None:
        """Bring the newest bytes of a tensor's storage to the host."""
        mirror = self.find(tensor)
        if mirror is not None and mirror.device and not mirror.host:
            if mirror.nbytes:
                self.memory.download(mirror.address, mirror.buffer, mirror.nbytes)
                self.statistics.count("download", reason, mirror.nbytes)
            mirror.host = True

    def host_wrote(self, tensor: torch.Tensor, reason: str) -> None:
        """Note that the host changed a tensor of which it had the newest bytes."""
        mirror = self.find(tensor)
        if mirror is not None:
            mirror.host, mirror.device, mirror.reason = True, False, reason

    def check(self, tensor: torch.Tensor) -> None:
        """Invalidate the mirror of a tensor's storage if the host has changed it since ``agree``.

        Collectives, and FSDP when it gathers parameters, write without moving the version counter, and a sample may
        miss what they wrote: where there is a process group, whatever the host may have written is copied again.
        """
        mirror = self.find(tensor)
        if mirror is None or not (mirror.host and mirror.device):
            return
        if ranks.has_group() and config().device_check == "sample":
            mirror.device, mirror.reason = False, "a collective may have changed it"
            return
        version = version_of(tensor)
        if version is None or mirror.stamp is None or mirror.stamp != (version, _digest(mirror)):
            mirror.device, mirror.reason = False, "changed on the host"

    def agree(self, tensor: torch.Tensor, version: int | None) -> None:
        """Note the state of a tensor that is equal on both sides."""
        mirror = self.find(tensor)
        if mirror is not None and mirror.device:
            mirror.stamp = version, _digest(mirror) if mirror.host else 0

    def invalidate(self, tensor: torch.Tensor) -> None:
        """Copy a tensor's storage again before its next use."""
        with self.lock:
            mirror = self.find(tensor)
            if mirror is not None and mirror.host:
                mirror.device, mirror.reason = False, "changed on the host"

    def sweep(self) -> None:
        """Reclaim the buffers of mirrors whose storages are freed."""
        with self.lock:
            for key in [key for key, mirror in self._table.items() if mirror.storage.expired()]:
                self._drop(key)

    def reclaim(self) -> None:
        """Give all buffers that no living storage has back to the pool."""
        with self.lock:
            self.sweep()
            if self._storages is not None:
                self._storages.reclaim()

    def clear(self) -> None:
        """Release all mirrors that are not the only copy."""
        with self.lock:
            self.reclaim()
            self._evict(every=True)
            self.pool.trim(0)

    def wait(self) -> None:
        """Return when the device has done its work: copies to the host wait for all that comes before them."""
        with self.lock:
            byte, buffer = ctypes.c_char(), self.pool.allocate(1, self.reclaim)
            self.memory.download(ctypes.addressof(byte), buffer, 1)
            self.pool.give_back(buffer, 1)

    def report(self) -> Statistics:
        """The counts, with the memory in use."""
        with self.lock:
            self.reclaim()
            self.statistics.mirrored, self.statistics.pooled = self.pool.used, self.pool.unused
            return self.statistics

    def _evict(self, every: bool = False) -> None:
        """Release mirrors that the host has too, except those of the current launch."""
        for mirror in self._table.values():
            if mirror.buffer is not None and mirror.host and (every or mirror.used != self._launch):
                self.pool.give_back(mirror.buffer, mirror.nbytes)
                mirror.buffer, mirror.device, mirror.reason = None, False, "evicted"
        self.pool.trim(0)

    def _drop(self, key: int) -> None:
        mirror = self._table.pop(key)
        if mirror.buffer is not None:
            self.pool.give_back(mirror.buffer, mirror.nbytes)


def version_of(tensor: torch.Tensor) -> int | None:
    """A tensor's version counter; None for tensors made in inference mode, which have none."""
    return None if tensor.is_inference() else tensor._version


def every_device(but: Mirrors | None = None) -> Iterable[Mirrors]:
    """All devices in use in this process, except ``but``."""
    return [device for device in _devices if device is not but]


_devices: weakref.WeakSet[Mirrors] = weakref.WeakSet()


class _Forked:
    """The lock of a device in a process forked after its use: drivers' threads are not there, so a call would wait."""

    def __enter__(self) -> None:
        raise TargetError(
            "this process was forked after its parent used a device, whose driver works in the parent only: start "
            'processes with torch.multiprocessing.get_context("spawn"), or leave tensors on the CPU in them'
        )

    def __exit__(self, *error: object) -> None:
        """Nothing was entered."""


def _after_fork() -> None:
    for device in _devices:
        if device._storages is not None or device._table:
            device.lock = _Forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _digest(mirror: Mirror) -> int:
    """A digest of a storage's bytes on the host, or of a sample, as TORCHPORT_DEVICE_CHECK says."""
    how = config().device_check
    words = mirror.nbytes // 8
    if how == "version" or mirror.nbytes == 0:
        return 0
    if how == "all" or words <= WORDS:
        return zlib.crc32(host_bytes(mirror.address, mirror.nbytes))
    array = (ctypes.c_uint64 * words).from_address(mirror.address)
    return hash((*array[:: words // WORDS], array[words - 1]))
