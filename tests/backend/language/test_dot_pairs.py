"""Products of bf16 by pairs: bit by bit as the instruction is documented, and exact without the option."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torchport_cpu.host import host_info
from torchport_cpu.levels import level, levels
from torchport_cpu.lower import lower_ttir

from torchport.arithmetic.profile import Profile
from torchport.conformance.pairs import added_in_pairs as emulated
from torchport.triton.compat import ASTSource
from torchport.triton.ttir import ttir_from

PAIRS = pytest.mark.skipif(not host_info().bf16_pairs, reason="no instruction for pairs of bf16")
STRIDES = ("sab", "sam", "sak", "sbb", "sbk", "sbn")
pytestmark = pytest.mark.cpu_only("an option of the CPU target")


@triton.jit
def product(
    A, B, C, sab, sam, sak, sbb, sbk, sbn, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BK: tl.constexpr
):  # fmt: skip
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, BK)
    batch = tl.program_id(0)
    total = tl.load(C + batch * M * N + m[:, None] * N + n[None, :])
    for start in range(0, K, BK):
        a = tl.load(A + batch * sab + m[:, None] * sam + (start + k)[None, :] * sak)
        b = tl.load(B + batch * sbb + (start + k)[:, None] * sbk + n[None, :] * sbn)
        total = tl.dot(a, b, total)
    tl.store(C + batch * M * N + m[:, None] * N + n[None, :], total)


def sample(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def run(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, block: int, *, pairs: bool = True, arithmetic: str = ""
) -> torch.Tensor:
    """The kernel's ``c + a @ b``; matrices, or batches of them."""
    c = c.clone()
    x, y = (one if one.dim() == 3 else one[None] for one in (a, b))
    m, n, k = x.shape[1], y.shape[2], x.shape[2]
    options = {"arithmetic": arithmetic} if arithmetic else {"bf16_pairs": pairs}
    product[(x.shape[0],)](x, y, c, *x.stride(), *y.stride(), m, n, k, block, **options)
    return c


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """The same bits; any NaN for a NaN."""
    nan = expected.isnan()
    return bool((found.isnan() == nan).all()) and torch.equal(
        found[~nan].view(torch.int32), expected[~nan].view(torch.int32)
    )


def turned(x: torch.Tensor) -> torch.Tensor:
    """The same values, with columns that are contiguous."""
    return x.mT.contiguous().mT


@PAIRS
@pytest.mark.parametrize(
    "m,n,k,a_turned,b_turned",
    [
        (32, 64, 128, False, False), (32, 64, 128, False, True), (32, 64, 128, True, False), (8, 16, 64, True, True),
        (4, 4, 2, False, False), (1, 8, 32, False, True), (16, 128, 256, True, False), (16, 8, 4, False, True),
    ],
)  # fmt: skip
def test_bits_are_those_of_the_manual(m: int, n: int, k: int, a_turned: bool, b_turned: bool) -> None:
    a, b, c = sample((m, k), 0), sample((k, n), 1), sample((m, n), 2).float()
    block = min(k, 128)
    found = run(turned(a) if a_turned else a, turned(b) if b_turned else b, c, block)
    assert same(found, emulated(a, b, c))


SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.5, 1e-39, -1e-39, 2e-38, 3e38, -3e38, torch.inf, -torch.inf, torch.nan])
"""Zeros, denormals, the smallest and the largest numbers, and what is none."""


@PAIRS
@pytest.mark.parametrize("scale", [1.0, 2.0**-66], ids=["special", "tiny"])
def test_special_values_and_batches(scale: float) -> None:
    """A batch of every special value by every other one, and of products around the smallest number."""
    draw = torch.Generator().manual_seed(0)
    shape = (3, 16, 32)
    if scale == 1.0:
        a, b = (SPECIAL[torch.randint(12, one, generator=draw)] for one in (shape, (3, 32, 16)))
        a[:, :, 2:], b[:, 2:, :] = a[:, :, 2:].clamp(-2, 2).nan_to_num(), b[:, 2:, :].clamp(-2, 2).nan_to_num()
    else:
        a, b = (torch.randn(one, generator=draw) * scale for one in (shape, (3, 32, 16)))
    a, b = a.bfloat16(), b.bfloat16()
    c = torch.zeros(3, 16, 16)
    assert same(run(a, b, c, 32), emulated(a, b, c))


@PAIRS
@pytest.mark.parametrize("scale", [1.0, 2.0**-64], ids=["numbers", "tiny"])
def test_the_profile_and_the_hardware_agree_in_every_bit(scale: float) -> None:
    arithmetic = Profile.load("avx512bf16").arithmetic()
    a, b, c = sample((16, 64), 3) * scale, sample((64, 32), 4) * scale, sample((16, 32), 5).float() * scale * scale
    a[:4], b[:, :4], c[8:] = -0.0, 2.0**-129, -(2.0**-140)
    ours = run(a, b, c, 32)
    assert same(ours, run(a, b, c, 32, arithmetic=arithmetic))
    assert same(ours, emulated(a, b, c))
    assert not same(ours, run(a, b, c, 32, pairs=False))


@PAIRS
def test_denormals_are_zeros_with_the_option_alone() -> None:
    a, b = torch.full((16, 64), 1e-39).bfloat16(), torch.ones(64, 16).bfloat16()
    c = torch.zeros(16, 16)
    assert (run(a, b, c, 64) == 0).all()
    assert torch.equal(run(a, b, c, 64, pairs=False), (a.double() @ b.double()).float())


def test_one_term_is_exact() -> None:
    a, b = sample((16, 1), 0), sample((1, 16), 1)
    assert torch.equal(run(a, b, torch.zeros(16, 16), 1), a.float() @ b.float())


@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_levels_do_without(name: str) -> None:
    if name not in levels():
        pytest.skip("levels of x86 alone have it")
    types = {"A": "*bf16", "B": "*bf16", "C": "*fp32", **dict.fromkeys(STRIDES, "i32")}
    text = ttir_from(ASTSource(product, types, {"M": 16, "N": 16, "K": 64, "BK": 64}))
    assert "tensor<16x64xbf16> * tensor<64x16xbf16>" in text
    assert "dpbf16" not in lower_ttir(text, level(name), bf16_pairs=True).llvm_ir
