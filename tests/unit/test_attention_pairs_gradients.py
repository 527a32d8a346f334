"""Gradients of attention by products of pairs of bf16: as right as exact products' for all numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torchport_cpu.host import host_info

from torchport.ops.attention import paired_gradients
from torchport.ops.attention import sdpa as operators
from torchport.ops.attention.paired_gradients import gradient_blocks, gradients_by_pairs

pytestmark = pytest.mark.skipif(not (host_info().bf16_pairs and host_info().is_zen), reason="no pairs, or slow ones")

sdpa = torch.nn.functional.scaled_dot_product_attention
FORWARD = operators.torch.ops.torchport.sdpa.default
BACKWARD = operators.torch.ops.torchport.sdpa_backward.default
Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(batch: int, heads: int, owners: int, length: int, keys: int, size: int, seed: int = 0) -> Four:
    """Gradient of the result, query, key, value: [batch, heads, tokens, size], tokens before heads in memory."""
    draw = torch.Generator().manual_seed(seed)
    of_rows, of_keys = (batch, length, heads, size), (batch, keys, owners, size)
    shapes = of_rows, of_rows, of_keys, of_keys
    g, q, k, v = (torch.randn(shape, generator=draw).bfloat16().transpose(1, 2) for shape in shapes)
    return g, q, k, v


def exactly(g: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float) -> tuple[torch.Tensor, ...]:
    """In float64; rows that see nothing have no gradients."""
    three = [one.double().requires_grad_() for one in (q, k, v)]
    times = q.shape[1] // k.shape[1]
    wide = [one.repeat_interleave(times, 1) for one in three[1:]]
    scores = three[0] @ wide[0].mT * scale
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.double()
    weights = torch.softmax(scores.masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0), -1)
    weights = weights.masked_fill(scores == -math.inf, 0.0)
    return torch.autograd.grad(weights @ wide[1], three, g.double())


def check(g: Any, q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False, scale: float | None = None) -> None:
    """As exact as the exact kernel's, laid out like them, and the same bits in a second run."""
    number = q.shape[-1] ** -0.5 if scale is None else scale
    out, sums = FORWARD(q, k, v, 0.0, causal, attn_mask=mask, scale=number)
    mask = operators.of_four(mask)
    found, again = (gradients_by_pairs(g, q, k, v, out, sums, mask, number, causal) for _ in range(2))
    assert found is not None and again is not None
    others = BACKWARD(g, q, k, v, out, sums, 0.0, causal, attn_mask=mask, scale=number)
    for ours, same, other, wanted in zip(found, again, others, exactly(g, q, k, v, mask, causal, number), strict=True):
        errors = [(one.double() - wanted).square().mean().sqrt() for one in (ours, other)]
        assert errors[0] <= 1.05 * errors[1] + 1e-300
        assert ours.stride() == other.stride() and ours.dtype == other.dtype and torch.equal(ours, same)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 2, 2, 64, 64, 64), (2, 3, 3, 77, 77, 32), (1, 2, 2, 257, 257, 64), (1, 4, 2, 16, 333, 48),
        (1, 4, 1, 130, 19, 80), (1, 1, 1, 1, 1, 32), (1, 2, 2, 150, 128, 96),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("causal", [False, True])
def test_sizes_and_shared_heads(shape: Any, causal: bool) -> None:
    check(*inputs(*shape), causal=causal)


@pytest.mark.parametrize("kind", [torch.bool, torch.bfloat16, torch.float32])
def test_masks(kind: torch.dtype) -> None:
    g, q, k, v = inputs(2, 4, 2, 70, 90, 64)
    seen = torch.rand(2, 1, 70, 90, generator=torch.Generator().manual_seed(1)) > 0.5
    seen[0, 0, 5] = False  # a row that sees nothing
    seen[1, 0, :, 40:] = False
    mask = seen if kind == torch.bool else torch.where(seen, 0.25, -math.inf).to(kind)
    check(g, q, k, v, mask)
    check(g, q, k, v, mask.expand(2, 4, 70, 90)[:, :, :1].expand(2, 4, 70, 90))


def test_rows_to_which_a_mask_adds_large_numbers_throughout() -> None:
    """The logarithm of such a row's sum has no bits for the sum: aten's gradients are 300 times too large."""
    g, q, k, v = inputs(1, 2, 2, 40, 300, 64)
    mask = torch.zeros(1, 1, 40, 300)
    mask[..., :20, :] = -1e9
    check(g, q, k, v, mask)


def test_layouts_that_are_not_a_models() -> None:
    g, q, k, v = inputs(2, 2, 2, 40, 40, 64)
    check(g.contiguous(), q.contiguous(), k.mT.contiguous().mT, v.contiguous())
    check(g[:, :1].expand(2, 2, 40, 64), torch.cat((q, q), -1)[..., 64:], k, v[:, :1].expand(2, 2, 40, 64))
    check(torch.ones(()).bfloat16().expand(2, 2, 40, 64), q, k, v)


@pytest.mark.parametrize("number", [1e-39, 2.0**-133, -(2.0**20), 3e38, math.inf, math.nan])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_numbers_that_the_instruction_would_lose(number: float, place: int) -> None:
    """One of them in any tensor, in the last row, and all is computed exactly."""
    four = inputs(1, 2, 2, 65, 65, 64)
    out, sums = FORWARD(*four[1:])
    four[place][0, 1, 64, 63] = number
    for causal in (False, True):
        assert gradients_by_pairs(*four, out, sums, None, 0.125, causal) is None
    one, two = (BACKWARD(*four, out, sums, 0.0, False, pairs=pairs) for pairs in (True, False))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.nan_to_num(7.0, 8.0, 9.0), b.nan_to_num(7.0, 8.0, 9.0))


def test_rows_that_are_nearly_nothing_are_exact_and_zeros_are_not() -> None:
    """A row of gradients below 2^-60, or of values below 2^-30, would lose bits of its products; of zeros, nothing."""
    for place, least in ((0, 2.0**-61), (3, 2.0**-31)):
        four = inputs(1, 2, 2, 65, 65, 64)
        out, sums = FORWARD(*four[1:])
        four[place][0, 1, 64] = 0.0
        assert gradients_by_pairs(*four, out, sums, None, 0.125, False) is not None
        four[place][0, 1, 64, 3] = least
        assert gradients_by_pairs(*four, out, sums, None, 0.125, False) is None
        four[place][0, 1, 64, 3] = 2 * least
        assert gradients_by_pairs(*four, out, sums, None, 0.125, False) is not None


@pytest.mark.parametrize("size", [2.0**-56, 2.0**-30, 2.0**17])
def test_small_and_large_gradients(size: float) -> None:
    g, q, k, v = inputs(1, 2, 2, 64, 80, 32)
    check(g * size, q, k, v)
    check(g * size, q, k, v * 2.0**-24 if size < 1 else v * 8)


def test_results_among_the_denormals_are_there() -> None:
    """Gradients of 2^-56 by keys of 2^-70 with a small scale: gradients of queries near 2^-132."""
    g, q, k, v = inputs(1, 1, 1, 32, 32, 32)
    g, k = g * 2.0**-56, k * 2.0**-70
    out, sums = FORWARD(q, k, v, scale=2.0**-4)
    found = gradients_by_pairs(g, q, k, v, out, sums, None, 2.0**-4, False)
    assert found is not None
    wanted = exactly(g, q, k, v, None, False, 2.0**-4)
    for ours, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=0.05, atol=0.02 * exact.abs().max().item())
    assert found[0].abs().max() < 2.0**-126 and (found[0] != 0).any()


def test_weights_that_are_nearly_nothing_still_count() -> None:
    """A key with a weight of 2^-100 gets 2^-100 of the gradient."""
    g, q, k, v = inputs(1, 1, 1, 16, 16, 32)
    q, k = torch.zeros_like(q), torch.zeros_like(k)
    q[..., 0], k[..., 1:, 0] = 1.0, -100.0 * math.log(2.0)
    out, sums = FORWARD(q, k, v, scale=1.0)
    found = gradients_by_pairs(g, q, k, v, out, sums, None, 1.0, False)
    assert found is not None
    wanted = exactly(g, q, k, v, None, False, 1.0)[2]
    torch.testing.assert_close(found[2][0, 0, 1:].double(), wanted[0, 0, 1:], rtol=0.05, atol=2.0**-106)


@pytest.mark.parametrize("scale", [0.0, -0.125, 2.0**-40, 2.0**4])
def test_scales(scale: float) -> None:
    check(*inputs(1, 1, 1, 32, 32, 32), scale=scale)


def test_what_it_is_not_for() -> None:
    four = inputs(1, 1, 1, 16, 16, 32)
    out, sums = FORWARD(*four[1:])
    for scale in (2.0**5, 2.0**-41, math.inf, math.nan):
        assert gradients_by_pairs(*four, out, sums, None, scale, False) is None
    for kind in (torch.float32, torch.float16):
        assert gradients_by_pairs(*(one.to(kind) for one in four), out.to(kind), sums, None, 0.2, False) is None
    assert gradients_by_pairs(*four[:3], four[3][..., :16], out, sums, None, 0.2, False) is None


def test_blocks_hold_all_and_little_else() -> None:
    for count in range(1, 300, 7):
        for causal in (False, True):
            blocks = gradient_blocks(count, count, causal)
            assert blocks["BLOCK_N"] % blocks["REST_M"] == 0 or not causal
            assert bool(blocks["REST_N"]) == bool(count % blocks["BLOCK_N"])
    assert gradient_blocks(257, 257, False)["REST_N"] == gradient_blocks(257, 257, False)["REST_M"] == 16


@pytest.mark.parametrize("option,pairs", [("auto", True), ("exact", False)])
def test_graphs(option: str, pairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option says whether pairs may be used. Twice through one graph, and into gradients that are there."""
    calls: list[Any] = []
    real = paired_gradients.launch

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(paired_gradients, "launch", counted)
    _, q, k, v = inputs(2, 4, 2, 40, 40, 64)
    q.requires_grad_()
    v.requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q, k, v: sdpa(q * 2, k, v, enable_gqa=True) + 1, backend="torchport", options={"bf16_products": option}
    )
    found = compiled(q, k, v)
    found.backward(torch.ones_like(found), retain_graph=True)
    first = [one.grad.clone() for one in (q, v)]  # type: ignore[union-attr]
    found.backward(torch.ones_like(found))
    assert bool(calls) == pairs and k.grad is None
    wide = [one.detach().double().requires_grad_() for one in (q, k, v)]
    wanted = sdpa(wide[0] * 2, wide[1], wide[2], enable_gqa=True) + 1
    grads = torch.autograd.grad(wanted, (wide[0], wide[2]), torch.ones_like(wanted))
    for once, tensor, right in zip(first, (q, v), grads, strict=True):
        torch.testing.assert_close(once.double(), right, rtol=0.05, atol=0.05)
        torch.testing.assert_close(tensor.grad, 2 * once)
