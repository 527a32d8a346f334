"""Operators that the device has no kernel for: they run on the host, and are counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from torchport.config import config
from torchport.errors import UnsupportedOperation
from torchport.runtime import events
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.runtime.operators import tensors_in, written_arguments
from torchport.torch_device import random

__all__ = ["fallback_counts", "on_host", "on_several_devices", "refuse"]

_lock = threading.Lock()
_counts: Counter[str] = Counter()


def fallback_counts(reset: bool = False) -> Mapping[str, int]:
    """How often each operator ran on the host. ``reset``: count from zero afterwards."""
    with _lock:
        counts = dict(_counts.most_common())
        if reset:
            _counts.clear()
        return counts


def on_host(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], reason: str = "") -> Any:
    """Run an operator on copies in CPU memory, and bring back what it returns and what it wrote.

    Raises UnsupportedOperation if TORCHPORT_DEVICE_FALLBACK is ``error``.
    """
    device = _device(args, kwargs)
    name = str(operator)
    _count(name, device, reason)
    copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def to_host(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.device.type == DEVICE_TYPE:
            if id(value) not in copies:
                copies[id(value)] = value, value.cpu()
            return copies[id(value)][1]
        if isinstance(value, torch.device) and value.type == DEVICE_TYPE:
            return torch.device("cpu")
        return random.of_host(value) if random.of_device(value) else value

    host_args, host_kwargs = tree_map(to_host, (args, dict(kwargs)))
    if _draws_from_default(operator, args, kwargs):
        host_kwargs["generator"] = random.source()
    results = operator(*host_args, **host_kwargs)
    written = {}
    for value in tensors_in(written_arguments(operator._schema, args, kwargs)):
        if id(value) in copies:
            original, copy = copies[id(value)]
            if original.shape != copy.shape:
                original.resize_(copy.shape)
            original.copy_(copy)
            written[id(copy)] = original

    def back(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in written:
            return written[id(value)]
        return value.to(device) if value.device.type == "cpu" else value

    return tree_map(back, results)


def _draws_from_default(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator takes a generator and is given none."""
    names = [argument.name for argument in operator._schema.arguments]
    return "generator" in names[len(args) :] and kwargs.get("generator") is None


def refuse(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise torch's error for arguments whose shapes or types do not fit an operator; nothing is computed."""

    def without_elements(value: Any) -> Any:
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    operator(*tree_map(without_elements, args), **tree_map(without_elements, dict(kwargs)))


def on_several_devices(operator: Any, devices: Iterable[torch.device]) -> RuntimeError:
    """The error of a call whose tensors are on several devices."""
    names = " and ".join(sorted(map(str, devices)))
    return RuntimeError(
        f"{operator}: expected all tensors to be on the same device, but found {names}; move them with .to(device)"
    )


def _count(name: str, device: torch.device, reason: str) -> None:
    why = reason or f"{device} has no kernel for it"
    if config().device_fallback == "error":
        raise UnsupportedOperation(name, f"{why}, and TORCHPORT_DEVICE_FALLBACK=error allows none on the host")
    with _lock:
        first = name not in _counts
        _counts[name] += 1
    if first:
        events.record(events.Fallback(None, name, f"{name}: {why}", "host", (name,)))


def _device(args: Any, kwargs: Mapping[str, Any]) -> torch.device:
    if isinstance(named := kwargs.get("device"), torch.device):
        return torch.device(DEVICE_TYPE, named.index or 0)
    for tensor in tensors_in((args, dict(kwargs))):
        if tensor.device.type == DEVICE_TYPE:
            return tensor.device
    return torch.device(DEVICE_TYPE, 0)
