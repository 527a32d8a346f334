"""What one process measures: a first call with cold or filled caches, or steady state of all backends interleaved.

Run as `python -m model_bench.jobs '{"kind": ..., ...}'`; the last line of standard output is the result as JSON.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

Result = dict[str, Any]


def step_of(
    built: Any, call: Callable[..., Any], train: bool, optimizer_by: Callable[[Any], Any] = lambda step: step
) -> Callable[[], Any]:
    """One inference call without gradients, or one training step: loss, backward, AdamW.

    ``optimizer_by`` compiles the optimizer's step.
    """
    import torch

    if not train:

        def infer() -> Any:
            with torch.no_grad():
                return call(**built.inputs)

        return infer
    optimizer = torch.optim.AdamW(built.module.parameters(), lr=1e-4)
    update = optimizer_by(optimizer.step)

    def step() -> Any:
        optimizer.zero_grad()
        result = call(**built.inputs)
        names = built.output_names
        if names[0] == "loss":
            loss = result["loss"]
        else:
            loss = torch.stack([result[name].float().square().mean() for name in names]).sum()
        loss.backward()
        update()
        return loss

    return step


def stepping(job: Result, backend: str, built: Any) -> Callable[[], Any]:
    """The job's step of a model by a backend, which compiles the optimizer's step, too, if the job says so."""
    from model_bench.backends import compiled

    def by_backend(function: Any) -> Any:
        return compiled(backend, function, job["dtype"], job["threads"])

    return step_of(built, by_backend(built.module), job["train"], *([by_backend] if job.get("optimizer") else []))


def cpu_seconds() -> float:
    """Of this process, and of those that it has started and waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": cpu_seconds}


def peak_memory() -> int:
    """Most resident memory this process has had, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


LAUNCH = re.compile(r"^\s+((?:cpp|triton)_\w+)(?:\.run|\.launch)?\(", re.MULTILINE)
LIBRARY_CALL = re.compile(r"^\s+(?:\w+ = )?(?:extern_kernels\.|torch\.ops\.)", re.MULTILINE)


def count_code(codes: list[str]) -> Result:
    """Distinct kernels, kernel launches and library calls of one call, out of the wrappers that Inductor generated."""
    launches = [LAUNCH.findall(code) for code in codes]
    return {
        "graphs": len(codes),
        "kernels": sum(len(set(names)) for names in launches),
        "launches": sum(len(names) for names in launches),
        "library_calls": sum(len(LIBRARY_CALL.findall(code)) for code in codes),
    }


def first_call(job: Result) -> Result:
    """Latency of the first call in this process, torch's import apart, and of what it needed.

    The caches that the environment names are cold or filled: the caller sees to that. Everything a compiler imports
    counts as part of the first call. The generated code is only looked at where caches are cold, as nothing is
    generated else.
    """
    clock = CLOCKS[job["clock"]]
    start = clock()
    import torch

    imported = clock()

    from model_bench.backends import EAGER, OPENVINO, TORCHPORT, left_to_torch
    from model_bench.models import build

    torch.set_num_threads(job["threads"])
    built = build(job["model"], job["size"], getattr(torch, job["dtype"]), train=job["train"])
    before = peak_memory()
    begin = clock()
    step = stepping(job, job["backend"], built)
    codes: list[str] = []
    if job["backend"] == EAGER or not job["cold"]:
        step()
    else:
        from torch._inductor.utils import run_and_get_code

        _, codes = run_and_get_code(step)
    end = clock()
    result = {
        "import_s": imported - start,
        "build_s": begin - imported,
        "first_call_s": end - begin,
        "peak_bytes": peak_memory(),
        "peak_before_bytes": before,
    }
    if codes:
        result |= count_code(codes)
    if job["backend"] == OPENVINO:
        result["fallbacks"] = left_to_torch()
    if job["backend"] == TORCHPORT:
        from torchport.runtime import events

        result["fallbacks"] = [str(e) for e in events.history() if isinstance(e, events.Fallback)]
        result["kernels_compiled"] = sum(isinstance(e, events.Kernel) and not e.cached for e in events.history())
    return result


def interleaved(
    steps: dict[str, Callable[[], Any]], repeats: int, sample_s: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds per call of each step: `repeats` rounds of A B C A B C ..., each sample at least `sample_s` long.

    Interleaving spreads what the machine does beside (frequency, neighbours) over all of them alike.
    """
    loops = {}
    for name, step in steps.items():
        for _ in range(3):
            step()
        begin = clock()
        step()
        loops[name] = max(1, round(sample_s / (clock() - begin)))
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            begin = clock()
            for _ in range(loops[name]):
                step()
            samples[name].append((clock() - begin) / loops[name])
    return samples


def steady(job: Result) -> Result:
    """Steady-state latency of one model with every backend of the job, compiled out of the caches, or into them."""
    import torch

    from model_bench.backends import caches
    from model_bench.models import build

    torch.set_num_threads(job["threads"])
    steps = {}
    for backend, folder in job["caches"].items():
        torch._dynamo.reset()
        built = build(job["model"], job["size"], getattr(torch, job["dtype"]), train=job["train"])
        with caches(folder):
            steps[backend] = stepping(job, backend, built)
            steps[backend]()
    return {"samples_s": interleaved(steps, job["repeats"], job["sample_s"], CLOCKS[job["clock"]])}


LAUNCHES = 64


def launch(job: Result) -> Result:
    """Seconds for launching one tiny kernel: a chain of 16 x 16 products with a kernel between, less the chain alone.

    The products keep the compilers from fusing the kernels into one; each kernel has 256 elements to add to.
    """
    import torch
    from torch._inductor.utils import run_and_get_code

    from model_bench.backends import EAGER, compiled

    def products(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        for _ in range(LAUNCHES):
            x = torch.mm(x, w)
        return x

    def with_kernels(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        for _ in range(LAUNCHES):
            x = torch.relu(torch.mm(x, w)) + 0.5
        return x

    torch.set_num_threads(job["threads"])
    x, w = torch.rand(16, 16), torch.rand(16, 16) / 16
    steps: dict[str, Callable[[], Any]] = {}
    notes = {}
    for backend in job["backends"]:
        for name, function in (("products", products), ("kernels", with_kernels)):
            torch._dynamo.reset()
            call = compiled(backend, function, "float32", job["threads"])
            _, codes = run_and_get_code(call, x, w)
            steps[f"{backend} {name}"] = lambda call=call: call(x, w)
            if codes and name == "kernels" and (found := count_code(codes)["launches"]) != LAUNCHES:
                notes[backend] = f"{found} launches where {LAUNCHES} were meant: not comparable"
    with torch.no_grad():
        samples = interleaved(steps, job["repeats"], job["sample_s"], CLOCKS[job["clock"]])
    costs = {
        backend: [
            (a - b) / (2 * LAUNCHES if backend == EAGER else LAUNCHES)  # eager launches relu and add one by one
            for a, b in zip(samples[f"{backend} kernels"], samples[f"{backend} products"], strict=True)
        ]
        for backend in job["backends"]
    }
    return {"samples_s": costs, "notes": notes}


JOBS = {"first_call": first_call, "steady": steady, "launch": launch}


def main() -> None:
    job = json.loads(sys.argv[1])
    print(json.dumps(JOBS[job["kind"]](job)))


if __name__ == "__main__":
    main()
