"""torchport's kernels for products with few rows against aten's products, on this machine.

    python tools/bench_products.py --rows 1 4 16 --threads 1

Each line: x [M, K] by the transposes of weights [N, K], one after another, more of them than the second cache holds.
Times are those of one product in the fastest of several rounds, aten's and torchport's in turn. Lines without a ratio
are left to aten. `--clock cpu` counts CPU time, where others run. `--columns` has weights [K, N]. `--error` also prints
torchport's error against float64 in times of aten's, the greatest and the root mean square.
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

from torchport.inductor.products.lowering import facts_of
from torchport.inductor.products.rules import choose
from torchport.plugin import backend_for
from torchport.target import Target

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SHAPES = ((512, 512), (1376, 512), (512, 1376), (1024, 1024), (4096, 1024), (8000, 512), (4096, 4096))
BYTES, MOST = 64 * 2**20, 16
"""Of all weights, and how many of them at most."""


def products(x: torch.Tensor, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What is measured."""
    return [x @ weight for weight in weights]


def errors(found: torch.Tensor, aten: torch.Tensor, exact: torch.Tensor) -> str:
    """The greatest error and the root mean square, in times of aten's."""
    ours, theirs = ((one.double() - exact).abs() for one in (found, aten))
    squares = ours.square().mean().sqrt() / theirs.square().mean().sqrt()
    return f"{ours.max() / theirs.max():.2f} {squares:.2f}"


def fastest(
    calls: Sequence[Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Milliseconds of each call in its fastest round."""
    best = [float("inf")] * len(calls)
    for call in calls:
        call()
    for _ in range(rounds):
        for number, call in enumerate(calls):
            started = clock()
            call()
            best[number] = min(best[number], clock() - started)
    return [seconds * 1e3 for seconds in best]


@torch.no_grad()
def line(m: int, n: int, k: int, dtype: torch.dtype, given: argparse.Namespace) -> list[str]:
    """One row of the table."""
    count = min(MOST, max(1, BYTES // (n * k * dtype.itemsize)))
    x, weights = torch.randn(m, k).to(dtype), [torch.randn(n, k).to(dtype).t() for _ in range(count)]
    if given.columns:
        weights = [weight.contiguous() for weight in weights]
    limits = backend_for(Target("cpu")).capabilities(Target("cpu"))
    strides = weights[0].stride()
    choice = choose(m, n, k, (strides[0], strides[1]), dtype, facts_of(dtype, limits))
    calls: list[Callable[[], object]] = [lambda: products(x, weights)]
    if choice is not None:
        torch._dynamo.reset()
        compiled = torch.compile(products, backend="torchport", dynamic=False)
        calls.append(lambda: compiled(x, weights))
    times = [milliseconds / count for milliseconds in fastest(calls, given.rounds, CLOCKS[given.clock])]
    size = n * k * dtype.itemsize / 1e6
    cells = [str(m), f"{n} x {k}", str(dtype).removeprefix("torch."), f"{times[0] * 1e3:.1f}"]
    if choice is None:
        return [*cells, "", "", "", "", ""]
    kernel = f"{choice.kernel} {choice.rows}x{choice.columns}x{choice.terms}"
    error = ""
    if given.error:
        error = errors(compiled(x, weights)[0], x @ weights[0], x.double() @ weights[0].double())
    rates = (f"{size / times[1]:.1f}", f"{times[0] / times[1]:.2f}", error)
    return [*cells, f"{times[1] * 1e3:.1f}", kernel, *rates]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16", "float32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--columns", action="store_true", help="weights [K, N]")
    parser.add_argument("--shapes", nargs="+", default=[f"{n}x{k}" for n, k in SHAPES], help="NxK")
    parser.add_argument("--error", action="store_true", help="errors against float64, too")
    given = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in given.shapes]
    torch.set_num_threads(given.threads)
    cases = [(m, n, k, getattr(torch, dtype)) for dtype in given.dtypes for m in given.rows for n, k in shapes]
    rows = [line(*case, given) for case in track(cases, "products", transient=True)]
    table = Table(title=f"{host_info().cpu}, {host_info().arch}, {given.threads} thread(s)")
    for name in ("M", "N x K", "dtype", "aten us", "torchport us", "kernel", "GB/s", "ratio", "error"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
