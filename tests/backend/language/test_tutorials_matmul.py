"""Matrix products as people learn them: grouped order and autotuning, groups of problems, descriptors, block scales.

Products of random values are compared with float64 products of the same (rounded) inputs, within Higham's bound for
sums in any order.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


def within_bound(got: torch.Tensor, a: torch.Tensor, b: torch.Tensor, unit: float = 0.0, slope: float = 1.0) -> bool:
    """Whether ``got`` is a @ b up to float32 sums (gamma_n, Higham 2002, 3.1) and one rounding of ``unit``.

    ``slope``: what negative elements are multiplied by in float32, which rounds twice (the slope and the product).
    """
    a, b = a.double(), b.double()
    n = a.shape[-1] + 1
    gamma = n * 2.0**-24 / (1 - n * 2.0**-24)
    exact = a @ b
    exact = torch.where(exact >= 0, exact, slope * exact)
    rounding = unit if slope == 1.0 else unit + 2 * 2.0**-24
    limit = gamma * (a.abs() @ b.abs()) + rounding * exact.abs() + (2.0**-25 if unit else 0.0)  # float16's denormals
    return bool(((got.double() - exact).abs() <= limit).all())


@triton.jit
def grouped(tile, rows, columns, GROUP: tl.constexpr):
    """Row and column of a tile when GROUP rows of tiles are walked together, column by column."""
    in_group = GROUP * columns
    first = tile // in_group * GROUP
    size = min(rows - first, GROUP)
    return first + tile % in_group % size, tile % in_group // size


@triton.jit
def leaky_relu(x):
    return tl.where(x >= 0, x, 0.01 * x)


@triton.autotune(
    configs=[
        triton.Config({"BM": 32, "BN": 64, "BK": 32, "GROUP": 8}, num_stages=4, num_warps=4),
        triton.Config({"BM": 64, "BN": 32, "BK": 16, "GROUP": 2}, num_stages=3, num_warps=8),
    ],
    key=["M", "N", "K"],
    do_bench=lambda call, quantiles: triton.testing.do_bench(call, warmup=1, rep=5, quantiles=quantiles),
)
@triton.jit
def matmul(
    A, B, C, M, N, K, am, ak, bk, bn, cm, cn,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    i, j = grouped(tl.program_id(axis=0), tl.cdiv(M, BM), tl.cdiv(N, BN), GROUP)
    tl.assume(i >= 0)
    tl.assume(am > 0)
    m = (i * BM + tl.arange(0, BM)) % M
    n = (j * BN + tl.arange(0, BN)) % N
    k = tl.arange(0, BK)
    a_place = A + (m[:, None] * am + k[None, :] * ak)
    b_place = B + (k[:, None] * bk + n[None, :] * bn)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for step in range(0, tl.cdiv(K, BK)):
        a = tl.load(a_place, mask=k[None, :] < K - step * BK, other=0.0)
        b = tl.load(b_place, mask=k[:, None] < K - step * BK, other=0.0)
        total = tl.dot(a, b, total)
        a_place += BK * ak
        b_place += BK * bk
    if ACTIVATION == "leaky_relu":
        total = leaky_relu(total)
    c = total.to(C.dtype.element_ty)
    m = i * BM + tl.arange(0, BM)
    n = j * BN + tl.arange(0, BN)
    tl.store(C + cm * m[:, None] + cn * n[None, :], c, mask=(m[:, None] < M) & (n[None, :] < N))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e5m2])
def test_matmul_with_activation(dtype: torch.dtype) -> None:
    rows, columns, depth = 100, 90, 70
    a, b = (torch.rand(s, dtype=torch.float64).sub(0.5).to(dtype) for s in ((rows, depth), (columns, depth)))
    b = b.T
    c = torch.empty(rows, columns)
    grid = lambda meta: (triton.cdiv(rows, meta["BM"]) * triton.cdiv(columns, meta["BN"]),)  # noqa: E731
    matmul[grid](a, b, c, rows, columns, depth, *a.stride(), *b.stride(), *c.stride(), ACTIVATION="")
    assert within_bound(c, a, b)
    half = torch.empty(rows, columns, dtype=torch.float16)
    matmul[grid](a, b, half, rows, columns, depth, *a.stride(), *b.stride(), *c.stride(), ACTIVATION="leaky_relu")
    # Tuned apart, so with other block sizes perhaps, whose sums round differently.
    assert within_bound(half, a, b, unit=2.0**-11, slope=0.01)


@triton.jit
def grouped_matmul(
    A_LIST, B_LIST, C_LIST, SIZES, LEADING, problems, PROGRAMS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Products of different sizes; addresses, sizes and row strides come from arrays."""
    tile = tl.program_id(0)
    problem_end = 0
    for g in range(problems):
        M, N, K = tl.load(SIZES + g * 3), tl.load(SIZES + g * 3 + 1), tl.load(SIZES + g * 3 + 2)
        columns = tl.cdiv(N, BN)
        tiles = tl.cdiv(M, BM) * columns
        while tile >= problem_end and tile < problem_end + tiles:
            lda, ldb, ldc = tl.load(LEADING + g * 3), tl.load(LEADING + g * 3 + 1), tl.load(LEADING + g * 3 + 2)
            A = tl.load(A_LIST + g).to(tl.pointer_type(tl.float16))
            B = tl.load(B_LIST + g).to(tl.pointer_type(tl.float16))
            C = tl.load(C_LIST + g).to(tl.pointer_type(tl.float16))
            inside = tile - problem_end
            m = inside // columns * BM + tl.arange(0, BM)
            n = inside % columns * BN + tl.arange(0, BN)
            k = tl.arange(0, BK)
            a_place = A + m[:, None] * lda + k[None, :]
            b_place = B + k[:, None] * ldb + n[None, :]
            total = tl.zeros((BM, BN), dtype=tl.float32)
            for _ in range(0, tl.cdiv(K, BK)):
                tl.multiple_of(a_place, [16, 16])
                tl.multiple_of(b_place, [16, 16])
                total += tl.dot(tl.load(a_place), tl.load(b_place))
                a_place += BK
                b_place += BK * ldb
            tl.store(C + m[:, None] * ldc + n[None, :], total.to(tl.float16))
            tile += PROGRAMS
        problem_end = problem_end + tiles


@pytest.mark.cpu_only("it makes pointers from integers, which are addresses of CPU memory")
def test_grouped_matmul() -> None:
    sizes = [(64, 96, 32), (128, 32, 64), (32, 64, 96), (32, 32, 32)]
    a = [torch.rand(m, k, dtype=torch.float16) for m, n, k in sizes]
    b = [torch.rand(k, n, dtype=torch.float16) for m, n, k in sizes]
    c = [torch.empty(m, n, dtype=torch.float16) for m, n, k in sizes]
    addresses = [torch.tensor([t.data_ptr() for t in tensors]) for tensors in (a, b, c)]
    leading = [v for m, n, k in sizes for v in (k, n, n)]
    grouped_matmul[(4,)](
        *addresses, torch.tensor(sizes, dtype=torch.int32), torch.tensor(leading, dtype=torch.int32), len(sizes),
        PROGRAMS=4, BM=32, BN=32, BK=16,
    )  # fmt: skip
    for x, y, z in zip(a, b, c, strict=True):
        assert within_bound(z, x, y, 2.0**-11)


@triton.jit
def persistent_matmul(
    a_desc, b_desc, c_desc, M, N, K, PROGRAMS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    """Each program walks over many tiles; B is stored transposed, C in two halves."""
    rows, columns = tl.cdiv(M, BM), tl.cdiv(N, BN)
    for tile in tl.range(tl.program_id(0), rows * columns, PROGRAMS, flatten=True):
        i, j = grouped(tile, rows, columns, GROUP)
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for step in range(tl.cdiv(K, BK)):
            a = a_desc.load([i * BM, step * BK])
            b = b_desc.load([j * BN, step * BK])
            total = tl.dot(a, b.T, total)
        if HALVES:
            left, right = tl.split(tl.permute(tl.reshape(total, (BM, 2, BN // 2)), (0, 2, 1)))
            c_desc.store([i * BM, j * BN], left.to(tl.float16))
            c_desc.store([i * BM, j * BN + BN // 2], right.to(tl.float16))
        else:
            c_desc.store([i * BM, j * BN], total.to(tl.float16))


@triton.jit
def device_descriptors(
    A, B, C, M, N, K, PROGRAMS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    a_desc = tl.make_tensor_descriptor(A, shape=[M, K], strides=[K, 1], block_shape=[BM, BK])
    b_desc = tl.make_tensor_descriptor(B, shape=[N, K], strides=[K, 1], block_shape=[BN, BK])
    width: tl.constexpr = BN // 2 if HALVES else BN
    c_desc = tl.make_tensor_descriptor(C, shape=[M, N], strides=[N, 1], block_shape=[BM, width])
    persistent_matmul(a_desc, b_desc, c_desc, M, N, K, PROGRAMS, BM, BN, BK, GROUP, HALVES)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("host", [False, True])
def test_persistent_matmul(host: bool, halves: bool) -> None:
    rows, columns, depth, block = 136, 88, 72, (32, 32, 16)
    a, b = torch.randn(rows, depth, dtype=torch.float16), torch.randn(columns, depth, dtype=torch.float16)
    c = torch.full((rows, columns), float("nan"), dtype=torch.float16)
    options = dict(zip(("BM", "BN", "BK"), block, strict=True), PROGRAMS=3, GROUP=2, HALVES=halves)
    if host:
        blocks = [[32, 16], [32, 16], [32, 16 if halves else 32]]
        described = [TensorDescriptor.from_tensor(t, shape) for t, shape in zip((a, b, c), blocks, strict=True)]
        persistent_matmul[(3,)](*described, rows, columns, depth, **options)
    else:
        triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8))
        device_descriptors[(3,)](a, b, c, rows, columns, depth, **options)
    assert within_bound(c, a, b.T, 2.0**-11)


@triton.jit
def unpacked_scales(desc, row, step, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """ROWS x COLUMNS scales of a block, stored as tiles of 128 x 4 whose rows are dealt out to 32 lines of 16 bytes."""
    packed = desc.load([0, row, step, 0, 0]).reshape(ROWS // 128, COLUMNS // 4, 32, 4, 4)
    return packed.trans(0, 3, 2, 1, 4).reshape(ROWS, COLUMNS)


@triton.jit
def scaled_matmul(
    a_desc, a_scales, b_desc, b_scales, c_desc, K, VECTOR: tl.constexpr, PACKED: tl.constexpr,
    A_KIND: tl.constexpr, B_KIND: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    i, j = tl.program_id(0), tl.program_id(1)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for step in tl.range(0, tl.cdiv(K, BK), num_stages=2):
        a = a_desc.load([i * BM, step * BK])
        b = b_desc.load([j * BN, step * (BK // PACKED)])
        scale_a = unpacked_scales(a_scales, i * (BM // 128), step * (BK // VECTOR // 4), BM, BK // VECTOR)
        scale_b = unpacked_scales(b_scales, j * (BN // 128), step * (BK // VECTOR // 4), BN, BK // VECTOR)
        total = tl.dot_scaled(a, scale_a, A_KIND, b.T, scale_b, B_KIND, total)
    c_desc.store([i * BM, j * BN], total)


E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


@pytest.mark.parametrize("kind", ["e4m3", "e2m1"])
def test_block_scaled_matmul(kind: str) -> None:
    """mxfp8 times mxfp8 or mxfp4, one power of two for each 32 values along K."""
    rows, columns, depth, block, vector = 256, 128, 512, 128, 32
    a = torch.randn(rows, depth).to(torch.float8_e4m3fn)
    if kind == "e4m3":
        b = torch.randn(columns, depth).to(torch.float8_e4m3fn)
        b_value, packed = b.double(), 1
    else:
        b = torch.randint(0, 256, (columns, depth // 2), dtype=torch.uint8)
        b_value, packed = E2M1[torch.stack([b & 15, b >> 4], dim=-1).flatten(1).int()].double(), 2

    def scales(lines: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As descriptors read them, (1, lines / 128, depth / vector / 4, 2, 256); and their values."""
        tiles = torch.randint(124, 131, (lines // 128, depth // vector // 4, 32, 4, 4), dtype=torch.uint8)
        plain = tiles.permute(0, 3, 2, 1, 4).reshape(lines, depth // vector)
        return tiles.reshape(1, lines // 128, depth // vector // 4, 2, 256), 2.0 ** (plain.double() - 127)

    a_packed, a_scale = scales(rows)
    b_packed, b_scale = scales(columns)
    c = torch.full((rows, columns), float("nan"))
    per_block = block // vector // 4
    scaled_matmul[(rows // block, columns // block)](
        TensorDescriptor.from_tensor(a, [block, block]),
        TensorDescriptor.from_tensor(a_packed, [1, 1, per_block, 2, 256]),
        TensorDescriptor.from_tensor(b, [block, block // packed]),
        TensorDescriptor.from_tensor(b_packed, [1, 1, per_block, 2, 256]),
        TensorDescriptor.from_tensor(c, [block, block]),
        depth, VECTOR=vector, PACKED=packed, A_KIND="e4m3", B_KIND=kind, BM=block, BN=block, BK=block,
    )  # fmt: skip
    left = a.double() * a_scale.repeat_interleave(vector, dim=1)
    right = b_value * b_scale.repeat_interleave(vector, dim=1)
    assert within_bound(c, left, right.T)
