"""Compare a device target with eager torch, the CPU target and tinygrad on operations and on a small Llama.

    python tools/bench_device.py --rounds 15 --out device.json

Competitors: eager torch on the CPU; compiled for the target ``cpu``; compiled for the device, with CPU tensors that are
copied; tensors on the torch device, eager and compiled; tinygrad (``pip install tinygrad``) on operations, if it can be
imported with what it needs: OPENCL_PATH tells it where the OpenCL loader is, for ``webgpu`` it takes ``dawn-python``.
Each is called as a user calls it, compiled before it is timed; each result is checked. They take turns (A B C A B C
...), so that what else the machine does hits all alike.
Milliseconds are the median and the best of the rounds; processor time is the least of the rounds, that of all threads.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from model_bench.machine import machine
from rich.console import Console
from rich.table import Table

import torchport
from torchport.plugin import backend_for
from torchport.target import Target

Call = Callable[[], Any]
Compile = Callable[[Any], Any]
Function = Callable[..., torch.Tensor]
OPERATIONS: dict[str, tuple[Function, tuple[tuple[int, int], ...]]] = {
    "mm 512": (torch.mm, ((512, 512), (512, 512))),
    "mm 1024": (torch.mm, ((1024, 1024), (1024, 1024))),
    "softmax 1024x1024": (lambda x: torch.softmax(x, -1), ((1024, 1024),)),
    "layer_norm 1024x1024": (lambda x: torch.nn.functional.layer_norm(x, (1024,)), ((1024, 1024),)),
    "gelu 1024x1024": (torch.nn.functional.gelu, ((1024, 1024),)),
    "sum of columns 1024x1024": (lambda x: x.sum(0), ((1024, 1024),)),
    "add 64": (torch.add, ((8, 8), (8, 8))),
}
MODELS = ("llama forward", "llama training")
"""Two layers, 256 wide, 128 tokens; a training step is forward, backward and AdamW."""
BOUND = 1e-3  # of all f32 results, relative to the largest


def operation(name: str, device: torch.device, compiled: Compile) -> Call:
    """A call of one of OPERATIONS on a device."""
    function, shapes = OPERATIONS[name]
    torch.manual_seed(0)
    args = [torch.randn(shape).to(device) for shape in shapes]
    run = compiled(function)
    return lambda: run(*args)


def llama(name: str, device: torch.device, compiled: Compile) -> Call:
    """A call of one of MODELS on a device; returns the logits, or the loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=256, use_cache=False,
    )  # fmt: skip
    model, ids = LlamaForCausalLM(config).to(device), torch.randint(0, 1000, (1, 128)).to(device)
    if name == "llama forward":
        run = compiled(model.eval())

        def forward() -> torch.Tensor:
            with torch.no_grad():
                logits: torch.Tensor = run(ids).logits
                return logits

        return forward
    run = compiled(model.train())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)  # so that every step computes the same

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = run(ids, labels=ids).loss
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def compiler(**options: Any) -> Compile:
    """torch.compile for torchport; operations on the host would be an error where a target is named."""

    def compiled(function: Any) -> Any:
        torch._dynamo.reset()
        return torch.compile(function, backend="torchport", options={**options, "fallback": "error"})

    return compiled


RIVAL = {"opencl": ("tinygrad", "pyopencl"), "webgpu": ("tinygrad", "pydawn")}
"""The packages that tinygrad needs for the interface of a target."""


def has_rival(target: str) -> bool:
    """Whether tinygrad is here, with what it needs for the interface of a target."""
    packages = RIVAL.get(target.partition(":")[0], ())
    return bool(packages) and all(importlib.util.find_spec(package) is not None for package in packages)


def tinygrad(name: str, target: str) -> Call:
    """The same operation in tinygrad on the interface of ``target``, its result left on the device."""
    if target.startswith("opencl"):
        import pyopencl  # noqa: F401  loaded first, as tinygrad's loader finds its symbols then

        os.environ["DEV"] = "CL"
    else:
        os.environ["DEV"] = "WEBGPU"
        found = importlib.util.find_spec("pydawn")
        assert found is not None and found.submodule_search_locations is not None
        library = Path(next(iter(found.submodule_search_locations))) / "lib" / f"libwebgpu_dawn_{platform.machine()}.so"
        os.environ.setdefault("WEBGPU_PATH", str(library))
    from tinygrad import Device, Tensor, TinyJit

    torch.manual_seed(0)
    inputs = [Tensor(torch.randn(shape).numpy()).realize() for shape in OPERATIONS[name][1]]
    functions: dict[str, Callable[..., Any]] = {
        "mm": lambda a, b: a @ b, "softmax": lambda x: x.softmax(), "layer_norm": lambda x: x.layernorm(),
        "gelu": lambda x: x.gelu(), "sum": lambda x: x.sum(0), "add": lambda a, b: a + b,
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
    make = llama if name in MODELS else operation
    host, device = torch.device("cpu"), torchport.device(target)
    makers: dict[str, Callable[[], Call]] = {
        "eager": lambda: make(name, host, lambda function: function),
        "cpu": lambda: make(name, host, compiler(target="cpu")),
        target: lambda: make(name, host, compiler(target=target)),
        "device": lambda: make(name, device, lambda function: function),
        "device compiled": lambda: make(name, device, compiler()),
    }
    if name not in MODELS and has_rival(target):
        makers["tinygrad"] = lambda: tinygrad(name, target)
    torchport.fallbacks(reset=True)
    calls: dict[str, Call] = {}
    first: dict[str, float] = {}
    for competitor, made in makers.items():
        started = time.perf_counter()
        calls[competitor] = waiting(made(), device if competitor.startswith("device") else host)
        result = calls[competitor]()
        first[competitor] = time.perf_counter() - started
        got = (result.detach().cpu() if isinstance(result, torch.Tensor) else torch.from_numpy(result.numpy())).double()
        if competitor == "eager":
            reference = got
        error = ((got - reference).abs().max() / reference.abs().max()).item()
        if not error < BOUND:
            raise SystemExit(f"{name}: {competitor} is wrong by {error:.3g}")
    if counts := torchport.fallbacks():
        raise SystemExit(f"{name}: ran on the host: {dict(counts)}")
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
            "processor": min(processor[competitor]), "first_s": first[competitor],
        }
        for competitor in calls
    }  # fmt: skip


def waiting(call: Call, device: torch.device) -> Call:
    """The call, which returns when the device has done its work."""
    if device.type == "cpu":
        return call

    def run() -> Any:
        result = call()
        torch.get_device_module(device).synchronize(device)
        return result

    return run


def table(results: dict[str, dict[str, Any]]) -> Table:
    """A table of all cases: median and processor time in milliseconds, first call in seconds."""
    competitors = dict.fromkeys(competitor for row in results.values() for competitor in row)
    shown = Table("", *competitors, title="median ms / processor ms / first call s")
    for name, row in results.items():
        shown.add_row(name, *(_cell(row.get(competitor)) for competitor in competitors))
    return shown


def _cell(times: dict[str, Any] | None) -> str:
    return f"{times['median']:.2f} / {times['processor']:.2f} / {times['first_s']:.1f}" if times is not None else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="opencl", help="the device's target")
    parser.add_argument("--cases", default=",".join((*OPERATIONS, *MODELS)), help="some of: %(default)s")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write everything measured as JSON")
    a = parser.parse_args()
    target = Target.parse(a.target)
    torchport.device(target)  # before the first gradient
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
