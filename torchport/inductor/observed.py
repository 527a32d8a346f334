"""Calls of compiled graphs, seen from outside: nothing of them is changed while nobody looks."""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch._inductor.output_code import CompiledFxGraph

from torchport.inductor.description import DESCRIPTION

__all__ = ["generated_code", "is_marked", "marking", "observing_graphs"]

Around = Callable[[Any, Sequence[Any], Callable[[Sequence[Any]], Any]], Any]
"""Called in place of a graph with the graph, its inputs (a list that the graph empties) and what runs it."""

_lock = threading.Lock()


@contextmanager
def observing_graphs(around: Around) -> Iterator[None]:
    """Have ``around`` called for every compiled graph that is called while the context is open, in every thread."""
    kind: Any = CompiledFxGraph
    original = kind.__call__

    def call(self: Any, inputs: Sequence[Any]) -> Any:
        return around(self, inputs, lambda given: original(self, given))

    with _lock:
        kind.__call__ = call
    try:
        yield
    finally:
        with _lock:
            kind.__call__ = original


_codes: dict[int, tuple[weakref.ref[Any], dict[str, Any] | None]] = {}  # by id: compiled graphs have no hash


def generated_code(graph: Any) -> dict[str, Any] | None:
    """The globals of the module that was generated for a compiled graph; None where it is not torchport's."""
    known = _codes.get(id(graph))
    if known is None or known[0]() is not graph:
        known = _codes[id(graph)] = weakref.ref(graph), _search(graph.current_callable)
    return known[1]


def _search(start: Any) -> dict[str, Any] | None:
    """Through what is wrapped around a graph's code: closures, methods and partial functions."""
    todo, seen = [start], set()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, types.MethodType):
            todo += [one.__func__, one.__self__]
        elif isinstance(one, types.FunctionType):
            if DESCRIPTION in one.__globals__:
                return one.__globals__
            todo += [cell.cell_contents for cell in one.__closure__ or () if callable(cell.cell_contents)]
        elif hasattr(one, "func"):
            todo.append(one.func)
    return None


_marking: ContextVar[bool] = ContextVar("torchport_marking", default=False)
_marked: dict[int, weakref.ref[Any]] = {}
_patched = False


@contextmanager
def marking() -> Iterator[None]:
    """Mark the graphs that this thread compiles, or takes out of a cache, while the context is open."""
    global _patched
    with _lock:
        if not _patched:  # from the first marked graph on: every graph, compiled or cached, passes here once
            _patched = True
            kind: Any = CompiledFxGraph
            original = kind.post_compile

            def post_compile(self: Any, *args: Any, **kwargs: Any) -> Any:
                if _marking.get():
                    _marked[id(self)] = weakref.ref(self)
                return original(self, *args, **kwargs)

            kind.post_compile = post_compile
    token = _marking.set(True)
    try:
        yield
    finally:
        _marking.reset(token)


def is_marked(graph: Any) -> bool:
    """Whether a compiled graph was made while ``marking`` was open."""
    found = _marked.get(id(graph))
    return found is not None and found() is graph
