"""A process that has everything imported, and forks one for each cell: ``python -m torchport.evaluation.nursery``.

A cell's process is its own: what it does, and how it ends, touches neither this process nor other cells. Only the
imports are shared, which take half of a small model's time. No thread runs here when it forks.

It reads lines of JSON, a list of arguments of ``torchport.evaluation.cell`` and the name of a log file. It answers each
with the number of the process, and with how it ended. Where its standard input ends, so do the cell and itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence

__all__ = ["main"]

_LOOK = 0.05  # seconds between two looks at a process


def main() -> None:
    """Serve until standard input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what modules print while they are imported is no answer
    _prepare()
    print("ready", file=out)
    for line in iter(sys.stdin.readline, ""):
        arguments, log = json.loads(line)
        child = os.fork()
        if child == 0:
            _cell(arguments, log)
        print(child, file=out)
        print(_wait(child), file=out)


def _prepare() -> None:
    """Import what cells need: torch and its compiler, Triton, the CPU's compiler, transformers, the validators."""
    import torchport.evaluation.measure
    import torchport.evaluation.verdicts
    import torchport.inductor.compiling
    import torchport.inductor.graph
    import torchport.inductor.session  # noqa: F401
    from torchport.evaluation.models import entries
    from torchport.plugin import backend_for
    from torchport.target import Target

    entries()
    cpu = Target.parse("cpu")
    backend_for(cpu).compiler(cpu).passes()


def _cell(arguments: Sequence[str], log: str) -> None:
    """Become the cell; does not return."""
    from torchport.evaluation.cell import main as run

    status = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        status = run(arguments)
    except BaseException:  # noqa: BLE001 (the end of a process: whatever it was is in the log, and the status says so)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int) -> int:
    """How the process ended: its status, or the negative number of the signal that ended it."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        ready, _, _ = select.select([sys.stdin], [], [], _LOOK)
        if ready:  # nothing is asked while a cell runs: the one who asks is gone
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            sys.exit()


if __name__ == "__main__":
    main()
