"""Python's cycle collector, which walks all objects again and again while many are made that stay."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torchport.compat import callback_handler

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


@functools.cache
def off_while_compiling(is_ours: Callable[[Any], bool]) -> None:
    """Turn the cycle collector off while Dynamo traces and compiles for a backend that ``is_ours``, from now on."""
    stopped = False

    def start(_: Any) -> None:
        nonlocal stopped
        if gc.isenabled() and is_ours(_backend()):
            stopped = True
            gc.disable()

    def end(_: Any) -> None:
        nonlocal stopped
        if stopped:
            stopped = False
            gc.enable()

    callback_handler.register_start_callback(start)
    callback_handler.register_end_callback(end)


def _backend() -> Any:
    """The backend of the compilation that begins; None where it cannot be told."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if _BACKEND in frame.f_code.co_varnames:
            return frame.f_locals.get(_BACKEND)
        frame = frame.f_back
    return None
