"""Collects the kernels and library calls that graphs become while they are compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Captured",
    "GraphCode",
    "KernelSource",
    "capture_kernels",
    "capturing",
    "for_program",
    "without_graph_caches",
]


@dataclass(frozen=True)
class KernelSource:
    """A kernel that code was generated for, as ``torchport.inductor.kernels.prepare`` takes it.

    ``function``: the name of the Triton function in ``source``.
    ``key``: the cache key of its object.
    ``target``: its target's text form.
    ``types``: Triton's type of each argument.
    ``source``: its text.
    ``operations``: the FX targets that it computes.
    ``grid``: how its grid follows from its arguments (a ``torchport.inductor.kernels.Grid``).
    ``sizes``: elements in x, y and z for the example inputs.
    ``config``: its block sizes as ``torchport.quarantine`` writes them.
    """

    function: str
    key: str
    target: str
    types: Mapping[str, str]
    source: str
    operations: tuple[str, ...]
    grid: Any = None
    sizes: tuple[int, ...] = ()
    config: str = ""


@dataclass(frozen=True)
class GraphCode:
    """The code of one graph.

    ``code``: what Inductor wrote around the kernels.
    ``kernels``: the kernels that it launches, by name.
    ``constants``: tensors that it reads by name and that are no inputs.
    ``written``: numbers of the inputs that the graph writes.
    ``exact``: whether the code takes the graph's inputs and returns its results, and nothing is done around it.
    """

    code: str
    kernels: Mapping[str, KernelSource]
    constants: Mapping[str, Any]
    written: tuple[int, ...]
    exact: bool


@dataclass
class Captured:
    """What graphs became.

    ``kernels``: one entry for each call of a kernel.
    ``externs``: the other calls (``torchport.inductor.codegen.externs.ExternCall``).
    ``graphs``: the code of each.
    ``program``: whether they are captured for a program, which calls no operators of torchport's own.
    """

    kernels: list[KernelSource] = field(default_factory=list)
    externs: list[Any] = field(default_factory=list)
    graphs: list[GraphCode] = field(default_factory=list)
    program: bool = False


_captured: ContextVar[Captured | None] = ContextVar("torchport_captured", default=None)


@contextmanager
def capture_kernels(program: bool = False) -> Iterator[Captured]:
    """Collect the kernels of every graph compiled in this thread while the context is open.

    ``program``: as in ``Captured``.
    """
    into = Captured(program=program)
    token = _captured.set(into)
    try:
        yield into
    finally:
        _captured.reset(token)


def capturing() -> Captured | None:
    """The open ``capture_kernels`` of this thread, if there is one."""
    return _captured.get()


def for_program() -> bool:
    """Whether this thread's graphs are captured for a program."""
    into = _captured.get()
    return into is not None and into.program


@contextmanager
def without_graph_caches() -> Iterator[None]:
    """Compile graphs even where Inductor's or AOTAutograd's cache holds them."""
    from torchport.inductor.compat import config, functorch_config

    with functorch_config.patch(enable_autograd_cache=False), config.patch(fx_graph_cache=False):
        yield
