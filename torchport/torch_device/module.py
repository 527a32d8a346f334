"""``torch.torchport``: what torch and its users ask a device's module."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from torchport.runtime.devices.assertions import check_assertions
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.torch_device.current import exchange_device as _exchange
from torchport.torch_device.current import index_of as _index_of
from torchport.torch_device.dispatch import untraced
from torchport.torch_device.random import generator as _generator
from torchport.torch_device.targets import memory_of, target_of, targets

__all__ = ["current_device", "device_count", "empty_cache", "is_available", "manual_seed", "memory_allocated"]

_initialized = True
"""What torch.utils.checkpoint asks before it keeps the random numbers' state."""


def is_available() -> bool:
    """Whether this machine has a device."""
    return bool(targets())


def is_initialized() -> bool:
    """Whether the device can be used, which is so when this module is registered."""
    return True


def device_count() -> int:
    """How many devices there are."""
    return len(targets())


def current_device() -> int:
    """The number of the device that ``torchport`` means."""
    return _index_of(None)


def set_device(device: int | str | torch.device) -> None:
    """Make ``torchport`` mean one of the devices."""
    exchange_device(_number(device))


def exchange_device(device: int) -> int:
    """Make ``torchport`` mean another device. Returns the number of the one before."""
    target_of(device)
    return _exchange(device)


class device:
    """A context in which ``torchport`` means one of the devices."""

    def __init__(self, device: Any) -> None:
        self._number = _number(device)

    def __enter__(self) -> None:
        self._before = exchange_device(self._number)

    def __exit__(self, *error: object) -> None:
        exchange_device(self._before)


def get_device_properties(device: Any = None) -> Any:
    """Properties of a device, as far as Inductor asks for them."""
    return SimpleNamespace(name=get_device_name(device), multi_processor_count=os.cpu_count() or 1, total_memory=0)


def get_device_name(device: Any = None) -> str:
    """The target of a device."""
    return str(targets()[_number(device)])


def synchronize(device: Any = None) -> None:
    """Wait until a device has done its work. Raises KernelAssertionError if an assertion failed."""
    memory = memory_of(_number(device))
    with memory.lock:
        memory.wait()
        check_assertions(memory)


@dataclass(frozen=True)
class Stream:
    """The work of a device, ``device_index``. It is done in order, so a device has one stream."""

    device_index: int
    device_type: str = DEVICE_TYPE

    def synchronize(self) -> None:
        """Wait until the work is done."""
        synchronize(self.device_index)

    def wait_stream(self, stream: Any) -> None:
        """Begin later work after the work of ``stream``."""
        if stream != self:
            stream.synchronize()

    def query(self) -> bool:
        """Whether the work is done, which is known after waiting for it."""
        self.synchronize()
        return True


def current_stream(device: Any = None) -> Stream:
    """The stream of a device. Checkpoints of ``torch.distributed`` copy tensors on it."""
    return Stream(_number(device))


def stream(stream: Any) -> AbstractContextManager[None]:
    """A context in which work goes to ``stream``, as it always does."""
    return nullcontext()


def memory_allocated(device: Any = None) -> int:
    """Bytes of the tensors on a device."""
    return memory_of(_number(device)).storages.allocated


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes of tensors on a device so far."""
    return memory_of(_number(device)).storages.peak


def reset_peak_memory_stats(device: Any = None) -> None:
    """Count the most bytes of tensors on a device anew."""
    memory_of(_number(device)).storages.reset_peak()


def memory_reserved(device: Any = None) -> int:
    """Bytes of a device's memory that this process holds, unused ones included."""
    memory = memory_of(_number(device))
    return memory.pool.used + memory.pool.unused


def empty_cache() -> None:
    """Give memory that no tensor uses back to the devices."""
    for index in range(len(targets())):
        memory_of(index).clear()


@untraced
def manual_seed(seed: int) -> None:
    """Seed the random numbers of all devices: they are the same on each."""
    _generator.manual_seed(seed)


@untraced
def manual_seed_all(seed: int) -> None:
    """Seed the random numbers of all devices."""
    manual_seed(seed)


@untraced
def seed() -> None:
    """Seed the random numbers from the operating system's."""
    _generator.seed()


seed_all = seed


@untraced
def initial_seed() -> int:
    """The number that the random numbers were seeded with."""
    return _generator.initial_seed()


@untraced
def get_rng_state(device: Any = None) -> torch.Tensor:
    """The state of the random numbers."""
    return _generator.get_state()


@untraced
def set_rng_state(new_state: torch.Tensor, device: Any = None) -> None:
    """Set the state of the random numbers."""
    _generator.set_state(new_state)


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The types of autocast."""
    return [torch.bfloat16, torch.float16]


def __getattr__(name: str) -> Any:
    if name not in _CODE_GENERATION:
        raise AttributeError(f"module 'torch.torchport' has no attribute '{name}'")
    from torchport.inductor.device import code_generation  # here: it imports Inductor, which asks for it

    return code_generation(name)


_CODE_GENERATION = ("Scheduling", "PythonWrapperCodegen", "CppWrapperCodegen", "WrapperFxCodegen")


def _is_in_bad_fork() -> bool:
    return False


def _number(device: Any) -> int:
    if device is None or isinstance(device, int):
        return current_device() if device is None else device
    return _index_of(torch.device(device))
