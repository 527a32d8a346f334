"""Reads and writes the memory behind tensors: on the host, on a GPU, or on a device that mirrors host tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchport.compat import disable_current_modes
from torchport.numerics.runs.summary import CANARY
from torchport.runtime.devices.mirrors import Mirrors

__all__ = [
    "canary_fits",
    "dtype_name",
    "fill_canary",
    "on_host",
    "put_back",
    "storage_bytes",
    "storage_key",
    "to_host",
    "without_dispatch_modes",
]

_REASON = "recording"


@contextmanager
def without_dispatch_modes() -> Iterator[None]:
    """Hide torch's operators from all dispatch modes while the context is open."""
    with disable_current_modes():
        yield


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.float32`` as ``float32``."""
    return str(dtype).removeprefix("torch.")


def storage_key(tensor: torch.Tensor) -> int:
    """The same number for tensors that share a storage."""
    return int(tensor.untyped_storage()._cdata)


def on_host(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies in host memory."""
    return tensor.device.type == "cpu"


def to_host(tensor: torch.Tensor, mirrors: Mirrors | None) -> torch.Tensor:
    """The tensor itself if it lies in host memory, brought up to date, else a copy there with the same strides.

    Does not change the state of mirrors on a device.
    """
    if mirrors is not None:
        with mirrors.lock:
            mirrors.on_host(tensor, _REASON)
    if on_host(tensor):
        return tensor
    storage = _elements(tensor).to("cpu", copy=True).untyped_storage()
    return torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())


def storage_bytes(tensor: torch.Tensor, mirrors: Mirrors | None) -> bytes:
    """A copy of the storage behind a tensor, truncated to whole elements."""
    storage = to_host(tensor, mirrors).untyped_storage()
    nbytes = storage.nbytes() // tensor.itemsize * tensor.itemsize
    return ctypes.string_at(storage.data_ptr(), nbytes) if nbytes else b""


def put_back(tensor: torch.Tensor, data: bytes, mirrors: Mirrors | None) -> None:
    """Overwrite a storage with bytes that ``storage_bytes`` read."""
    if data and on_host(tensor):
        ctypes.memmove(tensor.untyped_storage().data_ptr(), data, len(data))
    elif data:
        _elements(tensor)[: len(data)].copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    _changed(tensor, mirrors)


def _elements(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of the storage behind a tensor on a GPU, after all work queued there is done."""
    torch.get_device_module(tensor.device).synchronize(tensor.device)
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def canary_fits(tensor: torch.Tensor) -> bool:
    """Whether the element type has a canary: a NaN that stands for unwritten memory."""
    return tensor.dtype in CANARY and tensor.numel() > 0


def fill_canary(tensor: torch.Tensor, mirrors: Mirrors | None) -> None:
    """Fill a tensor, not the rest of its storage, with canaries."""
    to_host(tensor, mirrors)
    bits, value = CANARY[tensor.dtype]
    with torch.no_grad():
        tensor.detach().view(bits).fill_(value)
    _changed(tensor, mirrors)


def _changed(tensor: torch.Tensor, mirrors: Mirrors | None) -> None:
    if mirrors is not None:
        with mirrors.lock:
            mirrors.host_wrote(tensor, _REASON)
