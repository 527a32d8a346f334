"""torchport's convolutions against stock Inductor's, on this machine.

    python tools/bench_convolutions.py --threads 1 --clock cpu

Each line: a convolution of images whose channels lie last, alone, and followed by a norm by running statistics and a
ReLU. Times are those of the fastest of several rounds in turns, in compiled graphs. Shapes are
IMAGESxCHANNELSxSIDExOUTPUTSxWINDOWxSTRIDE, borders are half of the window (none for patches: windows as large as their
stride).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from bench_products import CLOCKS, fastest
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torchport_cpu.host import host_info

SHAPES = (
    "2x32x32x32x1x1", "2x128x32x64x1x1", "2x256x16x512x1x2", "2x32x32x32x3x1", "2x64x16x64x3x1", "2x128x16x128x3x2",
    "1x64x56x64x3x1", "1x128x28x128x3x1", "1x256x14x256x3x1", "1x512x7x512x3x1", "2x96x32x192x2x2", "2x192x16x384x2x2",
)  # fmt: skip


class Layer(torch.nn.Module):
    """One convolution, and what follows it."""

    def __init__(self, channels: int, outputs: int, window: int, stride: int, followed: bool) -> None:
        super().__init__()
        border = 0 if window == stride else window // 2
        self.convolution = torch.nn.Conv2d(channels, outputs, window, stride, border, bias=not followed)
        self.norm = torch.nn.BatchNorm2d(outputs)
        self.followed = followed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        return torch.relu(self.norm(x)) if self.followed else x


@torch.no_grad()
def line(shape: str, given: argparse.Namespace) -> list[str]:
    """One row of the table."""
    images, channels, side, outputs, window, stride = map(int, shape.split("x"))
    dtype = getattr(torch, given.dtype)
    x = torch.randn(images, channels, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
    cells = [shape]
    for followed in (False, True):
        layer = Layer(channels, outputs, window, stride, followed).eval().to(dtype)
        calls: list[Callable[[], object]] = []
        for backend in ("inductor", "torchport"):
            torch._dynamo.reset()
            compiled = torch.compile(layer, backend=backend, dynamic=False)
            found = compiled(x)
            calls.append(lambda compiled=compiled: compiled(x))
        flops = 2 * found.numel() * channels * window**2
        theirs, ours = fastest(calls, given.rounds, CLOCKS[given.clock])
        rates = [f"{flops / milliseconds / 1e6:.0f}" for milliseconds in (theirs, ours)]
        cells += [f"{theirs * 1e3:.0f}", f"{ours * 1e3:.0f}", *rates, f"{theirs / ours:.2f}"]
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [line(shape, given) for shape in track(given.shapes, "convolutions", transient=True)]
    table = Table(title=f"{host_info().cpu}, {host_info().arch}, {given.threads} thread(s)")
    for name in ("shape", *("Inductor us", "torchport us", "GFLOP/s", "GFLOP/s", "ratio") * 2):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
