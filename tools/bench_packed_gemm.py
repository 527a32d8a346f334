"""Does packing a constant weight pay? Time torch's matrix products with and without, on this machine.

    python tools/bench_packed_gemm.py --dtypes bfloat16 float32 --rows 1 16 128 512

Each line: x [M, K] by weight [N, K], transposed, plus bias. `addmm` is what compiled code calls for a weight that may
change; `linear` is eager's; `packed` is oneDNN's with the weight reordered once (what Inductor's freezing calls in
bfloat16 and float16); `unpacked` is oneDNN's with the weight as it is; `mkl` is MKL's packed product (float32). `read`
reads the weight once, which a check by checksum does at every call. Times are medians of CPU time in microseconds,
interleaved.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch

SHAPES = ((128, 128), (256, 256), (512, 128), (768, 768), (3072, 768), (768, 3072), (2304, 768), (3072, 3072))


def forms(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """The ways to compute ``x @ weight.T + bias`` that torch offers here."""
    transposed = weight.t()
    out = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype)
    found: dict[str, Callable[[], torch.Tensor]] = {
        "addmm": lambda: torch.addmm(bias, x, transposed, out=out),
        "linear": lambda: torch.nn.functional.linear(x, weight, bias),
    }
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, x.shape[0])
    found["packed"] = lambda: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    found["unpacked"] = lambda: torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    found["read"] = lambda: weight.view(torch.int32).max()
    if x.dtype == torch.float32 and torch.backends.mkl.is_available():
        by_mkl = torch.ops.mkl._mkl_reorder_linear_weight(weight, x.shape[0])
        found["mkl"] = lambda: torch.ops.mkl._mkl_linear(x, by_mkl, weight, bias, x.shape[0])
    return found


def measure(calls: dict[str, Callable[[], torch.Tensor]], seconds: float) -> dict[str, float]:
    """Median microseconds of each call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["addmm"]) < 5:
        for name, call in calls.items():
            started = time.process_time()
            call()
            times[name].append(time.process_time() - started)
    return {name: statistics.median(values) * 1e6 for name, values in times.items()}


@torch.no_grad()
def main() -> None:
    """Print one line for each dtype and shape, then the geometric means of addmm's time over each form's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "float16"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4, 16, 64, 128, 512], help="values of M")
    parser.add_argument("--seconds", type=float, default=0.1, help="time for each line")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.dtypes:
        dtype = getattr(torch, name)
        ratios: dict[tuple[str, int], list[float]] = {}
        for m in options.rows:
            for n, k in SHAPES:
                x, weight, bias = (torch.randn(shape).to(dtype) for shape in ((m, k), (n, k), (n,)))
                times = measure(forms(x, weight, bias), options.seconds)
                print(f"{name} M={m} N={n} K={k}: " + ", ".join(f"{form} {t:.1f}" for form, t in times.items()))
                for form, t in times.items():
                    ratios.setdefault((form, m), []).append(times["addmm"] / t)
        for (form, m), values in ratios.items():
            print(f"{name} M={m}: addmm / {form} = {math.exp(statistics.fmean(map(math.log, values))):.2f}")


if __name__ == "__main__":
    main()
