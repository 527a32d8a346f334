"""Copies between the host and devices, and between devices."""

from __future__ import annotations

import torch

from torchport.runtime.devices.assertions import check_assertions
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.torch_device.dispatch import attempt
from torchport.torch_device.storage import extent
from torchport.torch_device.targets import memory_of

__all__ = ["copy_from", "pin", "scalar", "to_host"]


def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """``target.copy_(source)`` where one of both is on a device."""
    if source.device.type != DEVICE_TYPE:
        _upload(source, target)
    elif target.device.type != DEVICE_TYPE:
        target.copy_(to_host(source))
    elif source.device == target.device:
        _move(_stored(source), _stored(target))
        if source.is_conj() != target.is_conj():
            torch.view_as_real(_stored(target))[..., 1].neg_()
        if source.is_neg() != target.is_neg():
            _stored(target).neg_()
    else:
        _upload(to_host(source), target)
    return target


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the elements that are in memory, which may stand for their conjugates or negatives."""
    tensor = torch._conj(tensor) if tensor.is_conj() else tensor
    return torch._neg_view(tensor) if tensor.is_neg() else tensor


def pin(tensor: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """What ``pin_memory`` returns while the accelerator is ours: a copy in ordinary memory.

    Copies from it are as fast, and a DataLoader that pins its batches works.
    """
    return tensor.clone()


def scalar(tensor: torch.Tensor) -> bool | float | int | complex:
    """The value of a tensor of one element."""
    return to_host(tensor).item()


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's elements on the host, with its sizes and strides. Waits for the device.

    Raises KernelAssertionError if an assertion of an earlier kernel failed.
    """
    sizes, strides = tensor.shape, tensor.stride()
    elements = extent(sizes, strides)
    count = elements + int(tensor.storage_offset())
    memory = memory_of(tensor.device.index)
    host = torch.empty(count, dtype=tensor.dtype)
    with memory.lock:
        if elements:
            buffer, _ = memory.storages.buffer(tensor)
            memory.memory.download(host.data_ptr(), buffer, count * tensor.itemsize)
            memory.statistics.count("download", "copy", count * tensor.itemsize)
        check_assertions(memory)
    result = host.as_strided(sizes, strides, tensor.storage_offset() if elements else 0)
    result = torch._conj(result) if tensor.is_conj() else result
    return torch._neg_view(result) if tensor.is_neg() else result


def _upload(source: torch.Tensor, target: torch.Tensor) -> None:
    if not target.numel():
        return
    plain = not target.is_conj() and not target.is_neg()
    whole = target.storage_offset() == 0 and _is_dense(target) and plain
    elements = extent(target.shape, target.stride())
    if whole:
        host = torch.empty_strided(target.shape, target.stride(), dtype=target.dtype)
    else:  # what the target leaves out must stay as it is
        host = to_host(target)
    host.copy_(source)
    memory = memory_of(target.device.index)
    count = elements + int(target.storage_offset())
    with memory.lock:
        buffer, _ = memory.storages.buffer(target)
        memory.memory.upload(buffer, host.untyped_storage().data_ptr(), count * target.itemsize)
        memory.statistics.count("upload", "copy", count * target.itemsize)


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.numel() == extent(tensor.shape, tensor.stride())


def _move(source: torch.Tensor, target: torch.Tensor) -> None:
    if not target.numel():
        return
    if attempt(torch.ops.aten.copy_.default, (target, source)) is NotImplemented:
        _upload(to_host(source), target)
