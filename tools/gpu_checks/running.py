"""Runs one step in a process group of its own, within a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SKIPPED", "Step", "run"]

SKIPPED = 77
"""The exit status of a step that does not apply; its result has the reason under ``skipped``."""
_TAIL = 4000
_GRACE = 5.0


@dataclass(frozen=True)
class Step:
    """One step.

    command: ``{out}`` in it stands for the JSON file that the step writes its result to, and continues.
    seconds: how long it takes, about.
    limit: after how many seconds it is stopped.

    The exit status 0 is passed, SKIPPED is skipped, all others are failed.
    """

    name: str
    about: str
    command: tuple[str, ...]
    seconds: float
    limit: float


def run(
    step: Step,
    work: Path,
    limit: float,
    environment: Mapping[str, str],
    wait: Callable[[float], None] = lambda seconds: None,
) -> dict[str, Any]:
    """Run a step for ``limit`` seconds at most. Returns its status and result; errors of the step are no exceptions.

    ``work``: a folder that stays. ``wait`` is called with the seconds so far, about once a second. A KeyboardInterrupt
    stops the step, too, and is raised again.
    """
    work.mkdir(parents=True, exist_ok=True)
    out, log = work / f"{step.name}.json", work / f"{step.name}.log"
    started = time.monotonic()
    command = [part.replace("{out}", str(out)) for part in step.command]
    found: dict[str, Any] = {"command": command, "limit": round(limit, 1)}
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={**environment},
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return {**found, "status": "failed", "seconds": 0.0, "reason": f"it cannot be started: {error}"}
        stopped = False
        try:
            while process.poll() is None:
                spent = time.monotonic() - started
                if spent >= limit:
                    stopped = True
                    break
                wait(spent)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(1.0, limit - spent))
        finally:
            _stop(process)
    found["seconds"] = round(time.monotonic() - started, 1)
    found["tail"] = log.read_bytes()[-_TAIL:].decode(errors="replace")
    found["result"] = _result(out)
    found["exit"] = process.returncode
    if stopped:
        return {**found, "status": "timeout", "reason": f"stopped after {limit:.0f} s"}
    if process.returncode == SKIPPED:
        reason = (found["result"] or {}).get("skipped", "")
        return {**found, "status": "skipped", "reason": reason}
    if process.returncode:
        killed = process.returncode < 0
        what = signal.Signals(-process.returncode).name if killed else f"exit status {process.returncode}"
        reason = (found["result"] or {}).get("failed") or what
        return {**found, "status": "failed", "reason": reason}
    if found["result"] is None:
        return {**found, "status": "failed", "reason": "it left no result"}
    return {**found, "status": "passed"}


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the step's process group, first by a signal that it may answer."""
    for sent, grace in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
            if sent == signal.SIGTERM and not _alive(process.pid):
                return


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _result(path: Path) -> dict[str, Any] | None:
    """What a step wrote, also one that was stopped; None for nothing, and for what is no JSON object."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
