"""A process that does one thing after the other for this one, and may crash or hang without harm."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch._inductor.compile_fx", "triton.language", "torchport.compile"])
CACHES = ("TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


class Died(Exception):
    """The process crashed or hung; the message says which, and ends with what it wrote last."""


class Worker:
    """Calls functions in a process of its own, which has empty caches and is started anew after `calls` calls.

    timeout: seconds that one call may take.
    """

    def __init__(self, timeout: float, calls: int = 100) -> None:
        self.timeout = timeout
        self.calls = calls
        self._left = 0
        self._process: Any = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns. Raises Died, or RuntimeError with the traceback of an exception."""
        if not self._left:
            self.close()
            self._start()
        self._left -= 1
        try:
            self._connection.send((function, arguments))
            if not self._connection.poll(self.timeout):
                raise Died(self._end(f"hang: no result within {self.timeout:g} s"))
            returned, value = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(10)
            raise Died(self._end(f"crash: {_status(self._process.exitcode)}")) from None
        if not returned:
            raise RuntimeError(value)
        return value

    def close(self) -> None:
        """End the process and delete its caches."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._process = None
        self._left = 0

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="torchport-fuzz-")
        self._connection, theirs = SERVER.Pipe()
        self._process = SERVER.Process(target=_serve, args=(theirs, self._folder), daemon=True)
        self._process.start()
        theirs.close()
        self._left = self.calls

    def _end(self, what: str) -> str:
        errors = Path(self._folder, "stderr")
        written = errors.read_text(errors="replace").strip().splitlines() if errors.exists() else []
        self.close()
        return what + (f" ({written[-1][:200]})" if written else "")


def _status(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"


def _serve(connection: Connection, folder: str) -> None:
    for name in CACHES:
        os.environ[name] = str(Path(folder, name))
    for number in (1, 2):
        os.dup2(os.open(Path(folder, "stderr"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    import torch

    torch.set_num_threads(2)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except BaseException:  # noqa: BLE001 - whatever it is, the process that called is told
            answer = False, traceback.format_exc()
        connection.send(answer)
