"""Prefix sums and sorting, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from kernel_bench.case import OTHER, Case, Launch, Sizes, bytes_text, rows_of, size_of


@triton.jit
def cumsum_kernel(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    lane = tl.arange(0, BLOCK)
    at = tl.program_id(0) * n + lane
    tl.store(out + at, tl.cumsum(tl.load(x + at, lane < n, other=0.0), 0), lane < n)


@triton.jit
def sort_kernel(x, out, N: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.sort(tl.load(x + at)))


def cumsum(sizes: Sizes) -> Iterator[Case]:
    n = 1024
    for size in sizes.working_sets:
        x = torch.randn(rows_of(size, 8 * n), n)
        out = torch.empty_like(x)
        launch = Launch(cumsum_kernel, (x.shape[0],), x, out, n, BLOCK=n)
        yield Case(
            "cumsum", f"{bytes_text(size)}, rows of {n}", OTHER, [launch], [out], torch.cumsum, [x, -1],
            lambda x=x: [x.double().cumsum(-1)], moved=size_of(x, out),
        )  # fmt: skip


def sort(sizes: Sizes) -> Iterator[Case]:
    def eager(x: torch.Tensor) -> torch.Tensor:
        return torch.sort(x, -1).values

    n = 512
    for size in sizes.working_sets:
        x = torch.randn(rows_of(min(size, 2**26), 8 * n), n)  # sorting more takes long and tells nothing new
        out = torch.empty_like(x)
        launch = Launch(sort_kernel, (x.shape[0],), x, out, N=n)
        yield Case(
            "sort", f"{bytes_text(size_of(x, out))}, rows of {n}", OTHER, [launch], [out], eager, [x],
            lambda x=x: [eager(x).double()], moved=size_of(x, out), compiled=False,
        )  # fmt: skip
