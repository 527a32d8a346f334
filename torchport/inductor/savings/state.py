"""Whether this thread compiles a graph of torchport's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torchport.inductor.shared import Switch

__all__ = ["in_force", "saves"]

_saves = Switch("torchport_saves")


@contextmanager
def in_force() -> Iterator[None]:
    """Save while the context is open, in this thread."""
    with _saves.on():
        yield


def saves() -> bool:
    """Whether the context is open in this thread."""
    return _saves.is_on()
