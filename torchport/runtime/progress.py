"""A line on the terminal that says what is being compiled, and goes away when that is done.

It is shown where standard error is a terminal, for compilations that take longer than a moment. It is written past
Python's streams, in one call: a process that is forked meanwhile inherits no lock and no half of a line.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time

from torchport.config import config
from torchport.runtime.events import Step

__all__ = ["show"]

_DELAY = 1.0  # seconds: what is faster needs no line
_EVERY = 0.2  # seconds between two looks
_CLEAR = b"\r\x1b[K"


class _Line:
    """The line of this process. Each thread compiles one graph at a time; the one that began first is shown."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[int, tuple[float, Step]] = {}  # by thread: when its graph began, and how far it has come
        self._terminal: int | None = None
        self._ticking = False
        self._written = b""

    def show(self, step: Step) -> None:
        """Take note of this thread's ``step``."""
        thread = threading.get_ident()
        with self._lock:
            if step.ended:
                if self._steps.pop(thread, None) is not None and not self._steps:
                    self._write(b"")
            elif thread in self._steps:
                self._steps[thread] = (self._steps[thread][0], step)
            elif not step.kernels and (terminal := _terminal()) is not None:  # asked once, as a graph begins
                self._terminal = terminal
                self._steps[thread] = (time.monotonic(), step)
                if not self._ticking:
                    self._ticking = True
                    threading.Thread(target=self._tick, name="torchport-progress", daemon=True).start()

    def _tick(self) -> None:
        while True:
            time.sleep(_EVERY)
            with self._lock:
                if not self._steps:
                    self._ticking = False
                    return
                began, step = min(self._steps.values(), key=lambda entry: entry[0])
                seconds = time.monotonic() - began
                if seconds >= _DELAY:
                    self._write(_text(step, seconds, len(self._steps) - 1).encode())

    def _write(self, line: bytes) -> None:
        """Put ``line`` in the place of the last one. A stopped terminal (Ctrl-S) is left alone: it would block."""
        if self._terminal is None or line == self._written:
            return
        with contextlib.suppress(OSError):  # the terminal is gone: nobody reads it
            if select.select([], [self._terminal], [], 0)[1]:
                os.write(self._terminal, _CLEAR + line[: _width(self._terminal)])
                self._written = line


def _terminal() -> int | None:
    """The descriptor of the terminal to write to; None if the user wants no line, or would not see one."""
    settings = config()
    if not settings.progress or settings.debug:  # with TORCHPORT_DEBUG the events themselves are printed
        return None
    try:
        return sys.stderr.fileno() if sys.stderr.isatty() else None
    except (AttributeError, ValueError, OSError):  # no stream, a closed one, or one without a descriptor
        return None


def _width(terminal: int) -> int:
    """Characters of a line, less one: a full line would move the cursor to the next."""
    try:
        return (os.get_terminal_size(terminal).columns or 80) - 1
    except OSError:
        return 79


def _text(step: Step, seconds: float, others: int) -> str:
    """The line for ``step``, with what may be cut off at its end."""
    more = f" and {_counted(others, 'more graph')}" if others else ""
    line = f"torchport: compiling {step.graph}{more}, {seconds:.0f} s"
    if step.kernel:
        return f"{line}: {step.ready} of {_counted(step.kernels, 'kernel')}, now {step.kernel}"
    return f"{line}: {_counted(step.kernels, 'kernel')} so far" if step.kernels else line


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_line = _Line()


def show(step: Step) -> None:
    """Show how far this thread's graph has come; a listener of ``torchport.runtime.events``."""
    _line.show(step)


def _forked() -> None:
    global _line
    _line = _Line()  # the parent's thread draws the parent's line


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
