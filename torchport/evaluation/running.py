"""Cells in processes of their own: whatever ends one, the others go on, and how it ended is its result."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchport.errors import ArtifactError
from torchport.evaluation.cell import Job
from torchport.evaluation.state import Cell, State
from torchport.files import read_json

__all__ = ["STATUSES", "Limits", "measure", "run_cell"]

STATUSES = ("ok", "refused", "absent", "failed", "crashed", "timeout", "memory")
"""How a cell ended: measured; torchport said that it cannot; the target is not here; an exception; a signal; too long;
too much memory."""

_LOOK = 0.2  # seconds between two looks at a process
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
    Raises OSError if results cannot be written.
    """
    by_model: dict[str, list[Cell]] = {}
    for cell in cells:
        by_model.setdefault(cell.model.label, []).append(cell)
    lock, stopping = threading.Lock(), threading.Event()

    def work(group: Sequence[Cell]) -> None:
        for cell in group:
            if stopping.is_set():
                return
            with lock:
                begun(cell)
            result = run_cell(job(cell), limits, stopping)
            if result is None:
                return
            with lock:
                state.write(cell, result)
                done(cell, result)

    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(work, group) for group in by_model.values()]
        try:
            for one in as_completed(running):
                one.result()  # raises what was raised there
        finally:
            stopping.set()  # the others end soon, also after Ctrl-C
            for one in running:
                one.cancel()


def run_cell(job: Job, limits: Limits, stopping: threading.Event | None = None) -> dict[str, Any] | None:
    """Measure one cell in a process, and return its result. None if ``stopping`` was set meanwhile."""
    with tempfile.TemporaryDirectory(prefix="torchport-eval-") as scratch:
        folder = Path(scratch)
        (folder / "job.json").write_text(json.dumps(asdict(job)))
        command = [sys.executable, "-m", "torchport.evaluation.cell", str(folder / "job.json"), str(folder / "result")]
        environment = {**os.environ, "TORCHPORT_PROGRESS": "0", "TMPDIR": scratch, "OMP_WAIT_POLICY": "passive"}
        started = time.monotonic()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        try:
            ended = _watch(process, limits, stopping)
        finally:
            _end(process)
        if ended == "stopped":
            return None
        result = _partial(folder / "result")
        text = (folder / "log").read_text(errors="replace")
        ending = _how(process.returncode, ended, text, result.get("stage", ""), limits)
        seconds = round(time.monotonic() - started, 2)
        return {
            **result,
            **({"status": "ok", "detail": ""} | {k: result[k] for k in ("status", "detail") if k in result}),
            **ending,
            "seconds": seconds,
        }


def _watch(process: subprocess.Popen[bytes], limits: Limits, stopping: threading.Event | None) -> str:
    """Wait for the process; ``timeout``, ``memory`` or ``stopped`` if that ended it."""
    until = time.monotonic() + limits.seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK)
            return ""
        if stopping is not None and stopping.is_set():
            return "stopped"
        if time.monotonic() > until:
            return "timeout"
        if _resident(process.pid) > limits.memory:
            return "memory"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process and of those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _resident(pid: int) -> int:
    """Bytes of resident memory; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


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
