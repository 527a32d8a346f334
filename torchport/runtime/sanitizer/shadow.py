"""Tracks which bytes of a tensor's storage are written.

This is known for storages that torch allocates without writing them (``torch.empty`` and similar) under
``modes.TrackWrites``; every other storage counts as written. The shadow has one byte per byte of storage: 1 if written.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["mark", "register", "shadow_of"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)


@dataclass
class _Shadow:
    storage: StorageWeakRef
    written: torch.Tensor  # uint8


_lock = threading.Lock()
_shadows: dict[int, _Shadow] = {}  # by address of the storage's bytes
_purge_above = 256


def shadow_of(storage: torch.UntypedStorage) -> torch.Tensor | None:
    """The shadow of a storage; None if all of it counts as written."""
    with _lock:
        shadow = _shadows.get(storage.data_ptr())
    if shadow is None or shadow.storage.cdata != storage._cdata or len(shadow.written) != storage.nbytes():
        return None  # by now the memory has another owner or another size
    return shadow.written


def register(tensor: Any) -> None:
    """Give a new tensor a shadow with no byte written."""
    global _purge_above
    if type(tensor) not in _PLAIN or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return
    storage = tensor.untyped_storage()
    if storage.nbytes() == 0:
        return
    shadow = _Shadow(StorageWeakRef(storage), torch.zeros(storage.nbytes(), dtype=torch.uint8))
    with _lock:
        _shadows[storage.data_ptr()] = shadow
        if len(_shadows) > _purge_above:
            for address in [a for a, s in _shadows.items() if s.storage.expired()]:
                del _shadows[address]
            _purge_above = max(256, 2 * len(_shadows))


def mark(tensor: Any) -> None:
    """Count every element of a tensor as written, but no other element of its storage."""
    if type(tensor) not in _PLAIN or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return
    shadow = shadow_of(tensor.untyped_storage())
    if shadow is None:
        return
    size = tensor.element_size()
    strides = [stride * size for stride in tensor.stride()]
    shadow.as_strided([*tensor.shape, size], [*strides, 1], tensor.storage_offset() * size).fill_(1)
