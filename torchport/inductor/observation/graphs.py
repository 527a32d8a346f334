"""Observes which graphs are compiled and called while a context is open; nothing is patched otherwise."""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from torchport.inductor.codegen.description import DESCRIPTION
from torchport.inductor.compat import CompiledFxGraph
from torchport.inductor.shared import SharedChange, Switch

__all__ = ["generated_code", "is_cuda_graph", "is_marked", "marking", "observing_graphs"]

Around = Callable[[Any, Sequence[Any], Callable[[Sequence[Any]], Any]], Any]
"""Called with a graph, its inputs (a list that the graph empties) and the function that runs it."""

_lock = threading.Lock()


@contextmanager
def observing_graphs(around: Around) -> Iterator[None]:
    """Call ``around`` in place of every compiled graph, in every thread, while the context is open."""
    kind: Any = CompiledFxGraph
    original = kind.__call__

    def call(self: Any, inputs: Sequence[Any]) -> Any:
        return around(self, inputs, lambda values: original(self, values))

    with _lock:
        kind.__call__ = call
    try:
        yield
    finally:
        with _lock:
            kind.__call__ = original


@dataclass(frozen=True)
class _Known:
    graph: weakref.ref[Any]
    code: dict[str, Any] | None
    replayed: bool


_known: dict[int, _Known] = {}  # by id: compiled graphs have no hash


def _about(graph: Any) -> _Known:
    known = _known.get(id(graph))
    if known is None or known.graph() is not graph:
        partitions = getattr(getattr(graph, "compiled_fn_runner", None), "partitions", ())  # wrapped one by one
        functions = _functions(graph.current_callable)
        wrapped = any(function.__qualname__.startswith("cudagraphify") for function in functions)
        code = _search(graph.current_callable)
        known = _known[id(graph)] = _Known(weakref.ref(graph), code, bool(partitions) or wrapped)
    return known


def generated_code(graph: Any) -> dict[str, Any] | None:
    """The globals of the module generated for a compiled graph; None if torchport did not compile it."""
    return _about(graph).code


def is_cuda_graph(graph: Any) -> bool:
    """Whether a compiled graph's kernels are replayed as a CUDA graph, or are being captured into one."""
    return _about(graph).replayed or ("cuda" in graph.device_types and torch.cuda.is_current_stream_capturing())


def _search(start: Any) -> dict[str, Any] | None:
    modules = (function.__globals__ for function in _functions(start))
    return next((module for module in modules if DESCRIPTION in module), None)


def _functions(start: Any) -> Iterator[types.FunctionType]:
    """A graph's generated function and its wrappers, found through closures, methods and partial functions."""
    todo, seen = [start], set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, types.MethodType):
            todo += [value.__func__, value.__self__]
        elif isinstance(value, types.FunctionType):
            yield value
            todo += [cell.cell_contents for cell in value.__closure__ or () if callable(cell.cell_contents)]
        elif hasattr(value, "func"):
            todo.append(value.func)


_post_compile = SharedChange()
_marking = Switch("torchport_marking")
_marked: dict[int, weakref.ref[Any]] = {}


@contextmanager
def marking() -> Iterator[None]:
    """Mark the graphs that this thread compiles, or takes out of a cache, while the context is open."""
    with _post_compile.made(_mark_after_compiling), _marking.on():
        yield


def _mark_after_compiling() -> Callable[[], None]:
    kind: Any = CompiledFxGraph
    original = kind.post_compile

    def post_compile(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Every graph, compiled or cached, passes here once."""
        if _marking.is_on():
            _marked[id(self)] = weakref.ref(self)
        return original(self, *args, **kwargs)

    kind.post_compile = post_compile

    def undo() -> None:
        kind.post_compile = original

    return undo


def is_marked(graph: Any) -> bool:
    """Whether a compiled graph was made while ``marking`` was open."""
    reference = _marked.get(id(graph))
    return reference is not None and reference() is graph
