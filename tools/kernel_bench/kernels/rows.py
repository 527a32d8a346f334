"""Rows with exponentials: softmax and cross entropy, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from kernel_bench.case import TRANSCENDENTAL, Case, Launch, Sizes, bytes_text, normal, rows_of, size_of


@triton.jit
def softmax_kernel(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < n
    value = tl.load(x + row * n + lane, inside, other=float("-inf"))
    e = tl.exp(value - tl.max(value, 0))
    tl.store(out + row * n + lane, e / tl.sum(e, 0), inside)


@triton.jit
def softmax_backward_kernel(dy, y, dx, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < n
    g = tl.load(dy + row * n + lane, inside, other=0.0)
    v = tl.load(y + row * n + lane, inside, other=0.0)
    tl.store(dx + row * n + lane, v * (g - tl.sum(g * v, 0)), inside)


@triton.jit
def cross_entropy_kernel(logits, target, loss, logsum, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    logits += row * n
    most = float("-inf")
    total = 0.0
    for start in range(0, n, BLOCK):
        lane = start + tl.arange(0, BLOCK)
        value = tl.load(logits + lane, lane < n, other=float("-inf"))
        new = tl.maximum(most, tl.max(value, 0))
        total = total * tl.exp(most - new) + tl.sum(tl.exp(value - new), 0)
        most = new
    lse = most + tl.log(total)
    tl.store(logsum + row, lse)
    tl.store(loss + row, lse - tl.load(logits + tl.load(target + row)))


@triton.jit
def cross_entropy_backward_kernel(  # type: ignore[no-untyped-def]
    dloss, logits, target, logsum, dlogits, n, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < n
    p = tl.exp(tl.load(logits + row * n + lane, inside) - tl.load(logsum + row))
    hit = lane == tl.load(target + row)
    tl.store(dlogits + row * n + lane, (p - tl.where(hit, 1.0, 0.0)) * tl.load(dloss + row), inside)


def _width(size: int) -> int:
    """Columns of a case: those of a hidden state where little fits, of an attention row where more does."""
    return 1000 if size < 2**20 else 2048


def softmax(sizes: Sizes) -> Iterator[Case]:
    for size in sizes.working_sets:
        n = _width(size)
        x = torch.randn(rows_of(size, 8 * n), n)
        out = torch.empty_like(x)
        launch = Launch(softmax_kernel, (x.shape[0],), x, out, n, BLOCK=triton.next_power_of_2(n))
        yield Case(
            "softmax", f"{bytes_text(size)}, rows of {n}", TRANSCENDENTAL, [launch], [out], torch.softmax, [x, -1],
            lambda x=x: [torch.softmax(x.double(), -1)], moved=size_of(x, out),
        )  # fmt: skip


def softmax_backward(sizes: Sizes) -> Iterator[Case]:
    def eager(dy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._softmax_backward_data(dy, y, -1, y.dtype)

    for size in sizes.working_sets:
        n = _width(size)
        dy = torch.randn(rows_of(size, 12 * n), n)
        y = torch.softmax(torch.randn_like(dy), -1)
        dx = torch.empty_like(y)
        launch = Launch(softmax_backward_kernel, (y.shape[0],), dy, y, dx, n, BLOCK=triton.next_power_of_2(n))
        yield Case(
            "softmax_backward", f"{bytes_text(size)}, rows of {n}", "memory", [launch], [dx], eager, [dy, y],
            lambda dy=dy, y=y: [eager(dy.double(), y.double())], moved=size_of(dy, y, dx),
        )  # fmt: skip


def _vocabulary(size: int) -> int:
    return 1000 if size < 2**20 else 32000


def cross_entropy(sizes: Sizes) -> Iterator[Case]:
    def eager(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, target, reduction="none")

    for size in sizes.working_sets:
        n = _vocabulary(size)
        logits = torch.randn(rows_of(size, 4 * n), n)
        rows = logits.shape[0]
        target, block = torch.randint(n, (rows,)), min(4096, triton.next_power_of_2(n))
        loss, logsum = normal(2, rows)
        launch = Launch(cross_entropy_kernel, (rows,), logits, target, loss, logsum, n, BLOCK=block)
        yield Case(
            "cross_entropy", f"{bytes_text(size)}, rows of {n}", TRANSCENDENTAL, [launch], [loss, logsum], eager,
            [logits, target], lambda x=logits, t=target: [eager(x.double(), t), x.double().logsumexp(-1)],
            moved=size_of(logits, target, loss, logsum),
        )  # fmt: skip


def cross_entropy_backward(sizes: Sizes) -> Iterator[Case]:
    def eager(dloss: torch.Tensor, logp: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        weight = torch.ones((), dtype=logp.dtype)
        picked = torch.ops.aten.nll_loss_backward(dloss, logp, target, None, 0, -100, weight)
        return torch.ops.aten._log_softmax_backward_data(picked, logp, -1, logp.dtype)

    for size in sizes.working_sets:
        n = _vocabulary(size)
        rows = rows_of(size, 8 * n)
        logits, target, dloss = torch.randn(rows, n), torch.randint(n, (rows,)), torch.randn(rows)
        logp, logsum, out = torch.log_softmax(logits, -1), logits.logsumexp(-1), torch.empty_like(logits)
        block = min(4096, triton.next_power_of_2(n))
        grid = (rows, triton.cdiv(n, block))
        launch = Launch(cross_entropy_backward_kernel, grid, dloss, logits, target, logsum, out, n, BLOCK=block)

        def expected(g: torch.Tensor = dloss, x: torch.Tensor = logits, t: torch.Tensor = target) -> list[torch.Tensor]:
            return [eager(g.double(), torch.log_softmax(x.double(), -1), t)]

        yield Case(
            "cross_entropy_backward", f"{bytes_text(size)}, rows of {n}", TRANSCENDENTAL, [launch], [out], eager,
            [dloss, logp, target], expected, moved=size_of(logits, out),
        )  # fmt: skip
