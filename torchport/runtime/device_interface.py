"""The interface of ``torch.cuda`` that Triton and its callers use, for the CPU: launches are synchronous."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["DeviceInterface"]


class Event:
    """A point in time, set by ``record``. Work is done when a launch returns, so waiting does nothing."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self._time: float | None = None

    def record(self, stream: Any = None) -> None:
        """Set the event to now."""
        self._time = time.perf_counter()

    def synchronize(self) -> None:
        """Return at once, as launches are synchronous."""

    def query(self) -> bool:
        """Whether the work before ``record`` is done, which is always so."""
        return True

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds from this event to ``end``. Raises RuntimeError if one of them is not recorded."""
        if self._time is None or end._time is None:
            raise RuntimeError("an event must be recorded before time is measured with it")
        return (end._time - self._time) * 1e3


class DeviceInterface:
    """``torch.cpu`` with events; other attributes are torch's."""

    Event = Event

    def __getattr__(self, name: str) -> Any:
        import torch

        return getattr(torch.cpu, name)

    def synchronize(self, device: Any = None) -> None:
        """Return at once, as launches are synchronous."""
