"""Matrix products: every operand type and precision, shapes, layouts, accumulators, scaled formats."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@triton.jit
def product(
    A, B, C, sam, sak, sbk, sbn,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a = tl.load(A + m[:, None] * sam + k[None, :] * sak)
    b = tl.load(B + k[:, None] * sbk + n[None, :] * sbn)
    place = C + m[:, None] * N + n[None, :]
    c = tl.dot(a, b, tl.load(place), input_precision=PRECISION, out_dtype=ACC)
    tl.store(place, c)


@triton.jit
def matmul(
    A, B, C, M, N, K, sam, sak, sbk, sbn,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    m, n, k = tl.program_id(0) * BM + tl.arange(0, BM), tl.program_id(1) * BN + tl.arange(0, BN), tl.arange(0, BK)
    a_pointers = A + m[:, None] * sam + k[None, :] * sak
    b_pointers = B + k[:, None] * sbk + n[None, :] * sbn
    total = tl.zeros((BM, BN), tl.float32)
    for done in range(0, K, BK):
        a = tl.load(a_pointers, mask=(m[:, None] < M) & (k[None, :] < K - done), other=0.0)
        b = tl.load(b_pointers, mask=(k[:, None] < K - done) & (n[None, :] < N), other=0.0)
        total = tl.dot(a, b, total)
        a_pointers += BK * sak
        b_pointers += BK * sbk
    tl.store(C + m[:, None] * N + n[None, :], total, mask=(m[:, None] < M) & (n[None, :] < N))


def sample(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.int8:
        return torch.randint(-128, 128, shape, dtype=dtype, generator=generator)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def strides(a: torch.Tensor, b: torch.Tensor) -> tuple[int, ...]:
    return (*a.stride(), *b.stride())


def bound(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, unit: float) -> torch.Tensor:
    """Worst error of a sum of products in any order: gamma_n * (|a| @ |b| + |c|), Higham 2002, section 3.1."""
    terms = a.shape[-1] + 1
    return terms * unit / (1 - terms * unit) * (a.double().abs() @ b.double().abs() + c.double().abs())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("m,n,k", [(16, 16, 16), (32, 64, 16), (128, 16, 64), (1, 32, 16), (64, 4, 32), (2, 1, 8)])
def test_operand_types(dtype: torch.dtype, m: int, n: int, k: int) -> None:
    a, b = sample((m, k), dtype), sample((k, n), dtype, 1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    c = sample((m, n), wide, 2)
    expected = a.double() @ b.double() + c.double()
    limit = bound(a, b, c, 2.0**-53 if wide == torch.float64 else 2.0**-24)
    product[(1,)](a, b, c, *strides(a, b), m, n, k, tl.float64 if wide == torch.float64 else tl.float32, "ieee")
    assert ((c.double() - expected).abs() <= limit).all()


@pytest.mark.parametrize("k", [16, 1024, 2048])
def test_int8_is_exact(k: int) -> None:
    a, b = sample((16, k), torch.int8), sample((k, 16), torch.int8, 1)
    a[0], b[:, 0] = -128, -128  # the largest sums there are
    c = torch.full((16, 16), 7, dtype=torch.int32)
    expected = a.long() @ b.long() + 7
    product[(1,)](a, b, c, *strides(a, b), 16, 16, k, tl.int32, "ieee")
    assert (c.long() == expected).all()


def test_int8_accumulator_wraps() -> None:
    a, b = torch.full((16, 16), 127, dtype=torch.int8), torch.full((16, 16), 127, dtype=torch.int8)
    c = torch.full((16, 16), 2**31 - 1, dtype=torch.int32)
    product[(1,)](a, b, c, *strides(a, b), 16, 16, 16, tl.int32, "ieee")
    assert (c == 2**31 - 1 + 16 * 127 * 127 - 2**32).all()


@pytest.mark.parametrize("dtype", [torch.float16], ids=str)
def test_half_accumulator_is_rounded_once(dtype: torch.dtype) -> None:
    a, b = sample((32, 32), dtype), sample((32, 32), dtype, 1)
    c = sample((32, 32), dtype, 2)
    exact = a.double() @ b.double() + c.double()
    limit = bound(a, b, c, 2.0**-24) + 2.0**-11 * exact.abs() + 2.0**-25
    product[(1,)](a, b, c, *strides(a, b), 32, 32, 32, tl.float16, "ieee")
    assert ((c.double() - exact).abs() <= limit).all()


@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("b_turned", [False, True])
@pytest.mark.parametrize("size", [16, 64])
def test_layouts_give_the_same_bits(a_turned: bool, b_turned: bool, size: int) -> None:
    a, b = sample((size, size), torch.float32), sample((size, size), torch.float32, 1)
    results = []
    for x, y in ((a, b), (a.t().contiguous().t() if a_turned else a, b.t().contiguous().t() if b_turned else b)):
        c = torch.zeros(size, size)
        product[(1,)](x, y, c, *strides(x, y), size, size, size, tl.float32, "ieee")
        results.append(c)
    assert torch.equal(*results)


def truncated(x: torch.Tensor) -> torch.Tensor:
    """An f32 with its mantissa cut to the 10 bits of tf32."""
    return (x.view(torch.int32) & ~0x1FFF).view(torch.float32)


def test_tf32_truncates() -> None:
    a, b = sample((32, 32), torch.float32), sample((32, 32), torch.float32, 1)
    c = torch.zeros(32, 32)
    product[(1,)](a, b, c, *strides(a, b), 32, 32, 32, tl.float32, "tf32")
    x, y = truncated(a), truncated(b)
    assert ((c.double() - x.double() @ y.double()).abs() <= bound(x, y, c * 0, 2.0**-24)).all()
    assert not torch.allclose(c.double(), a.double() @ b.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision,bits", [("tf32", 10), ("bf16x3", 15), ("tf32x3", 20), ("bf16x6", 21)])
def test_precisions_are_as_good_as_they_promise(precision: str, bits: int) -> None:
    """``bits``: the mantissa that the split operands keep together."""
    a, b = sample((64, 64), torch.float32), sample((64, 64), torch.float32, 1)
    c = torch.zeros(64, 64)
    product[(1,)](a, b, c, *strides(a, b), 64, 64, 64, tl.float32, precision)
    magnitude = a.double().abs() @ b.double().abs()
    limit = 4 * 2.0**-bits * magnitude + bound(a, b, c * 0, 2.0**-24)
    assert ((c.double() - a.double() @ b.double()).abs() <= limit).all()


@pytest.mark.parametrize("precision", ["ieee", "tf32", "tf32x3", "bf16x3", "bf16x6"])
def test_non_finite_values(precision: str) -> None:
    a, b = torch.ones(16, 16), torch.ones(16, 16)
    a[0, 3], a[1, 3], a[2, 3] = float("inf"), float("-inf"), float("nan")
    c = torch.zeros(16, 16)
    product[(1,)](a, b, c, *strides(a, b), 16, 16, 16, tl.float32, precision)
    assert (c[0] == float("inf")).all() and (c[1] == float("-inf")).all() and c[2].isnan().all()
    assert (c[3:] == 16).all()


@pytest.mark.parametrize("m,n,k", [(64, 64, 64), (97, 53, 70), (1, 130, 33), (200, 3, 1), (31, 31, 257)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tiled_product_with_tails(m: int, n: int, k: int, turned: bool, dtype: torch.dtype) -> None:
    a, b = sample((m, k), dtype), sample((n, k), dtype, 1).t() if turned else sample((k, n), dtype, 1)
    c = torch.full((m, n), float("nan"))
    matmul[(triton.cdiv(m, 32), triton.cdiv(n, 64))](a, b, c, m, n, k, *strides(a, b), 32, 64, 32)
    assert ((c.double() - a.double() @ b.double()).abs() <= bound(a, b, c * 0, 2.0**-24)).all()


def test_block_sizes_along_m_and_n_change_no_bit() -> None:
    a, b = sample((128, 96), torch.float32), sample((96, 128), torch.float32, 1)
    results = []
    for bm, bn in ((16, 16), (32, 128), (128, 64)):
        c = torch.empty(128, 128)
        matmul[(128 // bm, 128 // bn)](a, b, c, 128, 128, 96, *strides(a, b), bm, bn, 32)
        results.append(c)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@triton.jit
def batched(A, B, C, S: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    s, m, n, k = tl.arange(0, S), tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a = tl.load(A + s[:, None, None] * (M * K) + m[None, :, None] * K + k[None, None, :])
    b = tl.load(B + s[:, None, None] * (K * N) + k[None, :, None] * N + n[None, None, :])
    tl.store(C + s[:, None, None] * (M * N) + m[None, :, None] * N + n[None, None, :], tl.dot(a, b))


@pytest.mark.parametrize("s,m,n,k", [(1, 16, 16, 16), (4, 16, 32, 16), (8, 32, 16, 64)])
def test_batched(s: int, m: int, n: int, k: int) -> None:
    a, b = sample((s, m, k), torch.float32), sample((s, k, n), torch.float32, 1)
    c = torch.empty(s, m, n)
    batched[(1,)](a, b, c, s, m, n, k)
    assert ((c.double() - a.double() @ b.double()).abs() <= bound(a, b, c * 0, 2.0**-24)).all()


@triton.jit
def chained(X, W, V, OUT, N: tl.constexpr, STEPS):
    """Sums that are used in more ways than one, and a product of a product."""
    i, j = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    x, w, v = tl.load(X + i * N + j), tl.load(W + i * N + j), tl.load(V + i * N + j)
    total = tl.zeros((N, N), tl.float32)
    scale = tl.full((N, 1), 1.0, tl.float32)
    for step in range(STEPS):
        scores = tl.dot(x, tl.trans(w)) + step
        scale = tl.minimum(scale, 1.0 / (1.0 + tl.max(tl.abs(scores), axis=1, keep_dims=True)))
        before = total
        total = tl.dot(scores * scale, v, total * scale)
        total = total + before * 0.5
    tl.store(OUT + i * N + j, total)


@triton.jit
def rescaled(X, W, V, OUT, N: tl.constexpr, STEPS):
    """The loop of a flash attention: the sum is scaled, then added to in place."""
    i, j = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    x, w, v = tl.load(X + i * N + j), tl.load(W + i * N + j), tl.load(V + i * N + j)
    total = tl.zeros((N, N), tl.float32)
    for step in range(STEPS):
        scores = tl.dot(x, tl.trans(w)) + step
        scale = 1.0 / (1.0 + tl.max(tl.abs(scores), axis=1))
        total = tl.dot(scores * scale[:, None], v, total * scale[:, None])
    tl.store(OUT + i * N + j, total)


@pytest.mark.parametrize("kernel", [chained, rescaled], ids=["chained", "rescaled"])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_sums_used_twice_and_rescaled(kernel: triton.JITFunction, steps: int) -> None:
    n = 32
    x, w, v = (sample((n, n), torch.float32, seed) for seed in range(3))
    out = torch.empty(n, n)
    kernel[(1,)](x, w, v, out, n, steps)
    total = torch.zeros(n, n, dtype=torch.float64)
    scale = torch.ones(n, 1, dtype=torch.float64)
    for step in range(steps):
        scores = x.double() @ w.double().t() + step
        row = 1 / (1 + scores.abs().amax(1, keepdim=True))
        scale = torch.minimum(scale, row) if kernel is chained else row
        before = total
        total = (scores * scale) @ v.double() + total * scale
        total = total + before * 0.5 if kernel is chained else total
    torch.testing.assert_close(out.double(), total, rtol=1e-4, atol=1e-5)


E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)


def unpack_e2m1(codes: torch.Tensor) -> torch.Tensor:
    """(.., n) bytes to (.., 2 n) values, the low half of a byte first (OCP MX 1.0, section 5.3.3)."""
    halves = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2).long()
    return E2M1[halves & 7] * torch.where(halves >= 8, -1.0, 1.0).double()


@triton.jit
def scaled(
    A, SA, B, SB, C, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, LHS: tl.constexpr, RHS: tl.constexpr,
    HAS_B_SCALE: tl.constexpr,
):  # fmt: skip
    m, n, g = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K // 32)
    PA: tl.constexpr = K // 2 if LHS == "e2m1" else K
    PB: tl.constexpr = K // 2 if RHS == "e2m1" else K
    a = tl.load(A + m[:, None] * PA + tl.arange(0, PA)[None, :])
    b = tl.load(B + tl.arange(0, PB)[:, None] * N + n[None, :])
    sa = tl.load(SA + m[:, None] * (K // 32) + g[None, :])
    if HAS_B_SCALE:
        sb = tl.load(SB + n[:, None] * (K // 32) + g[None, :])
        c = tl.dot_scaled(a, sa, LHS, b, sb, RHS)
    else:
        c = tl.dot_scaled(a, sa, LHS, b, None, RHS)
    tl.store(C + m[:, None] * N + n[None, :], c)


FORMATS = ["e2m1", "e4m3", "e5m2", "bf16", "fp16"]
STORED = {
    "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "bf16": torch.bfloat16, "fp16": torch.float16,
}  # fmt: skip


def operand(format_: str, rows: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, length) values: as stored, two to a byte where they are e2m1, and in f64."""
    if format_ == "e2m1":
        codes = torch.randint(0, 256, (rows, length // 2), generator=torch.Generator().manual_seed(seed)).byte()
        return codes, unpack_e2m1(codes)
    values = sample((rows, length), STORED[format_], seed)
    return values, values.double()


@pytest.mark.parametrize("lhs", FORMATS)
@pytest.mark.parametrize("rhs", FORMATS)
@pytest.mark.parametrize("both", [False, True])
def test_scaled(lhs: str, rhs: str, both: bool) -> None:
    if "e2m1" not in (lhs, rhs) and lhs in ("bf16", "fp16") and rhs in ("bf16", "fp16") and lhs != rhs:
        pytest.skip("Triton's frontend wants one 16-bit format")
    m, n, k = 32, 16, 64
    a, a_values = operand(lhs, m, k, 0)
    b, b_values = operand(rhs, n, k, 1)
    generator = torch.Generator().manual_seed(2)
    sa = torch.randint(117, 137, (m, k // 32), generator=generator).byte()
    sb = torch.randint(117, 137, (n, k // 32), generator=generator).byte()
    c = torch.empty(m, n)
    scaled[(1,)](a, sa, b.t().contiguous(), sb, c, m, n, k, lhs, rhs, both)
    a_values = a_values * torch.exp2(sa.double() - 127).repeat_interleave(32, 1)
    b_values = b_values * (torch.exp2(sb.double() - 127).repeat_interleave(32, 1) if both else 1)
    limit = bound(a_values, b_values.t(), c * 0, 2.0**-24)
    assert ((c.double() - a_values @ b_values.t()).abs() <= limit).all()


def test_scale_255_is_nan_and_scale_0_is_tiny() -> None:
    a, b = torch.ones(16, 32, dtype=torch.float8_e4m3fn), torch.ones(32, 16, dtype=torch.float8_e4m3fn)
    sa, sb = torch.full((16, 1), 127).byte(), torch.full((16, 1), 127).byte()
    sa[0], sa[1] = 255, 0
    c = torch.empty(16, 16)
    scaled[(1,)](a, sa, b, sb, c, 16, 16, 32, "e4m3", "e4m3", True)
    assert c[0].isnan().all()
    assert (c[1] == 2.0**-122).all()  # 32 * 2 ** -127
    assert (c[2:] == 32).all()
