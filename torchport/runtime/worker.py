"""Processes that answer lines with lines, and are started again after they crashed or hung."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from torchport.errors import TorchportError

__all__ = ["Worker", "spread"]

_START = 300.0  # seconds in which the process must come up


class Worker:
    """A Python process that says ``ready``, then answers each line on its standard input with one.

    arguments: ``-m``, its module, and what the module takes.
    environment: of the process.
    log: the file that its standard error goes to.
    what: what it works for, as errors say.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, what: str) -> None:
        self._command = [sys.executable, *arguments]
        self._environment = environment
        self._log = log
        self._what = what
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def ask(self, line: str, timeout: float) -> bytes | str:
        """The answer to ``line``; a text that says what happened if the process crashed or took ``timeout`` seconds.

        Raises TorchportError if no process can be started.
        """
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            answer = self._line(timeout)
        except BrokenPipeError:
            answer = b""
        if answer is None:
            self.stop()
            return f"hung: no result in {timeout:g} s, its process was killed"
        return answer or self._ended()

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._buffer = b""
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self._environment
                )
            if self._line(_START) != b"ready":
                self._process.kill()
                raise TorchportError(f"a worker process of {self._what} did not start: {self._last_line()}")
        return self._process

    def _line(self, timeout: float) -> bytes | None:
        """The next line; empty if the process ended, None if nothing came in time."""
        assert self._process is not None and self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([pipe], [], [], timeout)
            if not ready:
                return None
            data = os.read(pipe, 1 << 16)
            if not data:
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ended(self) -> str:
        """How the process ended, in words."""
        assert self._process is not None
        status = self._process.wait()
        self._process = None
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"crashed: its process was ended by {signal.Signals(-status).name}"
        return f"crashed: its process ended with status {status}: {self._last_line()}"

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def spread(
    lines: Iterable[str],
    make: Callable[[], Worker],
    jobs: int,
    timeout: float,
    done: Callable[[str, bytes | str], None],
) -> None:
    """Have ``lines`` answered by ``jobs`` workers that ``make`` returns.

    done: called with each line and what ``Worker.ask`` says of it, by one thread at a time.

    Raises TorchportError if processes cannot be started.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for line in lines:
        waiting.put(line)
    errors: list[TorchportError] = []
    lock = threading.Lock()

    def work() -> None:
        worker = make()
        try:
            while not errors:
                try:
                    line = waiting.get_nowait()
                except queue.Empty:
                    return
                answer = worker.ask(line, timeout)
                with lock:
                    done(line, answer)
        except TorchportError as error:
            errors.append(error)
        finally:
            worker.stop()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(jobs, waiting.qsize()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
