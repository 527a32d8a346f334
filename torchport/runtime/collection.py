"""Python's cycle collector, which walks all objects again and again while many are made that stay."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["no_collection", "off_while_compiling"]

_BACKEND = "compiler_fn"
"""Dynamo's name of the backend in the function that compiles a frame; its callbacks are not told."""


@contextmanager
def no_collection() -> Iterator[None]:
    """Turn the cycle collector off while the context is open."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Off:
    """Dynamo's callbacks: the cycle collector is off between them, for a backend that ``is_ours``."""

    def __init__(self, is_ours: Callable[[Any], bool]) -> None:
        self._is_ours = is_ours
        self._stopped = self._waits = False

    def start(self, _: Any) -> None:
        if gc.isenabled() and self._is_ours(_backend()):
            self._stopped = True
            gc.disable()

    def end(self, _: Any) -> None:
        if not self._stopped:
            return
        self._stopped = False
        if not _collects_next():
            gc.enable()
            return
        self._waits = True  # turned on now, the collector would first walk all that compiling made, for itself
        if self._collected not in gc.callbacks:
            gc.callbacks.append(self._collected)

    def _collected(self, phase: str, _: Any) -> None:
        if self._waits and phase == "stop":
            self._waits = False
            gc.enable()


_off = functools.cache(_Off)


def off_while_compiling(is_ours: Callable[[Any], bool]) -> None:
    """Turn the cycle collector off while Dynamo traces and compiles for a backend that ``is_ours``, from now on.

    ``torch._dynamo.reset`` ends that; the next call begins it again.
    """
    from torchport.compat import callback_handler  # imports Dynamo, which a process that loads a package does not need

    off = _off(is_ours)
    if off.start not in callback_handler.start_callbacks:
        callback_handler.register_start_callback(off.start)
        callback_handler.register_end_callback(off.end)


def _backend() -> Any:
    """The backend of the compilation that begins; None where it cannot be told."""
    return next((frame.f_locals.get(_BACKEND) for frame in _frames() if _BACKEND in frame.f_code.co_varnames), None)


def _collects_next() -> bool:
    """Whether the compilation that ends is one that Dynamo collects garbage after."""
    from torchport.compat import convert_frame

    compiles = convert_frame._compile.__code__
    return bool(convert_frame.config.run_gc_after_compile) and any(frame.f_code is compiles for frame in _frames())


def _frames() -> Iterator[FrameType]:
    """The calls around the caller's."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back
