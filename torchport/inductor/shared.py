"""Changes to what several threads share: made while any of them needs it, or in force in one thread only."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

__all__ = ["SharedChange", "Switch"]


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


class Switch:
    """Whether a change is in force in this thread: a wrapper around a function of torch's asks for it."""

    def __init__(self, name: str) -> None:
        self._on: ContextVar[bool] = ContextVar(name, default=False)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Have it on while the context is open."""
        token = self._on.set(True)
        try:
            yield
        finally:
            self._on.reset(token)

    def installed(self, install: Callable[[], None]) -> Callable[[], AbstractContextManager[None]]:
        """A decorator: the function opens the context. What it does itself, putting wrappers in place, it does once."""
        once = functools.cache(install)

        @functools.wraps(install)
        def opened() -> AbstractContextManager[None]:
            once()
            return self.on()

        return opened

    def is_on(self) -> bool:
        """Whether the context is open in this thread."""
        return self._on.get()
