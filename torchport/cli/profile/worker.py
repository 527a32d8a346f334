"""The process that makes one first call: ``python -m torchport.cli.profile.worker MODEL BACKEND RESULT``.

It imports nothing heavy before the user's own program would, so that imports in the first call are seen there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from torchport import phases
from torchport.cli.model import load_model
from torchport.cli.profile.measured import Failure, Measured
from torchport.errors import OptionError, TorchportError
from torchport.phases import Phase, Span
from torchport.runtime import torch_phases

__all__ = ["main", "measure"]


def measure(model: str, backend: str) -> Measured:
    """The first call of ``model`` (FILE.py:FUNCTION) with a backend of torch.compile.

    Raises OptionError for a model that cannot be loaded or compiles nothing, and what the model raises.
    """
    started = time.perf_counter()
    import torch

    imported = time.perf_counter()
    module, inputs = load_model(model)
    made = time.perf_counter()
    torch_phases.observe()
    with torch.no_grad():
        helpers, cpu = _helpers_cpu(), time.process_time()
        phases.start()
        begin = time.perf_counter()
        with phases.phase(Phase.REST):
            compiled: Callable[..., Any] = torch.compile(module, backend=backend)
        with phases.phase(Phase.RUNNING):
            compiled(*inputs)
        end = time.perf_counter()
        spans = phases.stop()
        cpu, after = time.process_time() - cpu, _helpers_cpu()
        phases.start()
        second = time.perf_counter()
        compiled(*inputs)
        second = time.perf_counter() - second
        again = _compiles(phases.stop())
    if not _compiles(spans):
        raise OptionError(
            f"{model} compiles nothing: Dynamo found no operations on tensors that it could take into a graph"
        )
    return Measured(
        imported - started,
        made - imported,
        end - begin,
        cpu,
        second,
        again,
        None if after is None or helpers is None else after - helpers,
        tuple(_row(span, begin) for span in spans),
    )


def _compiles(spans: Iterable[Span]) -> bool:
    """Whether a backend was given a graph."""
    return any(span.detail == "backend_compile" for span in spans)


def _row(span: Span, begin: float) -> tuple[str, str, str, int, float, float, float, float]:
    phase, detail, lane, depth, start, *times = astuple(span)
    return phase.value, detail, lane, depth, start - begin, *times


def _helpers_cpu() -> float | None:
    """CPU seconds of all processes that this one has started, and of theirs; None where /proc does not have them."""
    ended = os.times()
    total = ended.children_user + ended.children_system
    processes = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # a process's name may hold spaces
        except OSError:  # it has just ended
            continue
        processes[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    if os.getpid() not in processes:
        return None
    family = {os.getpid()}
    while found := {pid for pid, (parent, _) in processes.items() if parent in family} - family:
        family |= found
    ticks = sum(processes[pid][1] for pid in family - {os.getpid()})
    return total + ticks / os.sysconf("SC_CLK_TCK")


def main(model: str, backend: str, result: str) -> int:
    """Write what was measured, or why nothing was, into the file ``result``. Other exceptions end the process."""
    try:
        report: Measured | Failure = measure(model, backend)
    except TorchportError as error:
        report = Failure(str(error))
    Path(result).write_text(json.dumps(asdict(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
