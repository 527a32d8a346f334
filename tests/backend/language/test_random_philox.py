"""Random numbers: Philox 4x32-10 and what Triton makes of it, computed again in numpy.

Other chips give the same values.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from kernel_text import evaluate

SEEDS = [0, 42, 0xFFFFFFFF, 0x0000000FCAFEB0BA, -1]
COUNT = 256
CONSTANTS = {
    32: (0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85),
    64: (0xD2E7470EE14C6C93, 0xCA5A826395121157, 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B),
}


def philox(counter: tuple[int, int, int, int], key: tuple[int, int], bits: int = 32, rounds: int = 10) -> list[int]:
    """One block of four numbers, in Python's integers."""
    a, b, raise_0, raise_1 = CONSTANTS[bits]
    mask = (1 << bits) - 1
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        left, right = a * c0, b * c2
        c0, c1, c2, c3 = (right >> bits) ^ c1 ^ k0, right & mask, (left >> bits) ^ c3 ^ k1, left & mask
        k0, k1 = (k0 + raise_0) & mask, (k1 + raise_1) & mask
    return [c0, c1, c2, c3]


def blocks(seed: int, offsets: np.ndarray, rounds: int = 10) -> np.ndarray:
    """Triton's ``randint4x``: the counter is the offset in 64 bits, the key the seed in 64 bits; int32 values."""
    key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
    rows = [philox((int(n) & 0xFFFFFFFF, int(n) >> 32 & 0xFFFFFFFF, 0, 0), key, rounds=rounds) for n in offsets]
    return np.array(rows, np.uint32).T.copy()


def uniform(x: np.ndarray) -> np.ndarray:
    """To [0, 1) through int32, as Triton does: the product is one of float32."""
    signed = x.view(np.int32)
    return np.where(signed < 0, -signed - 1, signed).astype(np.float32) * np.float32(4.6566127342e-10)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_integers_and_uniform_numbers(seed: int, wide: bool) -> None:
    """Bit for bit; offsets of 32 and of 64 bits."""
    n = torch.arange(COUNT, dtype=torch.int64) * (0x300000005 if wide else 77)
    n = n if wide else n.int()
    names = [f"{kind}{i}" for kind in "iu" for i in range(4)]
    outputs = {name: ((COUNT,), torch.int32 if name[0] == "i" else torch.float32) for name in names}
    got = evaluate(
        f"""
        i0, i1, i2, i3 = tl.randint4x({seed}, n)
        u0, u1, u2, u3 = tl.rand4x({seed}, n)
        one = tl.randint({seed}, n)
        two = tl.rand({seed}, n)
        """,
        {"n": n}, outputs | {"one": ((COUNT,), torch.int32), "two": ((COUNT,), torch.float32)},
    )  # fmt: skip
    offsets = n.numpy() if wide else n.numpy().view(np.uint32)
    wanted = blocks(seed, offsets)
    for one, expected in zip(got[:4], wanted, strict=True):
        np.testing.assert_array_equal(one.numpy(), expected.view(np.int32))
    for one, expected in zip(got[4:8], wanted, strict=True):
        np.testing.assert_array_equal(one.numpy().view(np.int32), uniform(expected).view(np.int32))
    assert torch.equal(got[8], got[0]) and torch.equal(got[9], got[4])


def test_normal_numbers() -> None:
    """Box and Muller's transform in float64 of the same uniform numbers; each function here is within an ULP."""
    n = torch.arange(COUNT, dtype=torch.int32)
    got = evaluate("a, b, c, d = tl.randn4x(9, n)\ne = tl.randn(9, n)", {"n": n},
                   {name: ((COUNT,), torch.float32) for name in "abcde"})  # fmt: skip
    u = [uniform(x).astype(np.float64) for x in blocks(9, n.numpy())]
    wanted = []
    for first, second in (u[:2], u[2:]):
        # the angle is one of float32 (rounded by up to half an ULP), the rest is exact here
        angle = (np.float32(6.283185307179586) * second.astype(np.float32)).astype(np.float64)
        radius = np.sqrt(-2 * np.log(np.maximum(1e-7, first)))
        wanted += [radius * np.cos(angle), radius * np.sin(angle)]
    for one, expected in zip(got, [*wanted, wanted[0]], strict=True):
        np.testing.assert_allclose(one.numpy(), expected, rtol=6e-7, atol=1e-12)


def test_rounds_and_64_bit_philox() -> None:
    n = torch.arange(64, dtype=torch.int64) - 7
    got = evaluate(
        """
        z = n * 0
        a, b, c, d = tl.philox(42, n, n * 3, z, z + 5)
        e = tl.randint(42, n.to(tl.int32), 7)
        """,
        {"n": n}, {**{name: ((64,), torch.int64) for name in "abcd"}, "e": ((64,), torch.int32)},
    )  # fmt: skip
    mask = (1 << 64) - 1
    rows = np.array([philox((v & mask, 3 * v & mask, 0, 5), (42, 0), bits=64) for v in n.tolist()], np.uint64)
    for one, expected in zip(got, rows.T, strict=False):
        np.testing.assert_array_equal(one.numpy(), np.ascontiguousarray(expected).view(np.int64))
    np.testing.assert_array_equal(got[4].numpy().view(np.uint32), blocks(42, n.int().numpy().view(np.uint32), 7)[0])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_uniform_numbers_stay_below_one(dtype: torch.dtype) -> None:
    info = torch.iinfo(dtype)
    x = torch.tensor([info.min, info.max, 0, -1], dtype=dtype)
    (got,) = evaluate("z = tl.random.uint_to_uniform_float(x)", {"x": x}, {"z": ((4,), torch.float32)})
    assert got[0] == got[1] and 1 - 2.0**-23 <= got[0].item() < 1
    assert got[2] == got[3] == 0


@triton.jit
def seeded(z_ptr, seed, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(z_ptr + i, tl.rand(seed, i), mask=i < n)


def test_seed_as_an_argument_and_blocks_of_any_size() -> None:
    """The values depend on seed and offset alone."""
    n, seed = 1000, 0x123456789
    results = []
    for block in (32, 1024):
        results.append(torch.empty(n))
        seeded[(triton.cdiv(n, block),)](results[-1], seed, n, BLOCK=block)
    np.testing.assert_array_equal(results[0].numpy(), uniform(blocks(seed, np.arange(n))[0]))
    assert torch.equal(results[0], results[1])
