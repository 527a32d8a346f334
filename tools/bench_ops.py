"""Compare torchport.ops with torch eager and Inductor's C++, and measure what an operator costs besides its kernel.

    python tools/bench_ops.py --threads 1 --out ops.md [--only rms_norm,softmax]

Every operator is called by all three in turns (A B C A B C ...), forward, or forward and backward where its name says
so. A figure is the fastest of its rounds; with one thread, in the process's own time, which other programs of a busy
machine disturb least. Freed memory is kept (glibc's MALLOC_ variables), so that results are no fresh pages. Results are
first checked against each other. Without `--out` the tables go to the terminal only.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from model_bench.machine import machine

import torchport
import torchport.ops as ops
from torchport.ops.launch import launch
from torchport.ops.written import rms_norm as norms

F = torch.nn.functional
Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """name: operator and sizes. ours, torch_: the same function by the library and by torch; args: what both take."""

    name: str
    ours: Callable[..., Any]
    torch_: Callable[..., Any]
    args: tuple[Any, ...]


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """RoPE as transformers computes it."""
    cos, sin = torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def routed(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    weights, indices = torch.topk(torch.softmax(logits, -1, dtype=torch.float32), k)
    return weights / weights.sum(-1, keepdim=True), indices


def quantized(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scales = x.abs().amax(-1).float() / 127
    return torch.round(x / scales.unsqueeze(-1)).to(torch.int8), scales


def drawn(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Top-k 50 and top-p 0.9 by sorting, as generation does it."""
    values, indices = torch.topk(logits, 50)
    weights = torch.softmax(values, -1)
    weights = torch.where(weights.cumsum(-1) - weights < 0.9, weights, 0.0)
    sums = weights.cumsum(-1)
    return indices.gather(-1, (sums <= uniform[:, None] * sums[:, -1:]).sum(-1, keepdim=True)).squeeze(-1)


def trained(call: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """``call`` and its backward pass."""

    def step(*args: Any) -> Any:
        inputs = [one for one in args if isinstance(one, torch.Tensor) and one.requires_grad]
        return torch.autograd.grad(call(*args).sum(), inputs)

    return step


def cases(dtype: torch.dtype) -> Iterator[Case]:
    def normal(*shape: int, grad: bool = False) -> torch.Tensor:
        return torch.randn(shape).to(dtype).requires_grad_(grad)

    x, w, b = normal(512, 2048), normal(2048), normal(2048)
    yield Case("rms_norm 512x2048", ops.rms_norm, lambda x, w: F.rms_norm(x, w.shape, w, 1e-6), (x, w))
    yield Case("layer_norm 512x2048", ops.layer_norm, lambda x, w, b: F.layer_norm(x, w.shape, w, b), (x, w, b))
    both = normal(512, 2048), normal(512, 2048), w
    yield Case(
        "add_rms_norm 512x2048",
        ops.add_rms_norm,
        lambda x, r, w: (F.rms_norm(x + r, w.shape, w, 1e-6), x + r),
        both,
    )
    args = normal(512, 2048, grad=True), normal(2048, grad=True)
    yield Case(
        "rms_norm 512x2048, training",
        trained(lambda x, w: ops.rms_norm(x, w)),
        trained(lambda x, w: F.rms_norm(x, w.shape, w, 1e-6)),
        args,
    )
    yield Case("swiglu 512x2048", ops.swiglu, lambda g, u: F.silu(g) * u, both[:2])
    angle = torch.rand(512, 32) * 100
    rope = normal(1, 16, 512, 64), angle.cos().to(dtype), angle.sin().to(dtype)
    yield Case("rope 16 heads, 512x64", ops.rope, turned, rope)
    yield Case("softmax 1024x1024", ops.softmax, lambda x: torch.softmax(x, -1), (normal(1024, 1024),))
    logits, target = normal(256, 32000, grad=True), torch.randint(0, 32000, (256,))
    yield Case(
        "cross_entropy 256x32000, training", trained(ops.cross_entropy), trained(F.cross_entropy), (logits, target)
    )
    yield Case("router_topk 512x64, 8", ops.router_topk, routed, (normal(512, 64), 8))
    yield Case("quantize 512x2048", ops.quantize, quantized, (x,))
    table, tokens = normal(32000, 256, grad=True), torch.randint(0, 32000, (2048,))
    yield Case(
        "embedding 2048 of 32000x256, training",
        trained(ops.embedding),
        trained(lambda w, i: F.embedding(i, w)),
        (table, tokens),
    )
    weight = torch.randn(2048, 2048) / 50
    for rows in (1, 16):
        given = normal(rows, 2048)
        plain = weight.to(dtype)
        q, scales = ops.quantize(weight)
        packed = ops.int4_pack(weight)
        yield Case(
            f"quantized_linear {rows}x2048x2048",
            lambda x, _, *weight: ops.quantized_linear(x, *weight),
            lambda x, w, *_: F.linear(x, w),
            (given, plain, q, scales),
        )
        yield Case(
            f"int4_linear {rows}x2048x2048",
            lambda x, _, *weight: ops.int4_linear(x, *weight),
            lambda x, w, *_: F.linear(x, w),
            (given, plain, *packed),
        )
    yield Case(
        "sample 8x32000, top-k 50, top-p 0.9",
        lambda x, u: ops.sample(x, u, 1.0, 50, 0.9),
        drawn,
        (normal(8, 32000), torch.rand(8)),
    )


def clock() -> float:
    """Seconds: of this process alone where it has one thread."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def fastest(calls: list[Call], rounds: int, seconds: float = 0.01) -> list[float]:
    """Seconds of each call, the fastest of ``rounds``; the calls take turns, each often enough for ``seconds``."""
    counts = []
    for call in calls:
        call()
        begin = clock()
        call()
        counts.append(max(1, int(seconds / max(clock() - begin, 1e-7))))
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for index, (call, count) in enumerate(zip(calls, counts, strict=True)):
            begin = clock()
            for _ in range(count):
                call()
            best[index] = min(best[index], (clock() - begin) / count)
    return best


def agree(case: Case) -> None:
    """Raise AssertionError where the two differ; quantized weights and drawn tokens differ from plain ones."""
    if "linear" not in case.name and "sample" not in case.name:
        ours, theirs = case.ours(*case.args), case.torch_(*case.args)
        for got, wanted in zip(*((one if isinstance(one, tuple) else (one,)) for one in (ours, theirs)), strict=True):
            if wanted.is_floating_point():  # of equal logits, topk may take either
                torch.testing.assert_close(got, wanted, rtol=0.05, atol=0.01)


def speed(dtype: torch.dtype, only: set[str], rounds: int) -> Iterator[str]:
    """Rows of the table of one dtype."""
    for case in cases(dtype):
        if only and case.name.split()[0] not in only:
            continue
        agree(case)
        torch._dynamo.reset()
        compiled = torch.compile(case.torch_, backend="inductor")
        calls = [functools.partial(function, *case.args) for function in (case.ours, case.torch_, compiled)]
        ours, eager, inductor = fastest(calls, rounds)
        name = str(dtype).removeprefix("torch.")
        yield (
            f"| {case.name} | {name} | {ours * 1e3:.3f} | {eager * 1e3:.3f} | {inductor * 1e3:.3f} "
            f"| {eager / ours:.2f} | {inductor / ours:.2f} |"
        )


def overhead(rounds: int) -> Iterator[str]:
    """Rows about one row of 64 elements, whose kernel takes next to no time."""
    x, w, y = torch.randn(1, 64), torch.randn(64), torch.empty(1, 64)
    args, block = (x, None, w, y, None, 64, 0, 64, 1e-6, 0.0), {"BLOCK": 64}
    needs = x.clone().requires_grad_()
    compiled = torch.compile(lambda x, w: F.rms_norm(x, (64,), w, 1e-6), backend="inductor")
    torchport.use("cpu")
    calls = {
        "`launch` of a kernel": lambda: launch(norms._forward, (1, 1, 1), args, block),
        "the same through Triton's JIT function": lambda: norms._forward.jit[(1, 1, 1)](*args, BLOCK=64),
        "`torchport.ops.rms_norm`": lambda: ops.rms_norm(x, w),
        "the same through torch's dispatcher": lambda: torch.ops.torchport.rms_norm(x, w, 1e-6, 0.0),
        "the same with a gradient recorded": lambda: ops.rms_norm(needs, w),
        "`F.rms_norm`": lambda: F.rms_norm(x, (64,), w, 1e-6),
        "`F.rms_norm` with a gradient recorded": lambda: F.rms_norm(needs, (64,), w, 1e-6),
        "`F.rms_norm` compiled by Inductor": lambda: compiled(x, w),
    }
    for name, seconds in zip(calls, fastest(list(calls.values()), rounds * 4, 0.002), strict=True):
        yield f"| {name} | {seconds * 1e6:.1f} |"


KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def main() -> None:
    if not KEEP_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default="", help="operators, with commas between")
    parser.add_argument("--out", type=Path, help="write the tables to this file")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    only = set(filter(None, a.only.split(",")))
    about = machine()
    lines = [f"{about['processor']}, torch {about['torch']}, {a.threads} thread(s)", ""]

    def show(rows: Iterator[str]) -> None:
        for row in rows:
            lines.append(row)
            print(row, flush=True)

    show(
        iter(
            [
                "| operator | dtype | torchport.ops ms | eager ms | Inductor ms | eager / ours | Inductor / ours |",
                "|---|---|---|---|---|---|---|",
            ]
        )
    )
    for dtype in (torch.float32, torch.bfloat16):
        show(speed(dtype, only, a.rounds))
    if not only:
        show(iter(["", "| one row of 64 elements | microseconds |", "|---|---|"]))
        show(overhead(a.rounds))
    if a.out:
        a.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
