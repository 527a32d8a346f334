"""Attention by products of pairs of bf16: as right as aten's for all numbers, denormals included; exact where asked."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torchport_cpu.host import host_info

from torchport.ops.attention import paired
from torchport.ops.attention import sdpa as operators
from torchport.ops.attention.paired import attended_by_pairs, pair_blocks

pytestmark = pytest.mark.skipif(not (host_info().bf16_pairs and host_info().is_zen), reason="no pairs, or slow ones")

sdpa = torch.nn.functional.scaled_dot_product_attention
OURS = operators.torch.ops.torchport.sdpa.default
Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(
    batch: int, heads: int, owners: int, length: int, keys: int, size: int, seed: int = 0
) -> Three:  # [batch, heads, tokens, size], as models have them: tokens before heads in memory
    draw = torch.Generator().manual_seed(seed)
    shapes = (batch, length, heads, size), (batch, keys, owners, size), (batch, keys, owners, size)
    q, k, v = (torch.randn(shape, generator=draw).bfloat16().transpose(1, 2) for shape in shapes)
    return q, k, v


def exactly(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64, and the logarithms of sums; rows that see nothing are 0."""
    times = q.shape[1] // k.shape[1]
    k, v = (one.double().repeat_interleave(times, 1) for one in (k, v))
    scores = q.double() @ k.mT * scale
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.double()
    return torch.softmax(scores, -1).nan_to_num(0.0) @ v, torch.logsumexp(scores, -1)


def check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None, causal: bool = False) -> None:
    """As exact as aten's, and the logarithms of sums, too; by pairs."""
    scale = q.shape[-1] ** -0.5
    found = attended_by_pairs(q, k, v, mask, scale, causal)
    assert found is not None
    wanted, sums = exactly(q, k, v, mask, causal, scale)
    aten = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if mask is not None:
        mask = torch.where(mask, 0.0, -math.inf).bfloat16() if mask.dtype == torch.bool else mask.bfloat16()
    theirs, _ = aten(q, *(one.contiguous() for one in (k, v)), 0.0, causal, attn_mask=mask)
    errors = [(one.double() - wanted).square().mean().sqrt() for one in (found[0], theirs)]
    assert errors[0] <= 1.02 * errors[1] + 1e-300
    assert found[0].stride() == OURS(q, k, v)[0].stride()
    torch.testing.assert_close(found[1].double(), sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 2, 2, 64, 64, 64), (2, 3, 3, 77, 77, 32), (1, 2, 2, 257, 257, 64), (1, 4, 2, 16, 333, 48),
        (1, 4, 1, 130, 19, 80), (1, 1, 1, 1, 1, 32), (1, 2, 2, 3, 200, 96), (8, 3, 3, 20, 20, 24), (4, 4, 2, 8, 12, 7),
        (2, 8, 8, 4, 2, 33), (1, 4, 1, 100, 90, 40), (3, 2, 2, 50, 17, 4),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("causal", [False, True])
def test_sizes_and_shared_heads(shape: Any, causal: bool) -> None:
    check(*inputs(*shape), causal=causal)


def test_which_calls_are_faster() -> None:
    """Many heads or many scores: else a launch takes longer than aten's call."""

    def wins(*shape: int, backward: bool = False) -> bool:
        return operators.wins_by_pairs(*inputs(*shape), backward=backward)

    assert wins(64, 8, 8, 20, 20, 24) and wins(4, 8, 8, 8, 8, 32) and wins(1, 8, 2, 32, 32, 64)
    assert wins(2, 8, 8, 4, 2, 7) and wins(1, 2, 2, 64, 64, 256)
    assert not wins(1, 2, 2, 64, 64, 257) and not wins(8, 8, 8, 64, 64, 3)
    assert not wins(1, 4, 4, 16, 16, 32) and not wins(1, 8, 8, 4, 512, 64) and not wins(8, 8, 8, 3, 64, 64)
    assert wins(1, 2, 2, 16, 16, 48, backward=True) and not wins(64, 8, 8, 20, 20, 24, backward=True)
    assert not wins(64, 8, 8, 15, 64, 64, backward=True)


@pytest.mark.parametrize("kind", [torch.bool, torch.bfloat16, torch.float32])
def test_masks(kind: torch.dtype) -> None:
    q, k, v = inputs(2, 4, 2, 70, 90, 64)
    seen = torch.rand(2, 1, 70, 90, generator=torch.Generator().manual_seed(1)) > 0.5
    seen[0, 0, 5] = False  # a row that sees nothing
    seen[1, 0, :, 40:] = False
    mask = seen if kind == torch.bool else torch.where(seen, 0.25, -math.inf).to(kind)
    check(q, k, v, mask)
    check(q, k, v, mask.expand(2, 4, 70, 90)[:, :, :1].expand(2, 4, 70, 90))


def test_layouts_that_are_not_a_models() -> None:
    q, k, v = inputs(2, 2, 2, 40, 40, 64)
    check(q.contiguous().transpose(1, 2).contiguous().transpose(1, 2), k.mT.contiguous().mT, v.contiguous())
    check(torch.cat((q, q), -1)[..., 64:], torch.cat((k, k), -1)[..., :64], v[:, :1].expand(2, 2, 40, 64))


def same(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> None:
    """The operator by pairs gives the bits of the exact one."""
    one, two = (OURS(q, k, v, **options, pairs=pairs) for pairs in (True, False))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.nan_to_num(7.0, 8.0, 9.0), b.nan_to_num(7.0, 8.0, 9.0))


@pytest.mark.parametrize("number", [1e-39, -1e-40, 2.0**-133, 2.0**40, -3e38, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_numbers_that_the_instruction_would_lose(number: float, place: int) -> None:
    """One of them in any tensor, in the last row, and all is computed exactly."""
    three = inputs(1, 2, 2, 65, 65, 64)
    three[place][0, 1, 64, 63] = number
    assert attended_by_pairs(*three, None, 0.125, False) is None
    assert attended_by_pairs(*three, None, 0.125, True) is None
    same(*three)


@pytest.mark.parametrize("scale", [2.0**-126, 2.0**-120, 2.0**-60, 2.0**38, 0.0])
def test_small_and_large_values(scale: float) -> None:
    """Results near and among the denormals are those of exact products: nothing is flushed. Zeros are of both signs."""
    q, k, _ = inputs(1, 2, 2, 64, 80, 32)
    v = (1.0 + torch.rand(1, 2, 80, 32, generator=torch.Generator().manual_seed(2))).bfloat16() * scale
    v[:, :, ::3] *= -1
    v[:, :, ::5] = -0.0
    check(q, k, v)
    found, exact = attended_by_pairs(q, k, v, None, 0.2, False), OURS(q, k, v, scale=0.2)
    assert found is not None
    torch.testing.assert_close(found[0].double(), exact[0].double(), rtol=2.0**-6, atol=max(2.0**-8 * scale, 2.0**-133))
    if scale == 2.0**-126:
        assert (found[0].float().abs()[exact[0] != 0] > 0).float().mean() > 0.95
        assert ((exact[0] != 0) & (exact[0].abs() < 2.0**-126)).any()


def test_weights_that_are_nearly_nothing_still_count() -> None:
    """Beside a value of 0 with a weight of 1, one of 2^-80 with a weight of 2^-50 is a result of 2^-130."""
    q, k = torch.zeros(1, 1, 16, 32).bfloat16(), torch.zeros(1, 1, 16, 32).bfloat16()
    q[..., 0], k[..., 0] = 1.0, -50.0 * math.log(2.0)
    k[..., 0, 0] = 0.0
    v = torch.full((1, 1, 16, 32), 2.0**-80).bfloat16()
    v[..., 0, :] = 0.0
    found, exact = attended_by_pairs(q, k, v, None, 1.0, False), OURS(q, k, v, scale=1.0)
    assert found is not None and (found[0] != 0).all() and torch.equal(found[0], exact[0])


@pytest.mark.parametrize("scale", [2.0**61, math.inf, math.nan])
def test_scales_beyond_the_proof_are_exact(scale: float) -> None:
    q, k, v = inputs(1, 1, 1, 16, 16, 32)
    assert attended_by_pairs(q, k, v, None, scale, False) is None


@pytest.mark.parametrize("scale", [0.0, -0.125, 2.0**60])
def test_scales(scale: float) -> None:
    q, k, v = inputs(1, 1, 1, 32, 32, 32)
    found, exact = attended_by_pairs(q, k, v, None, scale, False), OURS(q, k, v, scale=scale)
    assert found is not None
    torch.testing.assert_close(found[0].float(), exact[0].float(), rtol=2.0**-6, atol=2.0**-8)


def test_what_it_is_not_for() -> None:
    q, k, v = inputs(1, 1, 1, 16, 16, 32)
    for three in (
        (q.float(), k.float(), v.float()),
        (q.half(), k.half(), v.half()),
        (q, k, v[..., :16]),
        (q[:, :, :0], k, v),
    ):
        assert attended_by_pairs(*three, None, 0.2, False) is None  # fmt: skip
    assert OURS(q[:, :, :0], k, v, pairs=True)[0].shape == (1, 1, 0, 32)


def test_blocks_hold_all_and_little_else() -> None:
    for length in range(1, 300, 7):
        for causal in (False, True):
            blocks = pair_blocks(length, length, causal)
            assert blocks.keys % blocks.rest == 0 or not causal
            assert -(-length // blocks.rows) * blocks.rows <= max(16, 1.8 * length)
    assert pair_blocks(257, 257, False).rest == 16 and pair_blocks(256, 256, False).rows == 128


@pytest.mark.parametrize("option,pairs", [("auto", True), ("pairs", True), ("exact", False)])
def test_graphs(option: str, pairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option says whether pairs may be used; results and gradients are aten's but for rounding."""
    calls: list[Any] = []
    real = paired.launch

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(paired, "launch", counted)
    q, k, v = (one.requires_grad_() for one in inputs(2, 2, 2, 50, 50, 64))
    torch._dynamo.reset()
    compiled = torch.compile(lambda q, k, v: sdpa(q, k, v) + 1, backend="torchport", options={"bf16_products": option})
    found, code = run_and_get_code(compiled, q, k, v)
    assert ("pairs=True" in "".join(code)) == bool(calls) == pairs
    wanted = sdpa(q.double(), k.double(), v.double()) + 1
    torch.testing.assert_close(found.double(), wanted, rtol=2.0**-7, atol=2.0**-7)
    grads = [torch.autograd.grad(one, (q, k, v), torch.ones_like(one)) for one in (found, wanted)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=0.05, atol=0.05)


def test_emulated_chips_and_levels_do_without() -> None:
    q, k, v = inputs(1, 2, 2, 40, 40, 64)
    for options in ({"target": "cpu:x86_64:avx512"}, {"emulate": "h100"}):
        torch._dynamo.reset()
        compiled = torch.compile(lambda q, k, v: sdpa(q, k, v) + 1, backend="torchport", options=options)
        _, code = run_and_get_code(compiled, q, k, v)
        assert "pairs=True" not in "".join(code)
