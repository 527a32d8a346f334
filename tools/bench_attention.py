"""Compare attention with torch's own: seconds over length, forward and backward, decoding, piecewise, flex, and memory.

    python tools/bench_attention.py --threads 1 --out table.md --plots docs/images [--quick]

Calls take turns (A B A B ...); a figure is the fastest of its rounds, with one thread in the process's own time.
Memory is the growth of a process of its own to its peak. Plots need matplotlib.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench_ops import fastest
from model_bench.machine import machine
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import torchport.ops as ops

sdpa = torch.nn.functional.scaled_dot_product_attention
HEADS = 4
Rows = list[tuple[str, str, str, int, float, float]]
"""(what, dtype, case, length, seconds of ours, seconds of torch's)"""


def normal(*shape: int, dtype: torch.dtype, grad: bool = False) -> torch.Tensor:
    return torch.randn(shape).to(dtype).requires_grad_(grad)


def whole(lengths: list[int], rounds: int) -> Iterator[tuple[str, str, str, int, float, float]]:
    """Forward and backward over lengths."""
    for dtype in (torch.float32, torch.bfloat16):
        for size in (64, 128):
            for causal in (True, False):
                for length in lengths:
                    q, k, v = (normal(1, HEADS, length, size, dtype=dtype, grad=True) for _ in range(3))
                    case = f"size {size}, {'causal' if causal else 'full'}"
                    name = str(dtype).removeprefix("torch.")
                    with torch.no_grad():
                        ours, theirs = fastest(
                            [
                                lambda q=q, k=k, v=v, causal=causal: ops.flash_attention(q, k, v, causal=causal),
                                lambda q=q, k=k, v=v, causal=causal: sdpa(q, k, v, is_causal=causal),
                            ],
                            rounds,
                        )
                    yield "forward", name, case, length, ours, theirs
                    results = ops.flash_attention(q, k, v, causal=causal), sdpa(q, k, v, is_causal=causal)
                    grad = torch.randn_like(q)
                    calls = [
                        lambda out=out, i=(q, k, v), grad=grad: torch.autograd.grad(out, i, grad, retain_graph=True)
                        for out in results
                    ]
                    yield "backward", name, case, length, *fastest(calls, rounds)


def decoding(rounds: int, contexts: list[int]) -> Iterator[tuple[str, str, str, int, float, float]]:
    """One token each from a cache in pages, against torch's SDPA on a cache that lies side by side."""
    for dtype in (torch.float32, torch.bfloat16):
        for owners in (8, 2):
            for batch in (1, 8):
                for context in contexts:
                    pages = batch * context // 16
                    caches = [normal(pages, 16, owners, 64, dtype=dtype) for _ in range(2)]
                    tables = torch.randperm(pages).reshape(batch, -1).int()
                    lengths = torch.full((batch,), context).int()
                    query = normal(batch, 8, 64, dtype=dtype)
                    k, v = (
                        cache[tables.long()].reshape(batch, context, owners, 64).transpose(1, 2).contiguous()
                        for cache in caches
                    )
                    calls = [
                        lambda a=(query, *caches, tables, lengths): ops.paged_attention(*a),
                        lambda q=query, k=k, v=v: sdpa(q[:, :, None], k, v, enable_gqa=True),
                    ]
                    case = f"batch {batch}, 8 heads on {owners}"
                    yield "decoding", str(dtype).removeprefix("torch."), case, context, *fastest(calls, rounds)


def composite(q1: torch.Tensor, k1: torch.Tensor, q2: torch.Tensor, k2: torch.Tensor, v: torch.Tensor,
              threshold: int) -> torch.Tensor:  # fmt: skip
    """Causal piecewise attention by plain operators."""
    place = torch.arange(q1.shape[2])
    distance = place[:, None] - place
    scores = torch.where(distance >= threshold, q2 @ k2.mT, q1 @ k1.mT) * q1.shape[-1] ** -0.5
    return torch.softmax(scores.masked_fill(distance < 0, -torch.inf), -1) @ v


def piecewise(lengths: list[int], rounds: int) -> Iterator[tuple[str, str, str, int, float, float]]:
    for length in lengths:
        args = [normal(1, HEADS, length, 64, dtype=torch.float32, grad=True) for _ in range(5)]
        functions: list[Callable[..., Any]] = [
            lambda *a: ops.piecewise_attention(*a, 512, causal=True),
            lambda *a: composite(*a, 512),
        ]
        with torch.no_grad():
            forward = fastest([lambda f=f, a=args: f(*a) for f in functions], rounds)
        yield "piecewise forward", "float32", "size 64, causal", length, *forward
        grad = torch.randn_like(args[0])
        results = [function(*args) for function in functions]
        calls = [lambda out=out, a=args, g=grad: torch.autograd.grad(out, a, g, retain_graph=True) for out in results]
        yield "piecewise backward", "float32", "size 64, causal", length, *fastest(calls, rounds)


Mod = Callable[..., torch.Tensor]


def flex(lengths: list[int], rounds: int) -> Iterator[tuple[str, str, str, int, float, float]]:
    """FlexAttention in graphs: forward against Inductor's C++, backward against its definition by plain operators."""
    slopes = torch.rand(HEADS)
    for length in lengths:
        documents = torch.arange(length) // (length // 4)
        cases: dict[str, tuple[Mod | None, Mod]] = {
            "window of 256": (None, lambda b, h, m, n: (m >= n) & (m - n < 256)),
            "documents": (None, lambda b, h, m, n, d=documents: (m >= n) & (d[m] == d[n])),
            "ALiBi": (lambda s, b, h, m, n: s + slopes[h] * (n - m), lambda b, h, m, n: m >= n),
            "soft cap": (lambda s, b, h, m, n: 20 * torch.tanh(s / 20), lambda b, h, m, n: m >= n),
        }
        for case, (score_mod, mask_mod) in cases.items():
            q, k, v = (normal(1, HEADS, length, 64, dtype=torch.float32, grad=True) for _ in range(3))
            mask = create_block_mask(mask_mod, None, None, length, length, device="cpu")

            def attend(q: Any, k: Any, v: Any, score_mod: Any = score_mod, mask: Any = mask) -> Any:
                return flex_attention(q, k, v, score_mod, mask)

            def plain(q: Any, k: Any, v: Any, score_mod: Any = score_mod, mask_mod: Any = mask_mod) -> Any:
                m, n, h = (
                    torch.arange(q.shape[2])[:, None],
                    torch.arange(k.shape[2]),
                    torch.arange(HEADS)[:, None, None],
                )
                scores = q @ k.mT * q.shape[-1] ** -0.5
                scores = scores if score_mod is None else score_mod(scores, 0, h, m, n)
                return torch.softmax(scores.masked_fill(~mask_mod(0, h, m, n), -torch.inf), -1) @ v

            torch._dynamo.reset()
            ours, theirs = (torch.compile(attend, backend=name) for name in ("torchport", "inductor"))
            with torch.no_grad():
                bare = q.detach(), k.detach(), v.detach()  # Inductor refuses gradients
                forward = fastest([lambda f=f, a=bare: f(*a) for f in (ours, theirs)], rounds)
            yield "flex forward", "float32", case, length, *forward
            grad = torch.randn_like(q)
            results = [f(q, k, v) for f in (ours, plain)]
            calls = [
                lambda out=out, a=(q, k, v), g=grad: torch.autograd.grad(out, a, g, retain_graph=True)
                for out in results
            ]
            yield "flex backward", "float32", case, length, *fastest(calls, rounds)


def peak(which: str, length: int) -> None:
    """In a process of its own: print the bytes that piecewise attention, forward and backward, takes at its peak."""
    args = [normal(1, HEADS, length, 64, dtype=torch.float32, grad=True) for _ in range(5)]
    short = [one[:, :, :64].detach().requires_grad_() for one in args]

    def run(tensors: list[torch.Tensor]) -> None:
        if which == "ours":
            out = ops.piecewise_attention(*tensors, 512, causal=True)
        else:
            out = composite(*tensors, 512)
        torch.autograd.grad(out.sum(), tensors)

    run(short)  # what is imported and compiled is not counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten (proc(5))
    before = status("VmRSS")
    run(args)
    print(status("VmHWM") - before)


def status(name: str) -> int:
    """Bytes of memory of this process, as Linux counts them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def memory(lengths: list[int]) -> dict[str, list[float]]:
    """MiB by length, ours and the composite's."""
    found: dict[str, list[float]] = {}
    for which in ("ours", "composite"):
        for length in lengths:
            command = [sys.executable, __file__, "--peak", which, str(length)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.setdefault(which, []).append(int(done.stdout) / 2**20)
    return found


def plots(rows: Rows, taken: dict[str, list[float]], lengths: list[int], folder: Path) -> None:
    """Speed over length, and memory over length, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "torchport"
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, what in zip(axes, ("forward", "backward"), strict=True):
        for dtype, mark in (("float32", "-o"), ("bfloat16", "--s")):
            for case in ("size 64, causal", "size 64, full", "size 128, causal", "size 128, full"):
                chosen = [row for row in rows if row[:3] == (what, dtype, case)]
                places, ratios = [row[3] for row in chosen], [row[5] / row[4] for row in chosen]
                axis.plot(places, ratios, mark, label=f"{dtype}, {case}", markersize=4)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(title=what, xlabel="tokens", xscale="log")
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.minorticks_off()
    axes[0].set_ylabel("times the speed of torch's SDPA")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="lower center", ncols=4)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(folder / "attention-speed.svg", metadata={"Date": None})
    figure, axis = plt.subplots(figsize=(5, 3.5))
    for which, values in taken.items():
        axis.plot(lengths, values, "-o", label="piecewise_attention" if which == "ours" else "plain operators")
    axis.set(xlabel="tokens", ylabel="MiB at the peak, with gradients", xscale="log", yscale="log")
    axis.set_xticks(lengths, [str(length) for length in lengths])
    axis.minorticks_off()
    axis.legend()
    figure.tight_layout()
    figure.savefig(folder / "attention-memory.svg", metadata={"Date": None})


def table(rows: Rows) -> Iterator[str]:
    yield "| what | dtype | case | tokens | ours ms | torch ms | torch / ours |"
    yield "|---|---|---|---|---|---|---|"
    for what, dtype, case, length, ours, theirs in rows:
        yield (
            f"| {what} | {dtype} | {case} | {length} | {ours * 1e3:.2f} | {theirs * 1e3:.2f} | {theirs / ours:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="1024 tokens only")
    parser.add_argument("--out", type=Path, help="file for the table")
    parser.add_argument("--plots", type=Path, help="folder for the plots")
    parser.add_argument("--peak", nargs=2, metavar=("WHICH", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        return peak(options.peak[0], int(options.peak[1]))
    lengths = [1024] if options.quick else [1024, 2048, 4096]
    rows: Rows = []
    for source in (
        whole(lengths, options.rounds),
        decoding(options.rounds, lengths if options.quick else [1024, 8192]),
        piecewise(lengths, options.rounds),
        flex(lengths, options.rounds),
    ):
        for row in source:
            rows.append(row)
            print(list(table([row]))[-1], flush=True)
    lines = [f"{machine()['processor']}, {options.threads} thread(s), torch {torch.__version__}", "", *table(rows)]
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")
    if options.plots:
        plots(rows, memory(lengths), lengths, options.plots)
    return None


if __name__ == "__main__":
    main()
