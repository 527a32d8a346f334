"""What would packed weights gain in a whole model? Time models with weights that may change, and with frozen ones.

    python tools/bench_freezing.py --models bert,llama,vit --dtypes float32,bfloat16 --threads 1

`plain` is torchport's default. `frozen` has `torch._inductor.config.freezing`: Inductor packs float32 weights for MKL
and 16-bit ones for oneDNN; `onednn` has it pack float32 weights for oneDNN, too. Nothing checks that a weight has not
changed: the figures bound what any check leaves. Milliseconds of CPU time a call, medians of rounds that take turns;
the ratio (plain over the form) is the median of the rounds' ratios. With several threads it is wall time, because idle
threads spin.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
import torch._inductor.config
from model_zoo import build
from torch._inductor.fx_passes import mkldnn_fusion


class OneDNNAlways:
    """`torch.ops.mkldnn` for Inductor's choice of a library, which is oneDNN wherever the Arm Compute Library is."""

    def __getattr__(self, name: str) -> Any:
        return (lambda: True) if name == "_is_mkldnn_acl_supported" else getattr(torch.ops.mkldnn, name)


@contextmanager
def packing(form: str) -> Iterator[None]:
    """Compile with or without packed weights."""
    library = mock.patch.object(mkldnn_fusion, "mkldnn", OneDNNAlways()) if form == "onednn" else nullcontext()
    # The key of Inductor's cache does not know the library.
    with library, torch._inductor.config.patch(freezing=form != "plain", fx_graph_cache=False):
        yield


def compiled(name: str, dtype: torch.dtype, form: str) -> Callable[[], Any]:
    """A call of the model, compiled and called once."""
    torch._dynamo.reset()
    built = build(name, "bench", dtype, train=False)
    call = torch.compile(built.module.eval(), backend="torchport")
    with packing(form):
        call(**built.inputs)
    return lambda: call(**built.inputs)


def measure(calls: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds a call, of each form, in `rounds` rounds of a few calls."""
    times: dict[str, list[float]] = {form: [] for form in calls}
    for call in calls.values():
        for _ in range(5):
            call()
    for _ in range(rounds):
        for form, call in calls.items():
            started = clock()
            for _ in range(4):
                call()
            times[form].append((clock() - started) / 4)
    return times


@torch.no_grad()
def main() -> None:
    """Print one line for each model and dtype."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="bert,llama,vit")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    for name in options.models.split(","):
        for dtype in options.dtypes.split(","):
            forms = ("plain", "frozen", "onednn") if dtype == "float32" else ("plain", "frozen")
            times = measure({f: compiled(name, getattr(torch, dtype), f) for f in forms}, options.rounds, clock)
            cells = []
            for form in forms:
                ratio = statistics.median(a / b for a, b in zip(times["plain"], times[form], strict=True))
                cells.append(f"{form} {statistics.median(times[form]) * 1e3:.2f} ({ratio:.3f})")
            print(f"{name} {dtype}, {options.threads} threads: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
