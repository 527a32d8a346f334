"""Implements the option ``validate``: graphs compiled with it are recorded until the process ends."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torchport.config import config
from torchport.inductor.observation.graphs import is_marked, marking
from torchport.numerics.recording.record import record
from torchport.numerics.recording.recorder import Recorder
from torchport.runtime import observation

__all__ = ["finish", "folder", "watching"]

_lock = threading.Lock()
_open: tuple[ExitStack, Recorder] | None = None


@contextmanager
def watching(level: str) -> Iterator[None]:
    """Record all calls of the graphs that are compiled while the context is open.

    The first such graph begins a recording, in TORCHPORT_RECORD_DIR or a new folder, whose name is printed on stderr.
    Its level is the highest one asked for. An open ``torchport.record`` takes these graphs instead.
    """
    _begin(level)
    with marking():
        yield


def folder() -> Path | None:
    """The folder that graphs compiled with ``validate`` are recorded into; None if no such recording is open."""
    return None if _open is None else _open[1].store.path


def finish() -> None:
    """End the recording of graphs compiled with ``validate``, as the end of the process does."""
    global _open
    with _lock:
        if _open is not None:
            _open[0].close()
            _open = None


def _begin(level: str) -> None:
    global _open
    with _lock:
        if _open is not None:
            if level == "full":
                _open[1].writer.level = level
            return
        if observation.busy():
            return
        stack = ExitStack()
        recorder = stack.enter_context(record(_folder(), level, wanted=is_marked))
        _open = stack, recorder
        atexit.register(finish)
        print(f"torchport: recording what validated graphs launch into {recorder.store.path}", file=sys.stderr)


def _folder() -> Path:
    """TORCHPORT_RECORD_DIR if it is new or empty, else a new folder in it, named after time and process."""
    own = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    asked = config().record_dir
    if asked is None:
        return Path.cwd() / "torchport_record" / own
    return asked / own if asked.exists() and any(asked.iterdir()) else asked
