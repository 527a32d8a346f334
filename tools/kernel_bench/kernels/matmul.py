"""Matrix products: square, tall, thin and batched, in float32, bfloat16 and int8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from kernel_bench.case import DOT, Case, Launch, Sizes, size_of

# (batch, M, N, K) and blocks of M, N and K.
SHAPES: dict[str, tuple[tuple[int, int, int, int], tuple[int, int, int]]] = {
    "256^3": ((1, 256, 256, 256), (128, 128, 64)),
    "512^3": ((1, 512, 512, 512), (128, 128, 64)),
    "1024^3": ((1, 1024, 1024, 1024), (128, 128, 64)),
    "tall 16384x64x256": ((1, 16384, 64, 256), (128, 64, 64)),
    "thin 16x4096x1024": ((1, 16, 4096, 1024), (16, 128, 128)),
    "32 of 128x128x64": ((32, 128, 128, 64), (128, 128, 64)),
}


@triton.jit
def matmul_kernel(  # type: ignore[no-untyped-def]
    a, b, c, m, n, k, stride_ab, stride_am, stride_bb, stride_bk, stride_cb, stride_cm,
    TOTAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """c[z] = a[z] @ b[z], rows contiguous; TOTAL is the type that sums are kept in."""
    batch = tl.program_id(2)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    a_at = a + batch * stride_ab + row[:, None] * stride_am + inner[None, :]
    b_at = b + batch * stride_bb + inner[:, None] * stride_bk + column[None, :]
    total = tl.zeros((BM, BN), TOTAL)
    for start in range(0, k, BK):
        left = tl.load(a_at, (row[:, None] < m) & (inner[None, :] < k - start), other=0)
        right = tl.load(b_at, (inner[:, None] < k - start) & (column[None, :] < n), other=0)
        total = tl.dot(left, right, total, out_dtype=TOTAL)
        a_at += BK
        b_at += BK * stride_bk
    c_at = c + batch * stride_cb + row[:, None] * stride_cm + column[None, :]
    tl.store(c_at, total.to(c.dtype.element_ty), (row[:, None] < m) & (column[None, :] < n))


def _cases(kernel: str, dtype: torch.dtype, sizes: Sizes) -> Iterator[Case]:
    for label, ((batch, m, n, k), (bm, bn, bk)) in list(SHAPES.items())[: 1 if sizes.quick else None]:
        whole = dtype == torch.int8
        if whole:
            a, b = torch.randint(-128, 128, (batch, m, k)).to(dtype), torch.randint(-128, 128, (batch, k, n)).to(dtype)
        else:
            a, b = torch.randn(batch, m, k).to(dtype), torch.randn(batch, k, n).to(dtype)
        if batch == 1:
            a, b = a[0], b[0]
        out = torch.empty(*a.shape[:-1], n, dtype=torch.int32 if whole else dtype)
        if whole and batch > 1:
            continue  # torch._int_mm has no batched form to compare with
        function: Any = torch._int_mm if whole else torch.matmul

        def expected(a: torch.Tensor = a, b: torch.Tensor = b, whole: bool = whole) -> list[torch.Tensor]:
            product = a.double() @ b.double()  # exact for int8: the sums stay below 2^53
            return [product.long() if whole else product]

        launch = Launch(
            matmul_kernel, (triton.cdiv(m, bm), triton.cdiv(n, bn), batch), a, b, out, m, n, k, m * k, k, k * n, n,
            m * n, n, TOTAL=tl.int32 if whole else tl.float32, BM=bm, BN=bn, BK=bk,
        )  # fmt: skip
        yield Case(
            kernel, label, DOT, [launch], [out], function, [a, b], expected, moved=size_of(a, b, out),
            operations=2 * batch * m * n * k, compiled=False,
        )  # fmt: skip


def matmul_fp32(sizes: Sizes) -> Iterator[Case]:
    return _cases("matmul_fp32", torch.float32, sizes)


def matmul_bf16(sizes: Sizes) -> Iterator[Case]:
    return _cases("matmul_bf16", torch.bfloat16, sizes)


def matmul_int8(sizes: Sizes) -> Iterator[Case]:
    return _cases("matmul_int8", torch.int8, sizes)
