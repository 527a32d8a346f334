"""Layer norm and RMS norm, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from kernel_bench.case import MEMORY, Case, Launch, Sizes, bytes_text, normal, rows_of, size_of

WIDTH = 1024
EPSILON = 1e-5
GROUPS = 32  # partial sums of the weights' gradients; not the number of threads, so that results do not depend on it


@triton.jit
def layer_norm_kernel(  # type: ignore[no-untyped-def]
    x, weight, bias, out, mean, rstd, n, eps, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < n
    value = tl.load(x + row * n + lane, inside, other=0.0)
    m = tl.sum(value, 0) / n
    centred = tl.where(inside, value - m, 0.0)
    r = tl.rsqrt(tl.sum(centred * centred, 0) / n + eps)
    y = centred * r * tl.load(weight + lane, inside) + tl.load(bias + lane, inside)
    tl.store(out + row * n + lane, y, inside)
    tl.store(mean + row, m)
    tl.store(rstd + row, r)


@triton.jit
def layer_norm_backward_kernel(  # type: ignore[no-untyped-def]
    dy, x, weight, mean, rstd, dx, dweights, dbiases, rows, n, BLOCK: tl.constexpr
):
    group = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < n
    w = tl.load(weight + lane, inside, other=0.0)
    dw = tl.zeros((BLOCK,), tl.float32)
    db = tl.zeros((BLOCK,), tl.float32)
    share = tl.cdiv(rows, tl.num_programs(0))
    for row in range(group * share, tl.minimum((group + 1) * share, rows)):
        g = tl.load(dy + row * n + lane, inside, other=0.0)
        r = tl.load(rstd + row)
        normal = (tl.load(x + row * n + lane, inside, other=0.0) - tl.load(mean + row)) * r
        wg = w * g
        projection = tl.sum(tl.where(inside, normal * wg, 0.0), 0) / n
        tl.store(dx + row * n + lane, (wg - normal * projection - tl.sum(wg, 0) / n) * r, inside)
        dw += g * normal
        db += g
    tl.store(dweights + group * n + lane, dw, inside)
    tl.store(dbiases + group * n + lane, db, inside)


@triton.jit
def rms_norm_kernel(x, weight, out, rstd, n, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < n
    value = tl.load(x + row * n + lane, inside, other=0.0)
    r = tl.rsqrt(tl.sum(value * value, 0) / n + eps)
    tl.store(out + row * n + lane, value * r * tl.load(weight + lane, inside), inside)
    tl.store(rstd + row, r)


@triton.jit
def rms_norm_backward_kernel(  # type: ignore[no-untyped-def]
    dy, x, weight, rstd, dx, dweights, rows, n, BLOCK: tl.constexpr
):
    group = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < n
    w = tl.load(weight + lane, inside, other=0.0)
    dw = tl.zeros((BLOCK,), tl.float32)
    share = tl.cdiv(rows, tl.num_programs(0))
    for row in range(group * share, tl.minimum((group + 1) * share, rows)):
        g = tl.load(dy + row * n + lane, inside, other=0.0)
        r = tl.load(rstd + row)
        normal = tl.load(x + row * n + lane, inside, other=0.0) * r
        wg = w * g
        projection = tl.sum(normal * wg, 0) / n
        tl.store(dx + row * n + lane, (wg - normal * projection) * r, inside)
        dw += g * normal
    tl.store(dweights + group * n + lane, dw, inside)


@triton.jit
def sum_groups_kernel(partial, out, groups, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < n
    total = tl.zeros((BLOCK,), tl.float32)
    for group in range(groups):
        total += tl.load(partial + group * n + lane, inside, other=0.0)
    tl.store(out + lane, total, inside)


def layer_norm(sizes: Sizes) -> Iterator[Case]:
    def eager(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.native_layer_norm(x, [WIDTH], w, b, EPSILON)

    for size in sizes.working_sets:
        x = torch.randn(rows_of(size, 8 * WIDTH), WIDTH)
        rows = x.shape[0]
        w, b = normal(2, WIDTH)
        out, mean, rstd = torch.empty_like(x), torch.empty(rows, 1), torch.empty(rows, 1)
        launch = Launch(layer_norm_kernel, (rows,), x, w, b, out, mean, rstd, WIDTH, EPSILON, BLOCK=WIDTH)
        yield Case(
            "layer_norm", f"{bytes_text(size)}, rows of {WIDTH}", MEMORY, [launch], [out, mean, rstd], eager, [x, w, b],
            lambda x=x, w=w, b=b: eager(x.double(), w.double(), b.double()), moved=size_of(x, out),
        )  # fmt: skip


def layer_norm_backward(sizes: Sizes) -> Iterator[Case]:
    def eager(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dy, x, mean, rstd, w, b = tensors
        return torch.ops.aten.native_layer_norm_backward(dy, x, [WIDTH], mean, rstd, w, b, [True, True, True])

    for size in sizes.working_sets:
        rows = rows_of(size, 12 * WIDTH)
        dy, x = normal(2, rows, WIDTH)
        w, b = normal(2, WIDTH)
        _, mean, rstd = torch.native_layer_norm(x, [WIDTH], w, b, EPSILON)
        groups = min(rows, GROUPS)
        dx, dw, db, dws, dbs = torch.empty_like(x), *normal(2, WIDTH), *normal(2, groups, WIDTH)
        arguments = (dy, x, w, mean, rstd, dx, dws, dbs, rows, WIDTH)
        steps = [
            Launch(layer_norm_backward_kernel, (groups,), *arguments, BLOCK=WIDTH),
            Launch(sum_groups_kernel, (WIDTH // 256,), dws, dw, groups, WIDTH, BLOCK=256),
            Launch(sum_groups_kernel, (WIDTH // 256,), dbs, db, groups, WIDTH, BLOCK=256),
        ]
        inputs = [dy, x, mean, rstd, w, b]

        def expected(dy: torch.Tensor = dy, x: torch.Tensor = x, w: torch.Tensor = w) -> tuple[torch.Tensor, ...]:
            dy, x, w = dy.double(), x.double(), w.double()
            _, mean, rstd = torch.native_layer_norm(x, [WIDTH], w, w, EPSILON)
            return eager(dy, x, mean, rstd, w, w)

        yield Case(
            "layer_norm_backward", f"{bytes_text(size)}, rows of {WIDTH}", MEMORY, steps, [dx, dw, db], eager, inputs,
            expected, moved=size_of(dy, x, dx),
        )  # fmt: skip


def rms_norm(sizes: Sizes) -> Iterator[Case]:
    def eager(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, [WIDTH], w, EPSILON)

    for size in sizes.working_sets:
        x, w = torch.randn(rows_of(size, 8 * WIDTH), WIDTH), torch.randn(WIDTH)
        rows = x.shape[0]
        out, rstd = torch.empty_like(x), torch.empty(rows, 1)
        launch = Launch(rms_norm_kernel, (rows,), x, w, out, rstd, WIDTH, EPSILON, BLOCK=WIDTH)

        def expected(x: torch.Tensor = x, w: torch.Tensor = w) -> list[torch.Tensor]:
            rstd = torch.rsqrt(x.double().square().mean(-1, keepdim=True) + EPSILON)
            return [x.double() * rstd * w.double(), rstd]

        yield Case(
            "rms_norm", f"{bytes_text(size)}, rows of {WIDTH}", MEMORY, [launch], [out, rstd], eager, [x, w], expected,
            moved=size_of(x, out),
        )  # fmt: skip


def rms_norm_backward(sizes: Sizes) -> Iterator[Case]:
    def eager(dy: torch.Tensor, x: torch.Tensor, rstd: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        normal = x * rstd
        wg = dy * w
        return (wg - normal * (wg * normal).mean(-1, keepdim=True)) * rstd, (dy * normal).sum(0)

    for size in sizes.working_sets:
        rows = rows_of(size, 12 * WIDTH)
        dy, x = normal(2, rows, WIDTH)
        w, rstd = torch.randn(WIDTH), torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)
        groups = min(rows, GROUPS)
        dx, dw, dws = torch.empty_like(x), torch.empty(WIDTH), torch.empty(groups, WIDTH)
        steps = [
            Launch(rms_norm_backward_kernel, (groups,), dy, x, w, rstd, dx, dws, rows, WIDTH, BLOCK=WIDTH),
            Launch(sum_groups_kernel, (WIDTH // 256,), dws, dw, groups, WIDTH, BLOCK=256),
        ]

        def expected(dy: torch.Tensor = dy, x: torch.Tensor = x, w: torch.Tensor = w) -> tuple[torch.Tensor, ...]:
            dy, x, w = dy.double(), x.double(), w.double()
            return eager(dy, x, torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON), w)

        yield Case(
            "rms_norm_backward", f"{bytes_text(size)}, rows of {WIDTH}", MEMORY, steps, [dx, dw], eager,
            [dy, x, rstd, w], expected, moved=size_of(dy, x, dx),
        )  # fmt: skip
