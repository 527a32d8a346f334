"""Compare a device target with eager torch, the CPU target and tinygrad on products and row-wise operations.

    python tools/bench_device.py --rounds 15 --out device.json

Each competitor is called as a user calls it and compiled before it is timed; each result is checked against float64.
Competitors take turns (A B C A B C ...), so that what else the machine does hits all alike. Milliseconds are the median
and the best of the rounds; processor time is the least of the rounds, that of all threads. tinygrad (``pip install
tinygrad``) takes part if it can be imported; OPENCL_PATH tells it where the OpenCL loader is.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from model_bench.machine import machine
from rich.console import Console
from rich.table import Table

from torchport.plugin import backend_for
from torchport.target import Target

Call = Callable[[], Any]
CASES: dict[str, tuple[Callable[..., torch.Tensor], tuple[tuple[int, int], ...]]] = {
    "mm 512": (torch.mm, ((512, 512), (512, 512))),
    "mm 1024": (torch.mm, ((1024, 1024), (1024, 1024))),
    "softmax 1024x1024": (lambda x: torch.softmax(x, -1), ((1024, 1024),)),
    "layer_norm 1024x1024": (lambda x: torch.nn.functional.layer_norm(x, (1024,)), ((1024, 1024),)),
}
BOUND = 1e-3  # of these cases' f32 results, in all competitors


def compiled(function: Callable[..., torch.Tensor], target: str, args: list[torch.Tensor]) -> Call:
    """The function compiled for a target, as one call; operations on the host would be an error."""
    torch._dynamo.reset()
    options = {"target": target, "fallback": "error"}
    run = torch.compile(function, backend="torchport", options=options, fullgraph=True)
    run(*args)
    return lambda: run(*args)


def tinygrad(name: str, args: list[torch.Tensor]) -> Call:
    """The same operation in tinygrad on OpenCL, its result left on the device."""
    import pyopencl  # noqa: F401  loaded first, as tinygrad's loader finds its symbols then

    os.environ["DEV"] = "CL"
    from tinygrad import Device, Tensor, TinyJit

    inputs = [Tensor(arg.numpy()).realize() for arg in args]
    functions: dict[str, Callable[..., Any]] = {
        "mm": lambda a, b: a @ b, "softmax": lambda x: x.softmax(), "layer_norm": lambda x: x.layernorm(),
    }  # fmt: skip
    function = TinyJit(lambda *tensors: functions[name.partition(" ")[0]](*tensors).realize())

    def run() -> Any:
        result = function(*inputs)
        Device[Device.DEFAULT].synchronize()
        return result

    for _ in range(3):  # the third call is the first that replays
        run()
    return run


def measure(name: str, target: str, rounds: int) -> dict[str, Any]:
    """Times of all competitors in one case, in milliseconds."""
    function, shapes = CASES[name]
    torch.manual_seed(0)
    args = [torch.randn(shape) for shape in shapes]
    exact = function(*(arg.double() for arg in args))
    calls: dict[str, Call] = {"eager": lambda: function(*args)}
    first: dict[str, float] = {}
    makers: dict[str, Callable[[], Call]] = {
        "cpu": lambda: compiled(function, "cpu", args), target: lambda: compiled(function, target, args),
    }  # fmt: skip
    if importlib.util.find_spec("tinygrad") is not None:
        makers["tinygrad"] = lambda: tinygrad(name, args)
    for competitor, make in makers.items():
        started = time.perf_counter()
        calls[competitor] = make()
        first[competitor] = time.perf_counter() - started
    for competitor, call in calls.items():
        result = call()
        got = result if isinstance(result, torch.Tensor) else torch.from_numpy(result.numpy())
        error = (got.double() - exact).abs().max().item()
        if not error < BOUND:
            raise SystemExit(f"{name}: {competitor} is wrong by {error:.3g}")
    wall: dict[str, list[float]] = {competitor: [] for competitor in calls}
    processor: dict[str, list[float]] = {competitor: [] for competitor in calls}
    for _ in range(rounds):
        for competitor, call in calls.items():
            started, used = time.perf_counter(), time.process_time()
            call()
            wall[competitor].append(1e3 * (time.perf_counter() - started))
            processor[competitor].append(1e3 * (time.process_time() - used))
    return {
        competitor: {
            "median": statistics.median(wall[competitor]), "best": min(wall[competitor]),
            "processor": min(processor[competitor]), "first_s": first.get(competitor, 0.0),
        }
        for competitor in calls
    }  # fmt: skip


def table(results: dict[str, dict[str, Any]]) -> Table:
    """A table of all cases: median (best; processor time)."""
    competitors = list(next(iter(results.values())))
    shown = Table("", *competitors, title="ms: median (best; processor time)")
    for name, row in results.items():
        cells = (row[one] for one in competitors)
        shown.add_row(name, *(f"{c['median']:.1f} ({c['best']:.1f}; {c['processor']:.1f})" for c in cells))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="opencl", help="the device's target")
    parser.add_argument("--cases", default=",".join(CASES), help="some of: %(default)s")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write everything measured as JSON")
    a = parser.parse_args()
    target = Target.parse(a.target)
    devices = {str(device.target): device.description for device in backend_for(target).devices()}
    about = {**machine(), "device": devices.get(a.target, a.target), "load": os.getloadavg()[0]}
    results = {name: measure(name, a.target, a.rounds) for name in a.cases.split(",")}
    console = Console(width=140)
    console.print(table(results))
    console.print(f"{about['device']}; {about['processor']}; load {about['load']:.1f} at the start")
    if a.out is not None:
        a.out.write_text(json.dumps({"machine": about, "results": results}, indent=1, default=str))


if __name__ == "__main__":
    main()
