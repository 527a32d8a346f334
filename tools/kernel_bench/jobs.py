"""What one process measures: all cases of a kernel with a number of threads, or compile times by block size.

Run as `python -m kernel_bench.jobs '{"kind": ..., ...}'`; the last line of standard output is the result as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from model_bench.jobs import interleaved

from kernel_bench.case import ATTENTION, DOT, Case, Launch, Sizes
from kernel_bench.compile_time import compile_times, growth
from kernel_bench.kernels import cases
from kernel_bench.limits import FMA_OPERATIONS, copy_of, fma_peak

Result = dict[str, Any]


def measure(case: Case, repeats: int, sample_s: float, inductor: bool) -> Result:
    """Seconds per call of the kernel, of torch's ways to its result and of the machine's limits, taken in turns.

    ``inductor``: whether Inductor's C++ is one of them.

    Raises ValueError where the kernel's result is wrong.
    """
    case.check()
    steps = {"torchport": case.run, "eager": lambda: case.eager(*case.inputs), "copy": copy_of(case.moved)}
    row: Result = {"kernel": case.kernel, "case": case.label, "kind": case.kind, "moved": case.moved}
    row["operations"] = case.operations
    if len(case.steps) == 1:
        steps["torchport"] = case.steps[0]
    if case.compiled and inductor:
        torch._dynamo.reset()
        compiled = torch.compile(case.eager, backend="inductor", fullgraph=True, dynamic=False)
        steps["inductor"] = lambda: compiled(*case.inputs)
    if case.kind in (DOT, ATTENTION):
        steps["fma"] = fma_peak()
        row["fma_operations"] = FMA_OPERATIONS
    return {**row, "samples_s": interleaved(steps, repeats, sample_s)}


def steady(job: Result) -> Result:
    """Every case of one kernel; with "compile_repeats", compile times of the Triton kernels it is made of as well."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    rows, errors, compiled = [], [], {}
    for case in cases(job["kernel"], Sizes(tuple(job["working_sets"]), job["quick"])):
        try:
            rows.append(measure(case, job["repeats"], job["sample_s"], job["inductor"]))
        except ValueError as error:
            errors.append(str(error))
        for launch in case.steps:
            if isinstance(launch, Launch):
                compiled[f"{launch.compiled.name} {launch.compiled.hash[:8]}"] = launch.compiled
    times = {name: compile_times(one, job["compile_repeats"]) for name, one in compiled.items()}
    return {"rows": rows, "errors": errors, "compile": times}


JOBS = {"steady": steady, "growth": lambda job: growth(job["compile_repeats"])}


def main() -> None:
    job = json.loads(sys.argv[1])
    with torch.no_grad():
        result = JOBS[job["kind"]](job)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
