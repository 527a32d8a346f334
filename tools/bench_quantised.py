"""Linear layers with quantised weights: torchport against stock Inductor, on this machine.

    python tools/bench_quantised.py --rows 1 4 16 64 256 --threads 1

Each line: one form in which libraries write such a layer, as plain PyTorch; weights [N, K] one after another, more of
them than the second cache holds. Times are those of one layer in the fastest of several rounds, in turns, in CPU time.
`error`: torchport's greatest error against float64 in times of Inductor's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torchport_cpu.host import host_info

GROUP = 32


@dataclass(frozen=True)
class Weights:
    """Of one layer. Scales are numbers that bfloat16 has."""

    whole: torch.Tensor
    packed: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    scales: torch.Tensor

    @staticmethod
    def random(n: int, k: int, dtype: torch.dtype) -> Weights:
        whole = torch.randint(-128, 128, (n, k), dtype=torch.int8)
        packed = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8)
        scale, scales = ((torch.randint(1, 128, shape) / 2**13).to(dtype) for shape in ((n, 1), (n, k // GROUP, 1)))
        return Weights(whole, packed, scale, torch.randint(-8, 8, (n, 1), dtype=torch.int8), scales)


Form = Callable[[torch.Tensor, Weights], torch.Tensor]


def scaled_after(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """int8, the product scaled (torchao's)."""
    return (x @ w.whole.t().to(x.dtype)) * w.scale.view(-1).to(x.dtype)


def scaled_before(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """int8 with zero points, the weight scaled."""
    return F.linear(x, (w.whole.to(x.dtype) - w.zero.to(x.dtype)) * w.scale.to(x.dtype))


def int4(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """int4 in groups, two in a byte."""
    unpacked = torch.stack([w.packed & 15, w.packed >> 4], -1).view(*w.scales.shape[:2], GROUP)
    return F.linear(x, ((unpacked.to(x.dtype) - 8) * w.scales.to(x.dtype)).view(w.whole.shape))


def operator(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """aten's operator for int8 weights."""
    if x.dtype == torch.float64:
        return scaled_after(x, w)
    return torch.ops.aten._weight_int8pack_mm(x, w.whole, w.scale.view(-1).to(x.dtype))


def dynamic(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """int8, activations quantised by rows (torchao's: shifted to unsigned bytes)."""
    wide = x.float()
    step = (wide.abs().amax(1, keepdim=True) / 127).clamp(min=1e-7)
    signed = (wide / step).round().clamp(-128, 127).to(torch.int32)
    if x.dtype == torch.float64:
        total = (signed.double() @ w.whole.double().t()).to(torch.int32)
    else:
        shift = 128 * w.whole.t().sum(0, keepdim=True, dtype=torch.int32)
        total = torch._int_mm((signed + 128).to(torch.uint8), w.whole.t()) - shift
    return (total.to(x.dtype if x.dtype == torch.float64 else torch.float32) * step * w.scale.view(-1)).to(x.dtype)


FORMS: dict[str, Form] = {
    "scaled-after": scaled_after,
    "scaled-before": scaled_before,
    "int4": int4,
    "operator": operator,
    "dynamic": dynamic,
}


@torch.no_grad()
def line(name: str, m: int, given: argparse.Namespace) -> list[str]:
    """One row of the table."""
    layers = [Weights.random(given.n, given.k, getattr(torch, given.dtype)) for _ in range(given.layers)]
    x, form = torch.randn(m, given.k).to(getattr(torch, given.dtype)), FORMS[name]

    def model(x: torch.Tensor) -> list[torch.Tensor]:
        return [form(x, weights) for weights in layers]

    torch._dynamo.reset()
    calls = [torch.compile(model, backend=backend, dynamic=False) for backend in ("inductor", "torchport")]
    exact = form(x.double(), layers[0])
    inductor, torchport = ((call(x)[0].double() - exact).abs().max().item() for call in calls)
    best = [float("inf")] * len(calls)
    for _ in range(given.rounds):
        for number, call in enumerate(calls):
            started = time.process_time()
            call(x)
            best[number] = min(best[number], (time.process_time() - started) / given.layers * 1e6)
    cells = [name, str(m), *(f"{one:.0f}" for one in best), f"{best[0] / best[1]:.2f}"]
    return [*cells, f"{torchport / inductor:.2f}" if inductor else "exact"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--k", type=int, default=1024)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = f"{given.n} x {given.k}, {given.dtype}"
    table = Table(title=f"{host_info().cpu}, {host_info().arch}, {given.threads} thread(s), {size}")
    for name in ("form", "rows", "Inductor us", "torchport us", "ratio", "error"):
        table.add_column(name, justify="right")
    for form in given.forms:
        for m in given.rows:
            table.add_row(*line(form, m, given))
    Console().print(table)


if __name__ == "__main__":
    main()
