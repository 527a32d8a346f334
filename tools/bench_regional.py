"""Cold compile of models with many equal layers: as a whole, and each layer's code once.

    python tools/bench_regional.py --models bert,llama --layers 12 --backends torchport,inductor

`whole` is `torch.compile(model)`. `layers` compiles each layer, `layer.compile()`: torch.compile's cache finds the code
of the first one for the others. `nested` marks the layers' class with `torch.compiler.nested_compile_region` and
compiles the whole model. Each case is the first call in a new process with empty caches: its seconds of CPU time, with
those of the processes that compile for it, its wall time, and how many kernels were compiled. `steady` is the
milliseconds of CPU time of a later call, the median of rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from model_bench.backends import cache_environment
from model_bench.process import run_job
from model_zoo import build
from torch import nn

from torchport.evaluation.models import language

WAYS = ("whole", "layers", "nested")


def equal_layers(model: nn.Module, count: int) -> list[nn.Module]:
    """The model's list of `count` modules of one class."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and len({type(one) for one in module}) == 1:
            return list(module)
    raise ValueError(f"the model has no list of {count} equal layers")


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def job(case: dict[str, Any]) -> dict[str, Any]:
    """Measure one case in this process."""
    torch.set_num_threads(case["threads"])
    language.SHAPES["bench"] = replace(language.SHAPES["bench"], layers=case["layers"])
    built = build(case["model"], "bench", train=case["train"])
    layers = equal_layers(built.module, case["layers"])
    call: Any = built.module
    if case["way"] == "layers":
        for layer in layers:
            layer.compile(backend=case["backend"])
    else:
        if case["way"] == "nested":
            kind: Any = type(layers[0])
            kind.forward = torch.compiler.nested_compile_region(kind.forward)
        call = torch.compile(built.module, backend=case["backend"])
    begun, cpu = time.perf_counter(), cpu_seconds()
    built.step(call, case["train"])
    result = {"wall_s": time.perf_counter() - begun}
    if case["backend"] == "torchport":
        from torchport.runtime import events

        result["kernels"] = sum(isinstance(e, events.Kernel) and not e.cached for e in events.history())
    result["cpu_s"] = cpu_seconds() - cpu
    times = []
    for _ in range(case["rounds"]):
        started = time.process_time()
        built.step(call, case["train"])
        times.append(time.process_time() - started)
    return result | {"steady_ms": statistics.median(times) * 1e3}


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="bert,llama")
    parser.add_argument("--backends", default="torchport,inductor")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--train", action="store_true", help="a training step's forward and backward")
    options = parser.parse_args()
    for model in options.models.split(","):
        for way in options.ways.split(","):
            for backend in options.backends.split(","):
                case = {"model": model, "way": way, "backend": backend, "layers": options.layers}
                case |= {"threads": options.threads, "train": options.train, "rounds": options.rounds}
                with tempfile.TemporaryDirectory() as folder:
                    found = run_job("bench_regional", case, cache_environment(Path(folder)), 900)
                figures = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
                print(f"{model}{' train' if options.train else ''} {way} {backend}: {figures}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("{"):
        print(json.dumps(job(json.loads(sys.argv[1]))))
    else:
        main()
