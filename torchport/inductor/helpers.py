"""A second process that compiles kernels: its pipes, and the two ways to start it.

A forked process begins with all that its parent has imported. A clean one imports it anew, which takes seconds, and so
it stays for the next graphs. It is for a parent that has a process group: a fork would leave the group's threads behind
in the middle of what they do.
"""

from __future__ import annotations

import atexit
import itertools
import mmap
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from typing import BinaryIO

from torchport import phases
from torchport.runtime import ranks

__all__ = ["MOST_KERNELS", "Compile", "Helper", "end", "give_back", "main", "take"]

MOST_KERNELS = 4096
"""How many kernels a helper has at most before it has answered."""

_LENGTH = struct.Struct("<Q")

Compile = Callable[[str, str, str], bytes | None]
"""Compiles a kernel of a key, a name and a source; None: it cannot, and the parent is to say why."""

_numbers = itertools.count(1)


class Helper:
    """A process that compiles kernels in the order of their numbers, and answers in it.

    ``answered``: how many it has answered. ``results``: the objects, by number. ``ready``: whether it has imported all.
    """

    def __init__(self, process: subprocess.Popen[bytes] | int, ends: tuple[int, int], claims: mmap.mmap) -> None:
        self._process, self._claims = process, claims
        self._requests, self._answers = ends
        for end in ends:  # the helper may be blocked itself, on an answer nobody has read yet
            os.set_blocking(end, False)
        self._outgoing = self._incoming = b""
        self._lane = f"compile process {next(_numbers)}"
        self._environment = dict(os.environ)
        self.alive, self.ready = True, isinstance(process, int)
        self.submitted = self.answered = 0
        self.results: dict[int, bytes | None] = {}

    @property
    def clean(self) -> bool:
        """Whether it may be used again, for another graph."""
        return not isinstance(self._process, int)

    def fits(self) -> bool:
        """Whether it still runs, and in the environment that this process has now."""
        self.exchange(0)
        return self.alive and self._environment == dict(os.environ)

    def submit(self, key: str, name: str, source: str) -> int | None:
        """Hand over a kernel; returns its number, None where there are too many."""
        number = self.submitted
        if number - self.answered >= MOST_KERNELS:
            return None
        self.submitted += 1
        self._claims[number % MOST_KERNELS] = 0
        self.send((phases.measuring(), (key, name, source)))
        return number

    def send(self, message: object) -> None:
        """Hand over anything that can be pickled."""
        data = pickle.dumps(message)
        self._outgoing += _LENGTH.pack(len(data)) + data
        self.exchange(0)

    def claim(self, number: int) -> None:
        """Have it leave a kernel out."""
        self._claims[number % MOST_KERNELS] = 1

    def exchange(self, timeout: float) -> None:
        """Send and receive what is possible, waiting at most ``timeout`` seconds for an answer."""
        if not self.alive:
            return
        writing = [self._requests] if self._outgoing else []
        readable, writable, _ = select.select([self._answers], writing, [], max(0.0, timeout))
        try:
            if writable:
                self._outgoing = self._outgoing[os.write(self._requests, self._outgoing) :]
            if readable:
                data = os.read(self._answers, 1 << 20)
                if not data:
                    self.kill()
                self._incoming += data
        except OSError:
            self.kill()
        while len(self._incoming) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._incoming)[0]
            if len(self._incoming) < end:
                break
            packed, spans = pickle.loads(self._incoming[_LENGTH.size : end])
            self._incoming = self._incoming[end:]
            if not self.ready:  # the first answer of a clean process says that it is
                self.ready = True
                continue
            self.results[self.answered] = packed
            self.answered += 1
            phases.merge(spans, self._lane)

    def kill(self) -> None:
        """End it."""
        if not self.alive:
            return
        self.alive = False
        for end in (self._requests, self._answers):
            os.close(end)
        if isinstance(self._process, int):
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        else:
            self._process.kill()
            self._process.wait()


def _forked(compile_: Compile, prepare: Callable[[], None]) -> Helper:
    requests, answers = os.pipe(), os.pipe()
    claims = mmap.mmap(-1, MOST_KERNELS)  # shared: kernels the parent has taken for itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where there are other threads
        pid = os.fork()
    if pid == 0:
        os.close(requests[1])
        os.close(answers[0])
        _serve(os.fdopen(requests[0], "rb"), answers[1], compile_, prepare, claims)
    os.close(requests[0])
    os.close(answers[1])
    return Helper(pid, (requests[1], answers[0]), claims)


_START = "import sys; sys.path[:] = {path!r}; from torchport.inductor.helpers import main; main(*{ends!r})"


def _started(compile_: Compile, prepare: Callable[[], None]) -> Helper:
    requests, answers = os.pipe(), os.pipe()
    with tempfile.TemporaryFile() as file:
        file.truncate(MOST_KERNELS)
        claims = mmap.mmap(file.fileno(), MOST_KERNELS)
        ends = (requests[0], answers[1], file.fileno())
        program = _START.format(path=[entry or os.getcwd() for entry in sys.path], ends=ends)
        process = subprocess.Popen(
            [sys.executable, "-c", program], pass_fds=ends, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    os.close(requests[0])
    os.close(answers[1])
    helper = Helper(process, (requests[1], answers[0]), claims)
    helper.send((phases.measuring(), compile_, prepare))
    return helper


def main(requests: int, answers: int, claims: int) -> None:
    """A clean process: told first what it compiles with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent closes the pipe
    source = os.fdopen(requests, "rb")
    measured, compile_, prepare = pickle.loads(_read(source) or b"")
    if measured:
        phases.start()

    def ready() -> None:
        prepare()
        _write(answers, (None, []))

    _serve(source, answers, compile_, ready, mmap.mmap(claims, MOST_KERNELS))


def _serve(requests: BinaryIO, answers: int, compile_: Compile, prepare: Callable[[], None], claims: mmap.mmap) -> None:
    """The helper: compile what comes until the pipe closes."""
    code = 1
    if phases.measuring():
        phases.start()  # anew: what the parent measured is its own
    try:
        prepare()
        for number in itertools.count():
            if (data := _read(requests)) is None:
                break
            measured, request = pickle.loads(data)
            if measured != phases.measuring():  # a clean process outlives what its parent measures
                phases.start() if measured else phases.stop()
            packed = None if claims[number % MOST_KERNELS] else compile_(*request)
            _write(answers, (packed, phases.take()))
        code = 0
    except BrokenPipeError:  # the parent was killed
        code = 0
    finally:
        os._exit(code)


def _read(source: BinaryIO) -> bytes | None:
    """The next message; None at the end of the pipe."""
    header = source.read(_LENGTH.size)
    return source.read(*_LENGTH.unpack(header)) if len(header) == _LENGTH.size else None


def _write(answers: int, message: object) -> None:
    data = pickle.dumps(message)
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(answers, view) :]


_lock = threading.Lock()
_idle: list[tuple[int, bytes, Helper]] = []
"""The clean process that waits for the next graph: whose it is, what it compiles with."""
_broken = False  # a clean process ended before it was ready: the next would, too


def take(compile_: Compile, prepare: Callable[[], None]) -> Helper | None:
    """A helper for a graph. None where a clean process is needed and cannot be had."""
    if not ranks.has_group():
        return _forked(compile_, prepare)
    if not sys.executable or _broken:
        return None
    wanted = os.getpid(), pickle.dumps((compile_, prepare))
    with _lock:
        for place, (owner, what, helper) in enumerate(_idle):
            if (owner, what) == wanted and helper.fits():
                del _idle[place]
                return helper
    return _started(compile_, prepare)


def give_back(helper: Helper, compile_: Compile, prepare: Callable[[], None]) -> None:
    """Take back a helper whose graph is compiled. A clean one is kept for the next."""
    global _broken
    for number in range(helper.answered, helper.submitted):
        helper.claim(number)
    helper.results.clear()
    if not helper.clean or not helper.alive:
        _broken |= helper.clean and not helper.ready
        helper.kill()
        return
    mine = os.getpid(), pickle.dumps((compile_, prepare)), helper
    with _lock:
        others, _idle[:] = list(_idle), [mine]
    for owner, _, other in others:
        if owner == os.getpid():
            other.kill()


@atexit.register
def end() -> None:
    """End the process that waits for the next graph."""
    with _lock:
        waiting, _idle[:] = list(_idle), []
    for owner, _, helper in waiting:
        if owner == os.getpid():
            helper.kill()
