"""Whether this thread compiles a graph of torchport's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["in_force", "saves"]

_saves: ContextVar[bool] = ContextVar("torchport_saves", default=False)


@contextmanager
def in_force() -> Iterator[None]:
    """Save while the context is open, in this thread."""
    token = _saves.set(True)
    try:
        yield
    finally:
        _saves.reset(token)


def saves() -> bool:
    """Whether the context is open in this thread."""
    return _saves.get()
