"""Processes under test: interpreters, and forks of a server that has imported PyTorch, which start faster."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reliability_cases import worker

__all__ = ["CACHES", "Ended", "caches", "fork", "group_is_alive", "interpret", "limited", "report_in"]

CACHES = ("TORCHPORT_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
TIMEOUT = 300.0

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch._inductor.compile_fx"])


@dataclass
class Ended:
    """How a process under test ended: its exit status (negative: a signal), what it reported, and its errors."""

    status: int
    report: dict[str, Any] = field(default_factory=dict)
    errors: str = ""

    @property
    def right(self) -> bool:
        """Whether it finished, and all results were right and computed by torchport's kernels."""
        return self.status == 0 and self.report.get("wrong") == 0 and not self.report.get("fallbacks")

    @property
    def last_line(self) -> str:
        """The last line of its errors."""
        return next((line for line in reversed(self.errors.splitlines()) if line.strip()), f"status {self.status}")


def caches(folder: Path, **others: Path) -> dict[str, str]:
    """Environment variables that put all caches into ``folder``, but for ``others``."""
    return {name: str(others.get(name, folder / name)) for name in CACHES}


def interpret(
    environment: Mapping[str, str],
    *flags: str,
    prefix: Sequence[str] = (),
    salt: int = 0,
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """Compile the models in an interpreter of its own. ``prepare`` runs in the process before it starts."""
    command = [*prefix, sys.executable, *flags, worker.__file__, "models", str(salt), *filter(None, sys.path)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, errors="replace",
        timeout=TIMEOUT, preexec_fn=prepare, check=False,
    )  # fmt: skip
    return Ended(done.returncode, report_in(done.stdout), done.stderr)


def limited(what: int, amount: int) -> Callable[[], None]:
    """Set a limit of this process (``resource.RLIMIT_*``), for ``prepare``."""
    return lambda: resource.setrlimit(what, (amount, amount))


@contextlib.contextmanager
def fork(environment: Mapping[str, str], folder: Path, salt: int) -> Iterator[tuple[Any, Callable[[], Ended]]]:
    """A process that compiles the models in a group of its own, and a function that waits for it."""
    output = folder / f"output-{salt}-{time.monotonic_ns()}"
    process = _SERVER.Process(target=_run, args=(dict(environment), str(output), salt, sys.path))
    process.start()

    def wait() -> Ended:
        process.join(TIMEOUT)
        text = output.read_text(errors="replace") if output.exists() else ""
        return Ended(process.exitcode if process.exitcode is not None else -signal.SIGALRM, report_in(text), text)

    try:
        yield process, wait
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        output.unlink(missing_ok=True)


def group_is_alive(leader: int, patience: float) -> bool:
    """Whether a process of the group is left ``patience`` seconds after now."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


def _run(environment: dict[str, str], output: str, salt: int, paths: list[str]) -> None:
    os.setsid()
    os.environ.update(environment)
    sys.path[:] = paths
    for number in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    print(json.dumps(worker.compile_models(salt)), flush=True)


def report_in(text: str) -> dict[str, Any]:
    """The last line that is a JSON object."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return {}
