"""The current device: what ``torchport`` means without a number."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["current_device", "exchange_device", "index_of", "is_native", "keeper"]


class _Process:
    """Keeps one for the whole process, where PyTorch has no guard of ours that keeps one for each thread."""

    _index = 0

    def current_device(self) -> int:
        return self._index

    def exchange_device(self, index: int) -> int:
        before, self._index = self._index, index
        return before


keeper: Any = _Process()
"""What knows the current device: the C++ part (native.py), if it is loaded."""


def is_native() -> bool:
    """Whether the C++ part is loaded."""
    return not isinstance(keeper, _Process)


def current_device() -> int:
    """The number of the current device."""
    index: int = keeper.current_device()
    return index


def exchange_device(index: int) -> int:
    """Make ``torchport`` mean ``torchport:index``. Returns the number before."""
    before: int = keeper.exchange_device(index)
    return before


def index_of(device: torch.device | None) -> int:
    """The number of a device; without one, the current device's."""
    return current_device() if device is None or device.index is None else device.index
