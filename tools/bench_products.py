"""torchport's kernels for products with few rows against aten's products, on this machine.

    python tools/bench_products.py --rows 1 4 16 --threads 1

Each line: x [M, K] by the transposes of weights [N, K], one after another, more of them than the second cache holds.
Times are those of one product in the fastest of several rounds, aten's and torchport's in turn. Lines without a ratio
are left to aten.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torchport_cpu.host import host_info

from torchport.inductor.products.lowering import slow
from torchport.inductor.products.rules import choose

SHAPES = ((512, 512), (1376, 512), (512, 1376), (1024, 1024), (4096, 1024), (8000, 512), (4096, 4096))
BYTES, MOST = 64 * 2**20, 16
"""Of all weights, and how many of them at most."""


def products(x: torch.Tensor, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What is measured."""
    return [x @ weight.t() for weight in weights]


def fastest(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Milliseconds of each call in its fastest round."""
    best = [float("inf")] * len(calls)
    for call in calls:
        call()
    for _ in range(rounds):
        for number, call in enumerate(calls):
            started = time.perf_counter()
            call()
            best[number] = min(best[number], time.perf_counter() - started)
    return [seconds * 1e3 for seconds in best]


@torch.no_grad()
def line(m: int, n: int, k: int, dtype: torch.dtype, rounds: int) -> list[str]:
    """One row of the table."""
    count = min(MOST, max(1, BYTES // (n * k * dtype.itemsize)))
    x, weights = torch.randn(m, k).to(dtype), [torch.randn(n, k).to(dtype) for _ in range(count)]
    lanes = host_info().vector_bits // 32
    choice = choose(m, n, k, (1, k), dtype, lanes, slow(dtype, lanes))
    calls: list[Callable[[], object]] = [lambda: products(x, weights)]
    if choice is not None:
        torch._dynamo.reset()
        compiled = torch.compile(products, backend="torchport", dynamic=False)
        calls.append(lambda: compiled(x, weights))
    times = [milliseconds / count for milliseconds in fastest(calls, rounds)]
    size = n * k * dtype.itemsize / 1e6
    cells = [str(m), f"{n} x {k}", str(dtype).removeprefix("torch."), f"{times[0] * 1e3:.1f}"]
    if choice is None:
        return [*cells, "", "", "", ""]
    kernel = f"{choice.kernel} {choice.rows}x{choice.columns}x{choice.terms}"
    return [*cells, f"{times[1] * 1e3:.1f}", kernel, f"{size / times[1]:.1f}", f"{times[0] / times[1]:.2f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16", "float32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cases = [(m, n, k, getattr(torch, dtype)) for dtype in given.dtypes for m in given.rows for n, k in SHAPES]
    rows = [line(*case, given.rounds) for case in track(cases, "products", transient=True)]
    table = Table(title=f"{host_info().cpu}, {host_info().arch}, {given.threads} thread(s)")
    for name in ("M", "N x K", "dtype", "aten us", "torchport us", "kernel", "GB/s", "ratio"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
