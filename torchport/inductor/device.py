"""What Inductor asks of a device type that it does not know: registered for ``torchport``."""

from __future__ import annotations

import functools
from typing import Any

import torch

from torchport.errors import TargetError
from torchport.inductor.codegen.scheduling import TorchportScheduling
from torchport.inductor.codegen.wrapper import TorchportWrapper
from torchport.inductor.compat import (
    BaseDeviceInterface,
    DeviceOpOverrides,
    init_backend_registration,
    register_backend_for_device,
    register_device_op_overrides,
    register_interface_for_device,
)
from torchport.inductor.scope import current

__all__ = ["code_generation", "register"]


class _Interface(BaseDeviceInterface):
    """Devices whose launches are in order, on one stream."""

    class Worker:
        """What Inductor's compiling processes ask."""

        @staticmethod
        def current_device() -> int:
            """The current device's number."""
            return int(_module().current_device())

        @staticmethod
        def set_device(device: int) -> None:
            """Change the current device."""
            _module().set_device(device)

        @staticmethod
        def get_device_properties(device: Any = None) -> Any:
            """Properties of a device."""
            return _module().get_device_properties(device)

    @staticmethod
    def current_device() -> int:
        return int(_module().current_device())

    @staticmethod
    def set_device(device: Any) -> None:
        _module().set_device(device)

    @staticmethod
    def maybe_exchange_device(device: int) -> int:
        return int(_module().exchange_device(device)) if device >= 0 else -1

    exchange_device = maybe_exchange_device

    @staticmethod
    def device_count() -> int:
        return int(_module().device_count())

    @staticmethod
    def is_available() -> bool:
        return bool(_module().is_available())

    @staticmethod
    def synchronize(device: Any = None) -> None:
        _module().synchronize(device)

    @staticmethod
    def get_raw_stream(device_idx: int) -> int:
        return 0

    @classmethod
    def get_device_properties(cls, device: Any = None) -> Any:
        return _module().get_device_properties(device)

    @staticmethod
    def get_compute_capability(device: Any = None) -> str:
        return ""

    @staticmethod
    def is_bf16_supported(including_emulation: bool = False) -> bool:
        return True

    @staticmethod
    def is_dtype_supported(dtype: torch.dtype, including_emulation: bool = False) -> bool:
        return True

    @staticmethod
    def is_triton_capable(device: Any = None) -> bool:
        return True

    @staticmethod
    def raise_if_triton_unavailable(device: Any = None) -> None:
        """Do nothing: torchport compiles for it."""


class _Overrides(DeviceOpOverrides):
    """Lines of generated code."""

    def import_get_raw_stream_as(self, name: str) -> str:
        return f"{name} = lambda device: 0"

    def set_device(self, device_idx: int) -> str:
        return "pass"

    def synchronize(self) -> str:
        return "torch.torchport.synchronize()"

    def device_guard(self, device_idx: int) -> str:
        return f"torch.torchport.device({device_idx})"


def _module() -> Any:
    return getattr(torch, "torchport")  # noqa: B009  torch learns of it at run time


class _Scheduling(TorchportScheduling):
    """Torchport's, where torchport compiles."""

    def __init__(self, scheduler: Any) -> None:
        if current() is None:
            raise TargetError(
                "Inductor's own backend has no code for tensors on a torchport device: use "
                'torch.compile(..., backend="torchport")'
            )
        super().__init__(scheduler)


def code_generation(name: str) -> Any:
    """What Inductor asks ``torch.torchport`` for by ``name`` when it first sees the device, whoever called it."""
    register_device_op_overrides("torchport", _Overrides())
    return _Scheduling if name == "Scheduling" else TorchportWrapper


@functools.cache
def register() -> None:
    """Have Inductor generate torchport's code for tensors on devices of type ``torchport``."""
    init_backend_registration()
    register_interface_for_device("torchport", _Interface)
    register_backend_for_device("torchport", _Scheduling, TorchportWrapper)
    register_device_op_overrides("torchport", _Overrides())
