"""Inputs that are numbers: writes into tensors of float64 without dimensions, and floats that change from call to call.

Dynamo makes a symbol of the value of such an input, in case the program reads it. AOTAutograd finds that nothing does,
and has Dynamo trace again; that time Dynamo takes writes into the input for reads that nothing uses, and removes them.

A float that has changed once becomes a tensor, as far as operations take one in its place. What is left (``alpha`` of
``add``) is read while the graph is compiled, which Dynamo's guards know, and the caches of graphs do not: they answer
for the next value with the graph of an earlier one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from torchport.inductor.compat import RestartAnalysis, TensorifyState, graph_compile, tensorify
from torchport.inductor.upstream.corrections import applies

__all__ = ["constant_where_read", "traced_once"]

_read: ContextVar[set[str] | None] = ContextVar("torchport_read_numbers", default=None)
"""Symbols of floats that are read while this thread compiles a graph."""


@contextmanager
def traced_once(gm: torch.fx.GraphModule) -> Iterator[None]:
    """While the context is open, AOTAutograd takes the symbols that Dynamo's graph ``gm`` does not read for done."""
    examples = [node.meta.get("example_value") for node in gm.graph.nodes]
    scalars = [e for e in examples if isinstance(e, torch.Tensor) and e.dtype == torch.float64 and e.dim() == 0]
    known = TensorifyState.force_specializations
    added: set[str] = set()
    if scalars and applies("scalar-writes"):
        shapes = scalars[0].fake_mode.shape_env  # type: ignore[attr-defined]
        read = {s for e in examples if isinstance(e, torch.SymFloat) for s in e.node.expr.free_symbols}
        added = {str(symbol) for symbol in shapes.var_to_sources if symbol not in read} - known
    known |= added
    try:
        yield
    finally:
        known -= added


@contextmanager
def constant_where_read() -> Iterator[None]:
    """While the context is open, a float that is read while a graph is compiled is a constant of all of the graph.

    Dynamo traces again for it, as for floats of which nothing becomes a tensor.
    """
    _install()
    token = _read.set(set())
    try:
        yield
    finally:
        _read.reset(token)


@functools.cache
def _install() -> None:
    """Stand around AOTAutograd's pass that makes tensors of floats."""
    make: Callable[..., None] = graph_compile.tensorify_python_scalars
    guard: Callable[[Any], Any] = tensorify.guard_scalar

    @functools.wraps(guard)
    def noted(value: Any) -> Any:
        if (read := _read.get()) is not None:
            read |= {str(symbol) for symbol in value.node.expr.free_symbols}
        return guard(value)

    @functools.wraps(make)
    def make_or_restart(*args: Any) -> None:
        make(*args)
        read = _read.get()
        if read and applies("scalars-read-once") and (new := read - TensorifyState.force_specializations):
            for symbol in new:
                TensorifyState.specialize(symbol)
            raise RestartAnalysis(restart_reason="a float that is read while the graph is compiled")

    tensorify.guard_scalar = noted
    graph_compile.tensorify_python_scalars = make_or_restart
