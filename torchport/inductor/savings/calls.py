"""A call of an inference graph goes straight to the graph, where the wrappers around it turned out to do nothing.

AOTAutograd and Inductor put four or five Python functions around a graph: for writes to inputs, results that are views,
autocast, profilers, what happens once. They take 3 us, twice as long as a graph of one small kernel. One call is
watched: what the graph was given and gave must be, object by object, what the call was given and gave, and the
functions between must be those, and no others, that do nothing then but to switch gradients off. That is done here,
too. While a profiler is open, or somebody has put a function in the place of ``CompiledFxGraph.__call__``, as
recordings do, the wrappers are called.

PyTorch 2.13's functions are known. Where others stand between, as in other versions, calls go through them.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from types import FrameType, FunctionType
from typing import Any

import torch
from torch.autograd import profiler

__all__ = ["Noting", "noting", "shortened"]

_TRIES = 3
"""Calls that are watched, after the first; a call that another thread takes part in, or that is recorded, is none."""

_MARK = "_torchdynamo_orig_callable"
"""Where ``torch.compiler.disable`` leaves the function that it was given."""

_REASON = "do not trace AOT-compiled graph"
_FORWARD = ("forward", "_functorch/aot_autograd.py")
_WRAPPERS = "_functorch/_aot_autograd/runtime_wrappers.py"
_GRAPH = "CompiledFxGraph"
_PASSED_BY = {_GRAPH: "_inductor/output_code.py", "SerializableCompiledFunction": _WRAPPERS}
_PLAIN = frozenset(
    {"torch", "is_grad_enabled", "_C", "_set_grad_enabled", "isinstance", "tuple", "list", "len", "AssertionError"}
)
"""Names in the wrapper that AOTAutograd generates for a graph, where it only switches gradients off."""

_open = threading.local()


_Graph = Callable[[list[Any]], Any]


class Noting:
    """What the graph within a call was given, and gave.

    whole: the outermost function of the call.
    kind: the class of the compiled graph, once it was called.
    """

    def __init__(self, whole: Callable[..., Any]) -> None:
        self.kind: Any = None
        self._whole = whole.__code__
        self._calls: list[tuple[_Graph, Sequence[Any], Sequence[Any], bool]] = []

    def add(self, graph: _Graph, frame: FrameType | None, given: list[Any], found: Any) -> None:
        """Note a call of a graph.

        graph: takes the list of its inputs, which it empties.
        frame: who called it.
        given, found: the call's inputs and results.
        """
        self._calls.append((graph, given, found, self._does_nothing(frame)))

    def _does_nothing(self, frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code is not self._whole:
            if not _is_known(frame):
                return False
            kind = type(frame.f_locals.get("self"))
            self.kind = kind if kind.__name__ == _GRAPH else self.kind
            frame = frame.f_back
        return frame is not None

    def graph(self, inputs: Sequence[Any], results: Any) -> _Graph | None:
        """What may be called for a call that had these inputs and results; None if there is no such graph."""
        if len(self._calls) != 1 or not isinstance(results, (list, tuple)):
            return None
        graph, given, found, plain = self._calls[0]
        return graph if plain and _same(given, inputs) and _same(found, results) else None


def noting() -> Noting | None:
    """What is to be told of a graph's call in this thread, if anything is."""
    found: Noting | None = getattr(_open, "noting", None)
    return found


def _same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def _is_known(frame: FrameType) -> bool:
    """Whether a function calls what it is around, and does nothing else in a graph's second call and later ones."""
    name, file = frame.f_code.co_name, frame.f_code.co_filename
    if name == "__call__":
        kind = type(frame.f_locals.get("self"))
        known = file.endswith(_PASSED_BY.get(kind.__name__, "no file"))
        return known and getattr(kind.__call__, "__code__", None) is frame.f_code
    if name == "runtime_wrapper":
        return file.endswith(_WRAPPERS)
    return name == "_runtime_wrapper" and _PLAIN.issuperset(frame.f_code.co_names)


def shortened(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """``compiled``, what AOTAutograd made of a graph, with calls that go straight to the graph where they may."""
    whole = getattr(compiled, _MARK, compiled)
    if not _is_forward(whole):
        return compiled
    left = _TRIES + 1
    direct: _Graph | None = None
    kind: Any = None
    usual: Any = None  # what the graph's class does when it is called
    watched = False  # whether gradients were on in the call that was watched

    def call(*inputs: Any) -> Any:
        nonlocal left, direct, kind, usual, watched
        enabled = torch.is_grad_enabled()
        same = enabled is watched and not profiler._is_profiler_enabled
        if direct is not None and same and kind.__call__ is usual:
            if not enabled:
                return direct(list(inputs))
            torch._C._set_grad_enabled(False)
            try:
                return direct(list(inputs))
            finally:
                torch._C._set_grad_enabled(True)
        if left == 0 or direct is not None:
            return whole(*inputs)
        left -= 1
        if left == _TRIES:  # the first call, in which some things are done once
            return whole(*inputs)
        _open.noting = notes = Noting(whole)
        try:
            results = whole(*inputs)
        finally:
            _open.noting = None
        kind, usual, watched = notes.kind, None if notes.kind is None else notes.kind.__call__, enabled
        direct = notes.graph(inputs, results) if torch.is_grad_enabled() is enabled else None
        return results

    vars(call).update(vars(whole))
    result: Callable[..., Any] = call if whole is compiled else torch.compiler.disable(call, reason=_REASON)
    return result


def _is_forward(function: object) -> bool:
    """Whether a function is the outermost of AOTAutograd's, and takes a graph's inputs one by one."""
    if not isinstance(function, FunctionType):
        return False
    code, (name, file) = function.__code__, _FORWARD
    one_by_one = code.co_argcount == 0 and bool(code.co_flags & inspect.CO_VARARGS)
    return one_by_one and code.co_name == name and code.co_filename.endswith(file)
