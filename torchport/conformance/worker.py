"""A process that runs cases for the runner: reads ids, one a line, and writes results as lines of JSON."""

from __future__ import annotations

import json
import os
import sys
import time

from torchport.compat import reset_dynamo
from torchport.conformance.case import Bench, Case, Measured, Result, Wrong
from torchport.errors import CompilationError, TargetError, TorchportError
from torchport.inductor import without_graph_caches
from torchport.inductor.capture import Captured, capture_kernels
from torchport.plugin import backend_for
from torchport.quarantine import identity
from torchport.runtime.devices.device import DeviceDriver
from torchport.target import Target

__all__ = ["main", "run_case"]


def run_case(case: Case, bench: Bench) -> Result:
    """Run one case. Errors become part of the result; nothing is raised.

    A clear error that the target cannot compile something is ``refused``, unless the case is required of every target
    that has its types.
    """
    reason = case.missing(bench.able)
    if reason:
        return Result(case.id, "untested", reason)
    started = time.perf_counter()
    worst: float | None = None
    notes: tuple[str, ...] = ()
    kernels: tuple[tuple[str, str, str], ...] = ()
    captured = Captured()
    try:
        with without_graph_caches(), capture_kernels() as captured:  # a cached graph would not show its kernels
            measured = _run(case, bench)
        verdict, detail, worst, notes = "pass", "", measured.worst, measured.notes
    except Wrong as error:
        verdict, detail, worst = "fail", str(error), error.worst
    except CompilationError as error:
        verdict, detail = "fail" if case.required else "refused", _sentence(error)
        if case.required:
            detail = f"refused, though the descriptor has {', '.join(case.types)}: {detail}"
    except TorchportError as error:
        verdict, detail = "fail", f"{type(error).__name__}: {_sentence(error)}"
    if verdict == "fail":
        kernels = tuple(dict.fromkeys((identity(k.source, k.function), k.config, k.function) for k in captured.kernels))
    return Result(case.id, verdict, detail, worst, round(time.perf_counter() - started, 4), notes, kernels)


def _run(case: Case, bench: Bench) -> Measured:
    """Run a case; an exception that is not torchport's becomes Wrong."""
    try:
        return case.run(bench)
    except TorchportError:
        raise
    except Exception as error:  # a target's compiler or launcher can raise anything; one case must not end the run
        inner = getattr(error, "inner_exception", None)  # wrapped by Dynamo
        if isinstance(inner, CompilationError):
            raise inner from error
        raise Wrong(f"unexpected {type(error).__name__}: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else f"{text[:400]}…"


def main(arguments: list[str]) -> int:
    """Run ``TARGET THREADS BF16_PRODUCTS``: every case whose id is read from standard input, until it ends."""
    from torchport.conformance.suite import every_case

    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of kernels and libraries must not mix with results
    import torch
    import triton.compiler  # noqa: F401, TID251  before the first case, whose time is limited

    target, threads, bf16_products = arguments
    torch.set_num_threads(int(threads))
    parsed = Target.parse(target)
    try:
        bench = Bench(parsed, backend_for(parsed).capabilities(parsed), bf16_products)
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if isinstance(backend_for(parsed).driver(parsed), DeviceDriver):
        from torchport.torch_device.api import device

        device(parsed)  # before the first gradient
    cases = every_case()
    print("ready", file=results)
    for line in sys.stdin:
        print(json.dumps(run_case(cases[line.strip()], bench).as_json()), file=results)
        reset_dynamo()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
