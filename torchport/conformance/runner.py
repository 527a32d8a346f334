"""Runs cases in worker processes, so that a case that crashes or hangs fails alone.

Each result is appended to a file as one line at once: an interrupted run continues where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torchport.conformance.case import Case, Result
from torchport.errors import ArtifactError, TorchportError
from torchport.target import Target

__all__ = ["RESULTS", "Worker", "recorded", "run"]

RESULTS = "results.jsonl"
_START = 300.0  # seconds in which a worker process must come up


class Worker:
    """A process that runs cases and is restarted after a crash. ``caches``: the folder of its compiled kernels."""

    def __init__(self, target: Target, threads: int, caches: Path) -> None:
        self._command = [sys.executable, "-m", "torchport.conformance.worker", str(target), str(threads)]
        # Its own caches, as a kernel from an earlier run or the user would hide a compiler that no longer works.
        names = ("TORCHPORT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
        self._environment = {**os.environ, **{name: str(caches / name.lower()) for name in names}}
        # No quarantine, as it would replace the kernels that are to be tested.
        self._environment["TORCHPORT_QUARANTINE"] = str(caches / "no-quarantine.json")
        self._log = caches / f"worker-{os.getpid()}-{id(self)}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def run(self, case: Case, timeout: float) -> Result:
        """Run one case. Raises TorchportError if no process can be started for it."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(f"{case.id}\n".encode())
            process.stdin.flush()
            line = self._line(timeout)
        except BrokenPipeError:
            line = b""
        if line is None:
            self.stop()
            return Result(case.id, "fail", f"hung: no result in {timeout:g} s, its process was killed")
        if not line:
            return Result(case.id, "fail", self._ended())
        return Result.from_json(line)

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
                last = self._last_line()
                raise TorchportError(f"a worker process of the conformance suite did not start: {last}")
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


def recorded(folder: Path) -> dict[str, Result]:
    """The results of an earlier run, by case; a truncated line is ignored."""
    results = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / RESULTS).read_bytes().splitlines():
            with contextlib.suppress(ArtifactError):
                result = Result.from_json(line)
                results[result.case] = result
    return results


def run(
    target: Target,
    cases: Sequence[Case],
    folder: Path,
    *,
    jobs: int = 1,
    timeout: float = 120.0,
    done: Callable[[Result], None] = lambda result: None,
) -> dict[str, Result]:
    """Run the cases that ``folder`` has no result of, in ``jobs`` processes. Returns all results.

    ``timeout``: seconds for one case. ``done`` is called for each result, also of earlier runs, by one thread at a
    time. Raises TorchportError if worker processes cannot be started.
    """
    caches = folder / "caches"
    caches.mkdir(parents=True, exist_ok=True)
    ids = {case.id for case in cases}
    results = {case: result for case, result in recorded(folder).items() if case in ids}
    for result in results.values():
        done(result)
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in cases:
        if case.id not in results:
            waiting.put(case)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    errors: list[BaseException] = []
    lock = threading.Lock()
    with _appending(folder / RESULTS) as append:

        def work() -> None:
            worker = Worker(target, threads, caches)
            try:
                while not errors:
                    try:
                        case = waiting.get_nowait()
                    except queue.Empty:
                        return
                    result = worker.run(case, timeout)
                    with lock:
                        append(result)
                        results[case.id] = result
                        done(result)
            except TorchportError as error:
                errors.append(error)
            finally:
                worker.stop()

        count = min(jobs, waiting.qsize())
        workers = [threading.Thread(target=work, daemon=True) for _ in range(count)]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
    if errors:
        raise errors[0]
    return {case.id: results[case.id] for case in cases}


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[Callable[[Result], None]]:
    """A function that appends a result to a file immediately; a truncated last line is ended first."""
    with path.open("ab", buffering=0) as file:
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            file.write(b"\n")

        def append(result: Result) -> None:
            file.write((json.dumps(result.as_json()) + "\n").encode())

        yield append
