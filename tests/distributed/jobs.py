"""Jobs of several ranks for tests: processes that are started once and run one function after the other together.

A rank that fails or waits too long is a failure of the test, with the trace of every thread of every rank.
"""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from processes import SERVER

__all__ = ["Job", "JobFailed"]

STARTING = 120.0
SOLVING = 2.0  # seconds that the others have where one rank failed
TRACE = signal.SIGPROF  # LLVM takes others for itself
TRACING = 10.0  # seconds that a rank has to write its traces


class JobFailed(AssertionError):
    """A function failed on a rank, or took too long: what each rank says."""


class Job:
    """``size`` processes with a gloo group between them.

    ``folders``: more of the module path, ``variables``: of the environment, the same on all ranks or one a rank.
    """

    def __init__(
        self, size: int, variables: Mapping[str, str] | list[Mapping[str, str]] | None = None, timeout: float = 120.0
    ) -> None:
        self.size, self.timeout = size, timeout
        self._folder = tempfile.TemporaryDirectory(prefix="torchport-job-")
        self._traces = [Path(self._folder.name, f"traces{rank}") for rank in range(size)]
        each = variables if isinstance(variables, list) else [variables or {}] * size
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            ours, theirs = SERVER.Pipe()
            environment = {
                **os.environ, **each[rank], "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
            }  # fmt: skip
            process = SERVER.Process(
                target=_serve, args=(theirs, environment, sys.path, self._folder.name, timeout), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._collect("starting", STARTING)

    @property
    def alive(self) -> bool:
        """Whether functions can be run: no rank was lost."""
        return bool(self._pipes)

    def run(self, function: str, *arguments: Any, timeout: float | None = None) -> list[Any]:
        """Call ``module:function`` with the same arguments on all ranks. Returns their results.

        Raises JobFailed. After a failure the job is over: its ranks wait for each other no more.
        """
        for pipe in self._pipes:
            pipe.send((function, arguments))
        return self._collect(function, timeout or self.timeout)

    def close(self) -> None:
        """End the ranks."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(5)
        self._kill()
        self._folder.cleanup()

    def _collect(self, what: str, timeout: float) -> list[Any]:
        results: dict[int, Any] = {}
        faults: dict[int, str] = {}
        deadline = time.monotonic() + timeout
        while len(results) + len(faults) < self.size:
            left = deadline - time.monotonic()
            if faults:
                left = min(left, SOLVING)  # the others may wait for the one that failed
            rest = [rank for rank in range(self.size) if rank not in results and rank not in faults]
            ready = wait([self._pipes[rank] for rank in rest], max(left, 0.0))
            if not ready:
                break
            for rank in rest:
                if self._pipes[rank] not in ready:
                    continue
                try:
                    failed, value = self._pipes[rank].recv()
                except (EOFError, ConnectionError):
                    self._processes[rank].join(5)
                    failed, value = True, f"the process ended with {self._processes[rank].exitcode}"
                (faults if failed else results)[rank] = value
        missing = [rank for rank in range(self.size) if rank not in results and rank not in faults]
        if not faults and not missing:
            return [results[rank] for rank in range(self.size)]
        for rank in missing:
            os.kill(self._processes[rank].pid, TRACE)
        deadline = time.monotonic() + TRACING
        while (
            missing and time.monotonic() < deadline and not all(self._traces[rank].stat().st_size for rank in missing)
        ):
            time.sleep(0.05)
        for rank in missing:
            faults[rank] = "does not answer:\n" + self._traces[rank].read_text()[-6000:]
        self._kill()
        raise JobFailed("\n".join(f"{what}, rank {rank}: {fault}" for rank, fault in sorted(faults.items())))

    def _kill(self) -> None:
        for process in self._processes:
            if process.exitcode is None:
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()
        self._pipes.clear()


def _serve(pipe: Connection, variables: dict[str, str], path: list[str], folder: str, timeout: float) -> None:
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:] = path
    rank = int(variables["RANK"])
    with open(Path(folder, f"traces{rank}"), "w") as traces:
        faulthandler.register(TRACE, traces)
        try:
            import torch
            import torch.distributed as dist

            import torchport
            from torchport.torch_device.targets import targets

            torch.set_num_threads(1)
            if targets():  # autograd learns of devices before the first gradient
                torchport.device(0)
            dist.init_process_group(
                "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=int(variables["WORLD_SIZE"]),
                timeout=datetime.timedelta(seconds=timeout),
            )  # fmt: skip
        except BaseException:
            pipe.send((True, traceback.format_exc()))
            raise
        pipe.send((False, None))
        while (request := pipe.recv()) is not None:
            function, arguments = request
            module, _, name = function.partition(":")
            try:
                torch._dynamo.reset()
                torch.manual_seed(0)
                found = getattr(importlib.import_module(module), name)(*arguments)
                dist.barrier()
            except BaseException:  # noqa: BLE001
                pipe.send((True, traceback.format_exc()))
            else:
                pipe.send((False, found))
        dist.destroy_process_group()
