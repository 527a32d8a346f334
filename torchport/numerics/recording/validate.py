"""The option ``validate``: what graphs compiled with it launch is recorded until the process ends."""

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
from torchport.inductor.observed import is_marked, marking
from torchport.numerics.recording.record import record
from torchport.numerics.recording.recorder import Recorder
from torchport.runtime import observation

__all__ = ["finish", "folder", "watching"]

_lock = threading.Lock()
_open: tuple[ExitStack, Recorder] | None = None


@contextmanager
def watching(level: str) -> Iterator[None]:
    """Have the graphs that are compiled while the context is open recorded whenever they are called.

    The first one begins a recording, in TORCHPORT_RECORD_DIR or in a folder of its own, which is named once on stderr.
    Its level is the highest asked for. Where a ``torchport.record`` is open, that one sees these graphs too.
    """
    _begin(level)
    with marking():
        yield


def folder() -> Path | None:
    """Where graphs compiled with ``validate`` are recorded now."""
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
                _open[1].level = level
            return
        if observation.busy():
            return
        stack = ExitStack()
        recorder = stack.enter_context(record(_folder(), level, wanted=is_marked))
        _open = stack, recorder
        atexit.register(finish)
        print(f"torchport: recording what validated graphs launch into {recorder.store.path}", file=sys.stderr)


def _folder() -> Path:
    """The folder asked for if it holds nothing yet, else one of the process's own in it."""
    own = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    asked = config().record_dir
    if asked is None:
        return Path.cwd() / "torchport_record" / own
    return asked / own if asked.exists() and any(asked.iterdir()) else asked
