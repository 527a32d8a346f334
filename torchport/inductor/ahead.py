"""Compiles kernels in a second process while Inductor generates the code of others.

Inductor's lowering and code generation are Python and hold the interpreter's lock, and so does most of a kernel's
compilation. A child is forked as a graph begins, and imports the compiler while there is no kernel yet; it gets kernels
as they are defined and sends objects back. When all kernels are known the parent compiles from the last one backwards
until it meets the child. The child runs no torch code that uses threads. If it dies or stops answering the parent
compiles the rest: nothing depends on it.
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import select
import signal
import struct
import time
import warnings
from collections.abc import Callable

from torchport import phases
from torchport.config import config
from torchport.phases import Phase

__all__ = ["BackgroundCompiler"]

_LENGTH = struct.Struct("<Q")
_PATIENCE = 30.0  # seconds without an answer before the child is taken to hang
_MOST_KERNELS = 4096

Compile = Callable[[str, str], bytes]

_numbers = itertools.count(1)


class BackgroundCompiler:
    """A child process that compiles kernels in the order they are submitted. Kernels are named by their cache keys.

    ``compile_``: compiles a kernel of that name and source. ``prepare``: what the child does first.
    """

    def __init__(self, compile_: Compile, prepare: Callable[[], None] = lambda: None) -> None:
        self._compile, self._prepare = compile_, prepare
        self._started = False
        self._indices: dict[str, int] = {}
        self._results: dict[str, bytes | None] = {}
        self._pid = 0
        self._requests = self._answers = -1
        self._outgoing = self._incoming = b""
        self._lane = ""
        self._claims = mmap.mmap(-1, _MOST_KERNELS)  # shared: kernels the parent has taken for itself

    @staticmethod
    def is_available() -> bool:
        """Whether there is a processor for a second process, and processes can be forked."""
        if not hasattr(os, "fork") or not hasattr(os, "sched_getaffinity"):
            return False
        return config().compile_ahead and len(os.sched_getaffinity(0)) > 1

    def start(self) -> None:
        """Start the child, unless it was started. It gets ready while there is no kernel yet."""
        if not self._started:
            self._started = True
            with phases.phase(Phase.WAITING, "start"):
                self._start()

    def submit(self, key: str, name: str, source: str) -> None:
        """Hand a kernel to the child."""
        if key in self._indices or len(self._indices) >= _MOST_KERNELS:
            return
        self.start()
        self._indices[key] = len(self._indices)
        data = pickle.dumps((key, name, source))
        self._outgoing += _LENGTH.pack(len(data)) + data
        self._exchange(0)

    def result(self, key: str) -> bytes | None:
        """The object of a kernel from the child, waiting for it if it is being compiled. None: compile it here."""
        index = self._indices.get(key)
        if index is None:
            return None
        self._exchange(0)
        if self._pid and index > len(self._results):  # the child answers in order: it has not come to this one
            self._claims[index] = 1
            return None
        deadline = time.monotonic() + _PATIENCE
        with phases.phase(Phase.WAITING):
            while self._pid and key not in self._results:
                self._exchange(deadline - time.monotonic())
                if time.monotonic() > deadline:
                    self.stop()
        return self._results.get(key)

    def stop(self) -> None:
        """End the child."""
        if self._pid:
            for end in (self._requests, self._answers):
                os.close(end)
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _start(self) -> None:
        requests, answers = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where there are other threads
            pid = os.fork()
        if pid == 0:
            os.close(requests[1])
            os.close(answers[0])
            _serve(requests[0], answers[1], self._compile, self._prepare, self._claims)
        os.close(requests[0])
        os.close(answers[1])
        os.set_blocking(requests[1], False)  # the child may be blocked itself, on an answer nobody has read yet
        os.set_blocking(answers[0], False)
        self._pid, self._requests, self._answers = pid, requests[1], answers[0]
        self._lane = f"compile process {next(_numbers)}"

    def _exchange(self, timeout: float) -> None:
        """Send and receive what is possible, waiting at most ``timeout`` seconds for an answer."""
        if not self._pid:
            return
        writing = [self._requests] if self._outgoing else []
        readable, writable, _ = select.select([self._answers], writing, [], max(0.0, timeout))
        try:
            if writable:
                self._outgoing = self._outgoing[os.write(self._requests, self._outgoing) :]
            if readable:
                data = os.read(self._answers, 1 << 20)
                if not data:
                    self.stop()
                self._incoming += data
        except OSError:
            self.stop()
        while len(self._incoming) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._incoming)[0]
            if len(self._incoming) < end:
                break
            key, packed, spans = pickle.loads(self._incoming[_LENGTH.size : end])
            self._incoming = self._incoming[end:]
            self._results[key] = packed
            phases.merge(spans, self._lane)


def _serve(requests: int, answers: int, compile_: Compile, prepare: Callable[[], None], claims: mmap.mmap) -> None:
    """The child: compile what comes until the pipe closes. The parent compiles what fails again, and reports why."""
    code = 1
    if phases.measuring():
        phases.start()  # anew: what the parent measured is its own
    try:
        prepare()
        with open(requests, "rb") as source:
            index = 0
            while len(header := source.read(_LENGTH.size)) == _LENGTH.size:
                key, name, text = pickle.loads(source.read(_LENGTH.unpack(header)[0]))
                packed = None if claims[index] else _attempt(compile_, name, text)
                data = pickle.dumps((key, packed, phases.take()))
                view = memoryview(_LENGTH.pack(len(data)) + data)
                while view:
                    view = view[os.write(answers, view) :]
                index += 1
        code = 0
    finally:
        os._exit(code)


def _attempt(compile_: Compile, name: str, text: str) -> bytes | None:
    from torchport.errors import TorchportError

    try:
        return compile_(name, text)
    except TorchportError:
        return None  # the parent compiles it again and reports why
