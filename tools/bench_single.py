"""Compare single operations of PyTorch, compiled by torchport and by Inductor's C++.

    python tools/bench_single.py [--only sine,softmax] [--rounds 11]
    python tools/bench_single.py --all "512 KiB" [--only cumsum]

One thread. Each operation is compiled by both; calls take turns, and the figure is the ratio of the fastest rounds in
the process's own time, which other programs of a busy machine disturb least. Freed memory is kept (glibc's MALLOC_
variables); output allocation and guards are included, some 20 us. Above 1, torchport is faster. A result that differs
from eager's is an error.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import sys
import time
from collections.abc import Iterator

import torch
from model_bench.machine import machine
from operation_cases import SIZES, Case, Function, operations

F = torch.nn.functional


def rotated(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def windows(x: torch.Tensor) -> torch.Tensor:
    """Windows of 8 x 8 pixels of an image [N, H, W, C]."""
    n, h, w, c = x.shape
    return x.view(n, h // 8, 8, w // 8, 8, c).permute(0, 1, 3, 2, 4, 5).contiguous()


def cases() -> Iterator[Case]:
    """Name, function and arguments."""
    x = torch.randn
    tokens = torch.randint(0, 5000, (4, 256))
    yield "softmax over 128", lambda a: torch.softmax(a, -1), (x(4096, 128),)
    yield "softmax over 197", lambda a: torch.softmax(a, -1), (x(2364, 197),)
    yield "layer norm over 768", lambda a, w, b: F.layer_norm(a, (768,), w, b), (x(512, 768), x(768), x(768))
    yield "cross entropy over 1000", F.cross_entropy, (x(256, 1000), torch.randint(0, 1000, (256,)))
    yield "GELU", F.gelu, (x(512, 1024),)
    yield "addition of 2 MiB", lambda a, b: a + b, (x(512, 1024), x(512, 1024))
    yield "column sums", lambda a: a.sum(0), (x(1024, 512),)
    yield "variance over rows of 256", lambda a: a.var(-1), (x(2048, 256),)
    yield "transposition of 512 x 512", lambda a: a.t().contiguous(), (x(512, 512),)
    image = x(8, 64, 32, 32)
    yield "channels last", lambda a: a.permute(0, 2, 3, 1).contiguous(), (image,)
    yield "channels first", lambda a: a.permute(0, 3, 1, 2).contiguous(), (x(8, 32, 32, 64),)
    for size in (32, 64):
        heads = x(4, 256, 8, size)
        yield f"heads of {size} moved", lambda a: a.permute(0, 2, 1, 3).contiguous(), (heads,)
        back = x(4, 8, 256, size)
        yield f"heads of {size} moved back", lambda a: a.permute(0, 2, 1, 3).contiguous(), (back,)
    packed = x(4, 256, 3 * 512)
    yield (
        "heads split",
        lambda a: [p.view(4, 256, 8, 64).transpose(1, 2).contiguous() for p in a.chunk(3, -1)],
        (packed,),
    )
    yield "windows of an image", windows, (x(4, 32, 32, 128),)
    yield "rolled image", lambda a: torch.roll(a, (-4, -4), (1, 2)), (x(4, 32, 32, 128),)
    for size in (32, 128, 512):
        yield f"embeddings of {size}", lambda w, i: F.embedding(i, w), (x(5000, size), tokens)
    yield "embeddings with positions", lambda w, p, i: F.embedding(i, w) + p, (x(5000, 512), x(256, 512), tokens)
    yield "concatenation, last", lambda a, b: torch.cat((a, b), -1), (x(1024, 256), x(1024, 256))
    yield "concatenation, first", lambda a, b: torch.cat((a, b)), (x(512, 512), x(512, 512))
    yield "rotated halves", rotated, (x(4, 8, 256, 64),)
    angle = x(256, 64)
    rotary = (x(4, 8, 256, 64), angle.cos(), angle.sin())
    yield "rotary embedding", lambda a, c, s: a * c + rotated(a) * s, rotary
    wide = x(512, 1024) * 10
    yield "sine", torch.sin, (wide,)
    yield "cosine", torch.cos, (wide,)
    yield "sine and cosine", lambda a: (torch.sin(a), torch.cos(a)), (wide,)


def fastest(calls: list[Function], rounds: int, seconds: float) -> list[float]:
    """Seconds of CPU time of a call of each; the calls take turns, each for ``seconds`` a round."""
    counts = []
    for call in calls:
        call()
        begin = time.process_time()
        for _ in range(3):
            call()
        counts.append(max(1, int(3 * seconds / max(time.process_time() - begin, 1e-7))))
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for index, (call, count) in enumerate(zip(calls, counts, strict=True)):
            begin = time.process_time()
            for _ in range(count):
                call()
            best[index] = min(best[index], (time.process_time() - begin) / count)
    return best


def _tolerance(given: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """Inductor's C++ rounds 16-bit floats less often than eager does."""
    narrow = any(one.dtype in (torch.bfloat16, torch.float16) for one in given)
    return {"rtol": 2e-2, "atol": 2e-2} if narrow else {"rtol": 1e-4, "atol": 1e-4}


def compiled(function: Function, backend: str) -> Function:
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True, dynamic=False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument("--all", choices=SIZES, help="tools/operation_cases.py in one of its sizes, instead")
    parser.add_argument("--skip", type=int, default=0, help="how many operations to leave out from the first on")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--sample", type=float, default=0.01, help="seconds of a round")
    arguments = parser.parse_args()
    if "MALLOC_MMAP_MAX_" not in os.environ:  # read by glibc when a process starts
        kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **kept})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    only = [part for part in arguments.only.split(",") if part]
    print(f"{machine()['processor']}, torch {torch.__version__}, one thread, {time.strftime('%Y-%m-%d')}\n")
    print("| operation | torchport us | Inductor us | ratio |\n|---|---|---|---|")
    chosen = operations(SIZES[arguments.all]) if arguments.all else cases()
    for name, function, given in itertools.islice(chosen, arguments.skip, None):
        if only and not any(part in name for part in only):
            continue
        calls = [compiled(function, "torchport"), compiled(function, "inductor")]
        for call in calls:
            torch.testing.assert_close(call(*given), function(*given), **_tolerance(given))
        ours, theirs = fastest([functools.partial(call, *given) for call in calls], arguments.rounds, arguments.sample)
        print(f"| {name} | {ours * 1e6:.1f} | {theirs * 1e6:.1f} | {theirs / ours:.2f} |", flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
