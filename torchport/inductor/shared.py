"""A change to shared state that several threads need at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["SharedChange"]


class SharedChange:
    """A change that the first of several contexts makes and the last one takes back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo: Callable[[], None] | None = None

    @contextmanager
    def made(self, change: Callable[[], Callable[[], None]]) -> Iterator[None]:
        """Hold the change while the context is open.

        ``change``: makes it and returns what takes it back; not called while another context is open.
        """
        with self._lock:
            if self._undo is None:
                self._undo = change()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    undo, self._undo = self._undo, None
                    undo()
