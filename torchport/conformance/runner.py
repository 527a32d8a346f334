"""Runs cases in worker processes, so that a case that crashes or hangs fails alone.

Each result is appended to a file as one line at once: an interrupted run continues where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torchport.conformance.case import Case, Result
from torchport.errors import ArtifactError
from torchport.files import read_bytes, write_whole
from torchport.runtime.worker import Worker, spread
from torchport.target import Target

__all__ = ["RESULTS", "recorded", "run"]

RESULTS = "results.jsonl"


def _worker(target: Target, threads: int, caches: Path, bf16_products: str) -> Worker:
    """A process that runs cases. ``caches``: the folder of its compiled kernels."""
    # Its own caches, as a kernel from an earlier run or the user would hide a compiler that no longer works.
    names = ("TORCHPORT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    environment = {**os.environ, **{name: str(caches / name.lower()) for name in names}}
    # No quarantine, as it would replace the kernels that are to be tested.
    environment["TORCHPORT_QUARANTINE"] = str(caches / "no-quarantine.json")
    log = caches / f"worker-{os.getpid()}-{threading.get_ident()}.log"
    arguments = ("-m", "torchport.conformance.worker", str(target), str(threads), bf16_products)
    return Worker(arguments, environment, log, "the conformance suite")


def _with_device_part(cache: Path) -> None:
    """Copy the torch device's C++ part, if it was built, to ``cache``: a target that is the second device needs it."""
    from torchport.torch_device.native import find  # imports torch

    if (path := find()) is not None:
        (cache / "device").mkdir(mode=0o700, parents=True, exist_ok=True)
        copy = cache / "device" / path.name
        write_whole(copy, read_bytes(path))
        copy.chmod(0o600)


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
    bf16_products: str = "auto",
    done: Callable[[Result], None] = lambda result: None,
) -> dict[str, Result]:
    """Run the cases that ``folder`` has no result of, in ``jobs`` processes. Returns all results.

    ``timeout``: seconds for one case. ``bf16_products``: the option that all compile with. ``done`` is called for each
    result, also of earlier runs, by one thread at a time. Raises TorchportError if worker processes cannot be started.
    """
    caches = folder / "caches"
    caches.mkdir(parents=True, exist_ok=True)
    _with_device_part(caches / "torchport_cache_dir")
    ids = {case.id for case in cases}
    results = {case: result for case, result in recorded(folder).items() if case in ids}
    for result in results.values():
        done(result)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with _appending(folder / RESULTS) as append:

        def answered(case: str, answer: bytes | str) -> None:
            result = Result(case, "fail", answer) if isinstance(answer, str) else Result.from_json(answer)
            append(result)
            results[case] = result
            done(result)

        spread(
            (case.id for case in cases if case.id not in results),
            lambda: _worker(target, threads, caches, bf16_products),
            jobs,
            timeout,
            answered,
        )
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
