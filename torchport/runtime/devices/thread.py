"""Tells which run of a graph a thread is in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from torchport.runtime.devices.mirrors import Mirrors
from torchport.runtime.operators import allocate_cpu

__all__ = ["GraphRun", "current", "empty_strided_cpu", "entered"]


@dataclass(eq=False)
class GraphRun:
    """One run of a graph.

    target: the graph's target
    mirrors: the device's copies of tensors
    noted: host operators of the graph that are already in the events
    host_wrote: ids of the tensors that host operators changed
    """

    target: str
    mirrors: Mirrors
    noted: set[str]
    host_wrote: set[int] = field(default_factory=set)


_thread = threading.local()


def current() -> GraphRun | None:
    """The run this thread is in."""
    return getattr(_thread, "run", None)


@contextmanager
def entered(run: GraphRun) -> Iterator[GraphRun]:
    """Make ``run`` this thread's run while the context is open."""
    before = current()
    _thread.run = run
    try:
        yield run
    finally:
        _thread.run = before


def empty_strided_cpu(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    """Replaces torch's function in generated code: notes that the new tensor need not be copied."""
    tensor = allocate_cpu(size, stride, dtype)
    run = current()
    if run is not None:
        run.mirrors.unwritten(tensor)
    return tensor
