"""Operators are registered with the place that they are registered at, for torch's messages.

torch looks for the line's text, too, and for that at the files of all modules that are imported: a millisecond for each
operator, thirty for the first. It drops the text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchport.compat import library_utils

__all__ = ["registering"]


@contextmanager
def registering() -> Iterator[None]:
    """Where torch names a caller while the context is open, it reads no files."""
    utils: Any = library_utils
    stock = utils.get_source
    utils.get_source = _place
    try:
        yield
    finally:
        utils.get_source = stock


def _place(stacklevel: int) -> str:
    """What ``torch._library.utils.get_source`` returns."""
    frame = sys._getframe(stacklevel)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
