"""Tells which run of a graph a thread is in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from torchport.plugin import Launcher
from torchport.runtime.devices.mirrors import Mirrors
from torchport.runtime.operators import allocate_cpu

__all__ = ["GraphRun", "Products", "current", "empty_strided_cpu", "entered"]


class Products(Protocol):
    """Where the kernels of matrix products come from, if they are not compiled when they are needed."""

    def __hash__(self) -> int:
        """It is part of a cache's key."""

    def load(self, target: Any, variant: Any, /) -> tuple[Launcher, int] | str:
        """A kernel (``torchport.runtime.devices.products.Variant``) that is linked, or why there is none."""


@dataclass(eq=False)
class GraphRun:
    """One run of a graph.

    target: the graph's target
    mirrors: the device's copies of tensors
    noted: host operators of the graph that are already in the events
    host_wrote: ids of the tensors that host operators changed
    products: where the kernels of matrix products come from; None to compile them
    """

    target: str
    mirrors: Mirrors
    noted: set[str]
    host_wrote: set[int] = field(default_factory=set)
    products: Products | None = None


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
