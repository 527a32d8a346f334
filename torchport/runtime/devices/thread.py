"""Which graph's run a thread is in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from torchport.runtime.devices.mirrors import Mirrors
from torchport.runtime.operators import allocate_cpu

__all__ = ["Run", "current", "empty_strided_cpu", "entered"]


@dataclass(eq=False)
class Run:
    """One run of a graph: its target and its device's copies. ``host_wrote``: addresses of the tensors (their impl)
    that host operations changed. ``noted``: host operations of the graph that are recorded already.
    """

    target: str
    mirrors: Mirrors
    noted: set[str]
    host_wrote: set[int] = field(default_factory=set)


_thread = threading.local()


def current() -> Run | None:
    """The run this thread is in."""
    return getattr(_thread, "run", None)


@contextmanager
def entered(run: Run) -> Iterator[Run]:
    """Be in ``run`` while the context is open."""
    before = current()
    _thread.run = run
    try:
        yield run
    finally:
        _thread.run = before


def empty_strided_cpu(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    """What generated code allocates with in place of torch's own function: nothing in the tensor is worth copying."""
    tensor = allocate_cpu(size, stride, dtype)
    run = current()
    if run is not None:
        run.mirrors.unwritten(tensor)
    return tensor
