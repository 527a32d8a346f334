"""Tensors in a device's memory, made and resized."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchport.compat import from_dlpack
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.torch_device import current
from torchport.torch_device.current import index_of
from torchport.torch_device.native import COMMAND
from torchport.torch_device.targets import memory_of

__all__ = [
    "allocator",
    "allow_new_storages",
    "arange",
    "elements",
    "empty",
    "empty_strided",
    "eye",
    "resize_",
    "restore",
]

Allocator = Callable[[Sequence[int], Sequence[int], torch.dtype], torch.Tensor]
"""Makes an uninitialized tensor of sizes, strides and dtype. Raises DeviceMemoryError if the device is full."""

# DLPack's codes of element types (dlpack.h, DLDataTypeCode): 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool.
_ELEMENTS = {
    torch.int8: (0, 8), torch.int16: (0, 16), torch.int32: (0, 32), torch.int64: (0, 64), torch.uint8: (1, 8),
    torch.uint16: (1, 16), torch.uint32: (1, 32), torch.uint64: (1, 64), torch.float16: (2, 16),
    torch.float32: (2, 32), torch.float64: (2, 64), torch.bfloat16: (4, 16), torch.complex32: (5, 32),
    torch.complex64: (5, 64), torch.complex128: (5, 128), torch.bool: (6, 8),
}  # fmt: skip


def empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
) -> torch.Tensor:
    """An uninitialized tensor. Raises DeviceMemoryError if the device is full."""
    return allocator(index_of(device))(size, stride, dtype or torch.get_default_dtype())


@functools.cache
def allocator(index: int) -> Allocator:
    """What generated code calls for an uninitialized tensor on ``torchport:index``: sizes, strides, dtype."""
    memory = memory_of(index)
    storages = memory.storages
    if index and not current.is_native():
        warnings.warn(f"gradients on torchport:{index} need the device's C++ part: run {COMMAND}", stacklevel=2)

    def allocate(size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        element = _ELEMENTS.get(dtype)
        if element is not None:
            made: torch.Tensor = from_dlpack(storages.take(index, *element, size, stride, memory.lock))
            return made
        nbytes = dtype.itemsize * extent(size, stride)
        bytes_: torch.Tensor = from_dlpack(storages.take(index, 1, 8, (nbytes,), (1,), memory.lock))
        return bytes_.view(dtype).as_strided(size, stride)

    return allocate


def new_empty_strided(
    self: torch.Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
) -> torch.Tensor:
    """An uninitialized tensor of ``self``'s type on its device, if no others are given."""
    return torch.empty_strided(size, stride, dtype=dtype or self.dtype, device=device or self.device)


def extent(size: Sequence[int], stride: Sequence[int]) -> int:
    """Elements from the first to the last of a tensor."""
    if 0 in size:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))


def empty(
    size: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """An uninitialized tensor that is dense in ``memory_format``."""
    return empty_strided(size, dense_strides(size, memory_format), dtype=dtype, device=device)


def dense_strides(size: Sequence[int], memory_format: torch.memory_format | None) -> tuple[int, ...]:
    """Strides of a dense tensor."""
    order = list(range(len(size)))
    if memory_format in (torch.channels_last, torch.channels_last_3d):
        order = [0, *order[2:], 1]
    strides, step = [0] * len(size), 1
    for dim in reversed(order):
        strides[dim] = step
        step *= max(size[dim], 1)
    return tuple(strides)


def resize_(
    self: torch.Tensor, size: Sequence[int], *, memory_format: torch.memory_format | None = None
) -> torch.Tensor:
    """Change a tensor's size. A storage that is too small is replaced by one with the same elements."""
    strides = dense_strides(size, memory_format)
    needed = (int(self.storage_offset()) + extent(size, strides)) * self.itemsize
    storage = self.untyped_storage()
    if needed > storage.nbytes():
        larger = empty((needed,), dtype=torch.uint8, device=self.device)
        if storage.nbytes():
            larger[: storage.nbytes()].copy_(elements(storage))
        storage = larger.untyped_storage()
    return self.set_(storage, self.storage_offset(), tuple(size), strides)


def elements(storage: torch.UntypedStorage) -> torch.Tensor:
    """The bytes of a storage as a tensor."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, 0, (storage.nbytes(),), (1,))


def arange(start: float, end: float, step: float = 1, *, out: torch.Tensor) -> torch.Tensor:
    """Numbers in steps. They are counted on the host: copying them costs less than a kernel for each length."""
    made = torch.arange(start, end, step, dtype=out.dtype)
    return resize_(out, made.shape).copy_(made)


def eye(n: int, m: int | None = None, *, out: torch.Tensor) -> torch.Tensor:
    """The identity, made on the host as ``arange`` is."""
    made = torch.eye(n, n if m is None else m, dtype=out.dtype)
    return resize_(out, made.shape).copy_(made)


def allow_new_storages() -> None:
    """Let ``torch.UntypedStorage(n, device="torchport")`` work without an allocator in C++, where torch would crash.

    ``copy.deepcopy`` of tensors calls it.
    """
    inherited = torch.UntypedStorage.__new__

    def new(cls: Any, *args: Any, device: Any = None, **others: Any) -> Any:
        if device is None or torch.device(device).type != DEVICE_TYPE:
            return inherited(cls, *args, **others, **({} if device is None else {"device": device}))
        content = args[0] if args else 0
        if isinstance(content, int):
            return torch.empty(content, dtype=torch.uint8, device=device).untyped_storage()
        return torch.tensor(content, dtype=torch.uint8, device=device).untyped_storage()

    torch.UntypedStorage.__new__ = new  # type: ignore[method-assign]


def restore(storage: Any, location: str) -> Any:
    """A storage that ``torch.load`` read from a file, on the device that ``location`` names; None for other devices."""
    if location.partition(":")[0] != DEVICE_TYPE:
        return None
    return elements(storage).to(torch.device(location)).untyped_storage()
