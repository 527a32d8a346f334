"""Cells in processes of their own: whatever ends one, the others go on, and how it ended is its result."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchport.errors import ArtifactError, TorchportError
from torchport.evaluation.cell import Job
from torchport.evaluation.state import Cell, State
from torchport.files import read_json

__all__ = ["STATUSES", "Limits", "Nursery", "measure", "run_cell"]

STATUSES = ("ok", "refused", "absent", "mistake", "failed", "crashed", "timeout", "memory")
"""How a cell ended: measured; torchport said that it cannot; the target is not here; the suite says what is not so
of the model; an exception; a signal; too long; too much memory."""

_LOOK = 0.2  # seconds between two looks at a process
_START = 300.0  # seconds in which one must come up
_OUT_OF_MEMORY = re.compile(r"MemoryError|can't allocate memory|out of memory|bad_alloc", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """Of one cell: seconds, and bytes of resident memory."""

    seconds: float
    memory: int


def measure(
    cells: Sequence[Cell],
    state: State,
    job: Callable[[Cell], Job],
    limits: Limits,
    workers: int,
    begun: Callable[[Cell], None] = lambda cell: None,
    done: Callable[[Cell, dict[str, Any]], None] = lambda cell, result: None,
) -> None:
    """Measure cells, ``workers`` at a time, and keep each result. Both functions are called by one thread at a time.

    A model's cells are measured one after the other: the second one loads the kernels that the first one compiled.
    Raises OSError if results cannot be written, TorchportError if no process can be started.
    """
    by_model: dict[str, list[Cell]] = {}
    for cell in cells:
        by_model.setdefault(cell.model.label, []).append(cell)
    lock, stopping = threading.Lock(), threading.Event()
    idle: list[Nursery] = []
    every: set[Nursery] = set()

    def work(group: Sequence[Cell]) -> None:
        nursery = idle.pop() if idle else Nursery()
        every.add(nursery)
        for cell in group:
            if stopping.is_set():
                return
            with lock:
                begun(cell)
            result = run_cell(job(cell), limits, nursery, stopping)
            if result is None:
                return
            with lock:
                state.write(cell, result)
                done(cell, result)
        idle.append(nursery)

    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(work, group) for group in by_model.values()]
        try:
            for one in as_completed(running):
                one.result()  # raises what was raised there
        finally:
            stopping.set()  # the others end soon, also after Ctrl-C
            for one in running:
                one.cancel()
            wait(running)
            for nursery in every:
                nursery.close()


class Nursery:
    """The process that forks cells' processes, as one thread uses it; it is started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="torchport-eval-")

    def close(self) -> None:
        """End it, and a cell that runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def start(self, arguments: Sequence[str], log: Path) -> int:
        """Begin a cell; its process. Raises TorchportError if there is none."""
        process = self._started()
        assert process.stdin is not None
        process.stdin.write((json.dumps([list(arguments), str(log)]) + "\n").encode())
        process.stdin.flush()
        return int(self._line(_START))

    def ended(self, seconds: float) -> int | None:
        """How the cell ended; None if it has not after so many seconds."""
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return int(self._line(_START)) if ready else None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environment = {**os.environ, "TORCHPORT_PROGRESS": "0", "OMP_WAIT_POLICY": "passive"}
            with Path(self._folder.name, "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "torchport.evaluation.nursery"], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=log, env=environment, bufsize=0, start_new_session=True,
                )  # fmt: skip
            if self._line(_START) != b"ready":
                raise self._failed()
        return self._process

    def _line(self, seconds: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line: bytes = self._process.stdout.readline().strip() if ready else b""
        if not line:
            raise self._failed()
        return line

    def _failed(self) -> TorchportError:
        lines = Path(self._folder.name, "log").read_text(errors="replace").strip().splitlines()
        return TorchportError(
            f"the process that forks cells did not answer: {lines[-1] if lines else 'it said nothing'}"
        )


def run_cell(
    job: Job, limits: Limits, nursery: Nursery, stopping: threading.Event | None = None
) -> dict[str, Any] | None:
    """Measure one cell in a process of its own, and return its result. None if ``stopping`` was set meanwhile.

    Raises TorchportError if no process can be started.
    """
    with tempfile.TemporaryDirectory(prefix="torchport-eval-") as scratch:
        folder = Path(scratch)
        (folder / "job.json").write_text(json.dumps(asdict(job)))
        started = time.monotonic()
        pid = nursery.start([str(folder / "job.json"), str(folder / "result")], folder / "log")
        try:
            ended, status = _watch(nursery, pid, limits, stopping)
        finally:
            _kill(pid)  # also what it started
        if ended == "stopped":
            return None
        result = _partial(folder / "result")
        log = folder / "log"
        text = _printable(log.read_text(errors="replace")) if log.is_file() else ""
        ending = _how(status, ended, text, result.get("stage", ""), limits)
        if "status" not in result and not ending:  # os._exit(0) in a user's model, say
            where = f" while {result['stage']}" if result.get("stage") else ""
            ending = {"status": "failed", "detail": f"its process ended itself with exit status 0{where}"}
        return {"detail": "", **result, **ending, "seconds": round(time.monotonic() - started, 2)}


def _watch(nursery: Nursery, pid: int, limits: Limits, stopping: threading.Event | None) -> tuple[str, int]:
    """Wait for the process: ``timeout``, ``memory`` or ``stopped`` if that ended it, and its status."""
    until, why = time.monotonic() + limits.seconds, ""
    while True:
        status = nursery.ended(_LOOK)
        if status is not None:
            return why, status
        if stopping is not None and stopping.is_set():
            why = "stopped"
        elif time.monotonic() > until:
            why = "timeout"
        elif _resident(pid) > limits.memory:
            why = "memory"
        if why:
            _kill(pid)


def _kill(pid: int) -> None:
    """Kill a cell's process and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _resident(pid: int) -> int:
    """Bytes of resident memory; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _printable(text: str) -> str:
    """What a user's code wrote, without what terminals obey and the reader of reports refuses."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def _partial(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = read_json(path, dict[str, Any])
    except ArtifactError as error:  # a user's module wrote strange text into a message
        return {"status": "failed", "detail": str(error)}
    return found


def _how(status: int, ended: str, log: str, stage: str, limits: Limits) -> Mapping[str, Any]:
    """Status and detail of a cell that ended badly; nothing for one that ended well."""
    where = f" while {stage}" if stage else ""
    if ended == "timeout":
        return {"status": "timeout", "detail": f"no result in {limits.seconds:g} s: its process was killed{where}"}
    if ended == "memory":
        gigabytes = limits.memory / 2**30
        return {"status": "memory", "detail": f"more than {gigabytes:.3g} GiB resident: its process was killed{where}"}
    if status == 0:
        return {}
    lines = [line for line in log.strip().splitlines() if line.strip()]
    last = lines[-1].strip()[:400] if lines else "it said nothing"
    if status < 0:
        name = f"signal {-status}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
        if -status == signal.SIGKILL:
            return {"status": "memory", "detail": f"killed by the system{where}: out of memory, most likely"}
        return {"status": "crashed", "detail": f"ended by {name}{where}: {last}"}
    if _OUT_OF_MEMORY.search("\n".join(lines[-5:])):
        return {"status": "memory", "detail": f"{last}{where}"}
    return {"status": "failed", "detail": f"{last}{where}", "log": lines[-30:]}
