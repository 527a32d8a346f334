"""Locks between processes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["claimed", "locked"]


@contextlib.contextmanager
def locked(path: Path, patience: float = 60.0) -> Iterator[None]:
    """Hold the lock on ``path``, a folder or a file to be made, against other processes; its end frees it.

    Goes on without the lock where the file system has none, and after ``patience`` seconds: its holder was stopped.
    Raises OSError if the file cannot be opened.
    """
    if sys.platform == "win32":  # the last of two writers at the same moment wins
        yield
        return
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    # Not blocking: a pipe in the file's place would wait for its other end.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                break
        yield
    finally:
        _free(descriptor)


@contextlib.contextmanager
def claimed(path: Path, patience: float) -> Iterator[bool]:
    """Hold the lock of a file, made for this and removed at the end, and tell whether it is held.

    It is not where another process holds it for longer than ``patience`` seconds. It counts as held where the file
    system has no locks, or the file cannot be made: nobody else could be told. Another process may have held it
    meanwhile, so look whether there is still something to do.
    """
    descriptor = None if sys.platform == "win32" else _claim(path, patience)
    try:
        yield descriptor != _TAKEN
    finally:
        if descriptor is not None and descriptor != _TAKEN:
            with contextlib.suppress(OSError):
                os.unlink(path)
            _free(descriptor)


_TAKEN = -1


def _claim(path: Path, patience: float) -> int | None:
    """A descriptor of the file that has the lock, _TAKEN if another process has it; None if there are no locks."""
    deadline, pause = time.monotonic() + patience, 0.001
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
            os.close(descriptor)  # who held it has removed the file: another process may hold a new one
        except FileNotFoundError:
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() >= deadline:
                return _TAKEN
            time.sleep(pause)
            pause = min(2 * pause, 0.1)  # a file system in a network asks its server each time
        except OSError:
            os.close(descriptor)
            return None


def _free(descriptor: int) -> None:
    """Free a lock, also where a process that was forked meanwhile has the descriptor, too."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
