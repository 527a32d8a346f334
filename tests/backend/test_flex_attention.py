"""FlexAttention in compiled graphs: its usual examples, forward and backward, against dense attention in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention.experimental._paged_attention import PagedAttention
from torch.nn.attention.flex_attention import AuxRequest, and_masks, create_block_mask, flex_attention

from torchport.errors import KernelAssertionError

BLOCK = 32
"""The block mask's: several to a row at the lengths here, with a rest."""
TOLERANCE = 32
"""Roundings of the largest element. A result is a sum of up to 100 products; such a sum's error grows with the root of
their number, and the softmax doubles that of the scores."""

Mod = Callable[..., torch.Tensor]


def see_all(b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
    return m >= 0


def causal(b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
    return m >= n


def unchanged(score: torch.Tensor, b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
    return score


def dense(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, score_mod: Mod = unchanged, mask_mod: Mod = see_all
) -> tuple[torch.Tensor, torch.Tensor]:
    """Result and logarithm of the softmax's sums, from all scores at once."""
    batch, heads, rows, size = q.shape
    k, v = (one.expand(batch, -1, -1, -1).repeat_interleave(heads // one.shape[1], 1) for one in (k, v))
    ranges = [torch.arange(length) for length in (batch, heads, rows, k.shape[2])]
    at = [one.view([-1 if i == j else 1 for j in range(4)]) for i, one in enumerate(ranges)]
    scores = score_mod(q @ k.mT * size**-0.5, *at)
    scores = scores.masked_fill(~mask_mod(*at), -torch.inf)
    return torch.softmax(scores, -1).nan_to_num(0.0) @ v, torch.logsumexp(scores, -1)


def inputs(
    batch: int = 2, heads: int = 2, rows: int = 70, keys: int = 90, size: int = 16, *, value_size: int | None = None,
    key_heads: int | None = None, dtype: torch.dtype = torch.float32,
) -> list[torch.Tensor]:  # fmt: skip
    torch.manual_seed(0)
    shapes = ((heads, rows, size), (key_heads or heads, keys, size), (key_heads or heads, keys, value_size or size))
    return [torch.randn(batch, *shape, dtype=dtype, requires_grad=True) for shape in shapes]


def close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.shape == expected.shape
    missing = expected.isinf()
    assert torch.equal(found.isinf(), missing)
    error = (found.double() - expected)[~missing].abs().max().item()
    limit = TOLERANCE * torch.finfo(dtype).eps * expected[~missing].abs().max().item()
    assert error <= limit, f"off by {error:.2g}, {limit:.2g} is allowed"


def check(
    tensors: list[torch.Tensor],
    make_score: Callable[..., Mod] = lambda *_: unchanged,
    mask_mod: Mod | None = None,
    learned: tuple[torch.Tensor, ...] = (),
    **options: Any,
) -> None:
    """Result, sums and all gradients, those of ``learned`` too, which ``make_score`` makes a function of."""
    q, k, _ = tensors
    dtype = q.dtype
    block_mask = mask_mod and create_block_mask(
        mask_mod, None, None, q.shape[2], k.shape[2], device="cpu", BLOCK_SIZE=options.pop("block", BLOCK)
    )

    def attention(q: Any, k: Any, v: Any, *learned: Any) -> Any:
        aux = AuxRequest(lse=True)
        return flex_attention(
            q, k, v, make_score(*learned), block_mask, enable_gqa=q.shape[1] != k.shape[1], return_aux=aux
        )

    compiled = torch.compile(attention, backend="torchport", fullgraph=True, options={"fallback": "error", **options})
    out, aux = compiled(*tensors, *learned)
    wide = [one.detach().double().requires_grad_() for one in (*tensors, *learned)]
    expected, sums = dense(*wide[:3], make_score(*wide[3:]), mask_mod or see_all)
    close(out, expected, dtype)
    close(aux.lse, sums, torch.float32)
    grads = torch.randn_like(out), torch.randn_like(aux.lse)
    if dtype == torch.float64:  # the sums, and so their gradients, are float32 for all inputs
        grads[1].zero_()
    found = torch.autograd.grad((out, aux.lse), (*tensors, *learned), grads)
    seen = sums.masked_fill(sums.isinf(), 0.0)
    reference = torch.autograd.grad((expected, seen), wide, [one.double() for one in grads])
    for one, other in zip(found, reference, strict=True):
        close(one, other, dtype)


def test_causal() -> None:
    check(inputs(), mask_mod=causal)


def test_sliding_window_with_grouped_heads() -> None:
    def window(b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
        return (m - n).abs() <= 20

    check(inputs(heads=4, key_heads=2), mask_mod=and_masks(window, causal))


def test_alibi() -> None:
    def make_score(slopes: torch.Tensor) -> Mod:
        return lambda score, b, h, m, n: score + slopes[h] * (n - m)

    check(inputs(), make_score, causal, learned=(torch.tensor([0.5, 0.25], requires_grad=True),))


def test_documents() -> None:
    documents = torch.tensor([0] * 25 + [1] * 40 + [2] * 25)

    def same(b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
        return documents[m] == documents[n]

    check(inputs(rows=90), mask_mod=same)


@pytest.mark.slow
def test_prefix() -> None:
    lengths = torch.tensor([13, 40])

    def prefix(b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
        return (m >= n) | (n < lengths[b])

    tensors = inputs()
    block_mask = create_block_mask(prefix, 2, None, 70, 90, device="cpu", BLOCK_SIZE=BLOCK)
    compiled = torch.compile(flex_attention, backend="torchport", fullgraph=True, options={"fallback": "error"})
    out = compiled(*tensors, block_mask=block_mask)
    close(out, dense(*(one.double() for one in tensors), mask_mod=prefix)[0], torch.float32)


@pytest.mark.slow
def test_soft_cap() -> None:
    check(inputs(), lambda: lambda score, b, h, m, n: 2 * torch.tanh(score / 2))


@pytest.mark.slow
def test_neighbourhood_in_two_dimensions() -> None:
    width = 9

    def near(b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
        return ((m // width - n // width).abs() <= 2) & ((m % width - n % width).abs() <= 2)

    check(inputs(rows=81, keys=81), mask_mod=near)


def test_learned_table_of_positions() -> None:
    def make_score(table: torch.Tensor) -> Mod:
        return lambda score, b, h, m, n: score + table[h, n - m + 70]

    check(inputs(), make_score, learned=(torch.randn(2, 160, requires_grad=True),))


def test_pages() -> None:
    pages, page, batch, length = 6, 16, 2, 40
    cache = PagedAttention(pages, page, batch, device="cpu")
    q, k, v = inputs(batch, rows=length, keys=length)
    store = [torch.zeros(1, 2, pages * page, 16) for _ in "kv"]
    for i in range(batch):
        cache.reserve(torch.tensor(i), torch.tensor(length))
    at = torch.arange(length).expand(batch, length)
    cache.assign(torch.arange(batch), at, k.detach(), v.detach(), *store)
    logical = create_block_mask(causal, batch, None, length, length, device="cpu", BLOCK_SIZE=page)
    block_mask = cache.convert_logical_block_mask(logical)
    compiled = torch.compile(flex_attention, backend="torchport", fullgraph=True, options={"fallback": "error"})
    out = compiled(q, *store, block_mask=block_mask)
    expected = dense(q.double(), k.double(), v.double(), mask_mod=causal)[0]
    close(out, expected, torch.float32)
    grad = torch.randn_like(out)
    found, reference = (torch.autograd.grad(one, q, grad.to(one.dtype))[0] for one in (out, expected))
    close(found, reference.double(), torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_types(dtype: torch.dtype) -> None:
    def make_score(slopes: torch.Tensor) -> Mod:
        return lambda score, b, h, m, n: score + slopes[h] * (n - m)

    learned = torch.tensor([0.5, 0.25], dtype=dtype, requires_grad=True)
    check(inputs(rows=33, keys=47, size=24, value_size=5, dtype=dtype), make_score, causal, learned=(learned,))


@pytest.mark.parametrize(("rows", "keys"), [(1, 77), (1, 1)])
def test_few_queries(rows: int, keys: int) -> None:
    def make_score(bias: torch.Tensor) -> Mod:
        return lambda score, b, h, m, n: score + bias[n]

    learned = torch.randn(keys, requires_grad=True)
    check(inputs(heads=4, key_heads=1, rows=rows, keys=keys), make_score, learned=(learned,))


@pytest.mark.slow
def test_a_second_run_gives_the_same_bits() -> None:
    tensors = inputs(rows=200, keys=200)
    compiled = torch.compile(flex_attention, backend="torchport", fullgraph=True, options={"fallback": "error"})
    runs = []
    for _ in range(3):
        out = compiled(*tensors, lambda score, b, h, m, n: score + (m - n) * 0.01)
        runs.append((out, *torch.autograd.grad(out.square().sum(), tensors)))
    for other in runs[1:]:
        assert all(map(torch.equal, other, runs[0]))


def test_rows_that_see_nothing() -> None:
    def late(b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
        return (m > n) & (m != 50)

    check(inputs(), mask_mod=late)


def test_a_row_of_least_floats_sees_all_keys_alike() -> None:
    mask = torch.zeros(20, 20)
    mask[:3] = torch.finfo(torch.float32).min
    q, k, v = (torch.randn(1, 1, 20, 16, requires_grad=True) for _ in range(3))
    compiled = torch.compile(
        lambda q, k, v: flex_attention(q, k, v, lambda score, b, h, m, n: score + mask[m, n]), backend="torchport"
    )
    out = compiled(q, k, v)
    torch.testing.assert_close(out[0, 0, :3], v.mean(2)[0, 0].expand(3, 16))
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(out.sum(), (q, k, v)))


def test_odd_blocks_of_the_mask() -> None:
    check(inputs(rows=50, keys=61), mask_mod=causal, block=(20, 12))


def test_gradients_of_all_that_is_captured() -> None:
    """An element read twice, a row of a row, a number for all, and what is computed from a tensor before it is read."""

    def make_score(table: torch.Tensor, factor: torch.Tensor, bias: torch.Tensor) -> Mod:
        def score_mod(score: Any, b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
            row_first = table[h][m % 8] if h.dim() == 0 else table[h, m % 8]  # `dense` has many indices at once
            twice = row_first + table[h, -1 - n % 8]
            return score * factor + twice + (bias * 2).softmax(0).t()[h, n % 5]

        return score_mod

    learned = torch.randn(2, 8), torch.tensor(0.7), torch.randn(5, 2)
    check(inputs(), make_score, causal, learned=tuple(one.requires_grad_() for one in learned))


@pytest.mark.slow
def test_a_bias_in_place_of_the_score() -> None:
    def make_score(bias: torch.Tensor) -> Mod:
        return lambda score, b, h, m, n: bias[m, n]

    q, k, v = inputs()
    bias = torch.randn(70, 90, requires_grad=True)
    compiled = torch.compile(
        lambda v, bias: flex_attention(q, k, v, make_score(bias)), backend="torchport", options={"fallback": "error"}
    )
    out = compiled(v, bias)
    wide = [one.detach().double().requires_grad_() for one in (v, bias)]
    expected = torch.softmax(wide[1], -1) @ wide[0]
    close(out, expected, torch.float32)
    grad = torch.randn_like(out)
    found, reference = (
        torch.autograd.grad(out, (q, k, v, bias), grad),
        torch.autograd.grad(expected, wide, grad.double()),
    )
    assert not found[0].any()
    assert not found[1].any()
    for one, other in zip(found[2:], reference, strict=True):
        close(one, other, torch.float32)


@pytest.mark.slow
def test_one_batch_of_keys_for_all_queries() -> None:
    q, (_, k, v) = inputs(batch=3)[0], inputs(batch=1)
    block_mask = create_block_mask(causal, 3, None, 70, 90, device="cpu", BLOCK_SIZE=BLOCK)
    compiled = torch.compile(flex_attention, backend="torchport", fullgraph=True, options={"fallback": "error"})
    out = compiled(q, k, v, block_mask=block_mask)
    wide = [one.detach().double().requires_grad_() for one in (q, k, v)]
    expected, _ = dense(*wide, mask_mod=causal)
    close(out, expected, torch.float32)
    grad = torch.randn_like(out)
    reference = torch.autograd.grad(expected, wide, grad.double())
    for one, other in zip(torch.autograd.grad(out, (q, k, v), grad), reference, strict=True):
        close(one, other, torch.float32)


@pytest.mark.slow
def test_in_a_region_that_is_compiled_once() -> None:
    @torch.compiler.nested_compile_region
    def layer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return flex_attention(q, k, v, lambda score, b, h, m, n: score * 0.5)

    q, k, v = (one.detach() for one in inputs())
    compiled = torch.compile(
        lambda q, k, v: layer(layer(q, k, v), k, v), backend="torchport", options={"fallback": "error"}
    )
    once = dense(q.double() / 2, k.double(), v.double())[0]
    close(compiled(q, k, v), dense(once / 2, k.double(), v.double())[0], torch.float32)


def test_dynamic_lengths() -> None:
    def attention(q: Any, k: Any, v: Any, block_mask: Any, bias: Any) -> Any:
        return flex_attention(q, k, v, lambda score, b, h, m, n: score + bias[n], block_mask)

    compiled = torch.compile(
        attention, backend="torchport", fullgraph=True, dynamic=True, options={"fallback": "error"}
    )
    for rows, keys in ((70, 90), (33, 129), (96, 64)):
        block_mask = create_block_mask(causal, None, None, rows, keys, device="cpu", BLOCK_SIZE=BLOCK)
        tensors = [*inputs(rows=rows, keys=keys), torch.randn(keys, requires_grad=True)]
        wide = [one.detach().double().requires_grad_() for one in tensors]
        out = compiled(*tensors[:3], block_mask, tensors[3])
        bias = wide[3]
        expected = dense(*wide[:3], lambda score, b, h, m, n: score + bias[n], causal)[0]  # noqa: B023
        close(out, expected, torch.float32)
        grad = torch.randn_like(out)
        found = torch.autograd.grad(out, tensors, grad)
        for one, other in zip(found, torch.autograd.grad(expected, wide, grad.double()), strict=True):
            close(one, other, torch.float32)


def test_no_queries_and_no_keys() -> None:
    def make_score(bias: torch.Tensor) -> Mod:
        return lambda score, b, h, m, n: score + bias[h]

    compiled = torch.compile(
        lambda q, k, v, bias: flex_attention(q, k, v, make_score(bias)),
        backend="torchport", fullgraph=True, dynamic=False, options={"fallback": "error"},
    )  # fmt: skip
    for rows, keys in ((0, 5), (5, 0)):
        tensors = [*inputs(rows=rows, keys=keys), torch.randn(2, requires_grad=True)]
        out = compiled(*tensors)
        assert out.shape == (2, 2, rows, 16)
        assert not out.any()
        for one, grad in zip(tensors, torch.autograd.grad(out.sum(), tensors), strict=True):
            assert torch.equal(grad, torch.zeros_like(one))


@pytest.mark.slow
def test_numbers_that_change() -> None:
    compiled = torch.compile(
        lambda q, k, v, factor, reach: flex_attention(
            q, k, v, lambda score, b, h, m, n: torch.where(m - n < reach, score * factor, -1e9)
        ),
        backend="torchport", fullgraph=True, options={"fallback": "error"},
    )  # fmt: skip
    q, k, v = (one.detach() for one in inputs())
    for factor, reach in ((0.1, 10), (0.7, 20), (1.3, 30)):

        def score_mod(score: Any, b: Any, h: Any, m: Any, n: Any) -> torch.Tensor:
            return torch.where(m - n < reach, score * factor, -1e9)  # noqa: B023

        expected = dense(q.double(), k.double(), v.double(), score_mod)[0]
        close(compiled(q, k, v, factor, reach), expected, torch.float32)


@pytest.mark.slow
def test_gradients_of_the_sums_alone() -> None:
    def sums(q: Any, k: Any, v: Any) -> Any:
        return flex_attention(q, k, v, return_aux=AuxRequest(lse=True))[1].lse

    tensors = inputs()[:2]
    found = torch.compile(sums, backend="torchport", fullgraph=True, options={"fallback": "error"})
    grads = torch.autograd.grad(found(*tensors, torch.zeros(2, 2, 90, 16)).sum(), tensors)
    q, k = (one.detach().double().requires_grad_() for one in tensors)
    for one, other in zip(grads, torch.autograd.grad(dense(q, k, k)[1].sum(), (q, k)), strict=True):
        close(one, other, torch.float32)


def test_largest_scores() -> None:
    compiled = torch.compile(flex_attention, backend="torchport", fullgraph=True, options={"fallback": "error"})
    q, k, v = inputs()
    _, aux = compiled(q, k, v, return_aux=AuxRequest(lse=True, max_scores=True))
    close(aux.max_scores, (q.double() @ k.double().mT / 4).amax(-1), torch.float32)


def test_an_index_out_of_bounds_is_an_error() -> None:
    table = torch.randn(10)
    compiled = torch.compile(flex_attention, backend="torchport", fullgraph=True, options={"fallback": "error"})
    with pytest.raises(KernelAssertionError, match="index out of bounds: 0 <= index < 10"):
        compiled(*inputs(), lambda score, b, h, m, n: score + table[m - n])


def test_other_backends_and_eager_refuse_as_before() -> None:
    compiled = torch.compile(flex_attention, backend="eager")
    for call in (compiled, flex_attention):
        with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
            call(*inputs())
    plain = [one.detach() for one in inputs()]
    assert torch.equal(compiled(*plain), flex_attention(*plain))
    for call in (compiled, flex_attention):
        with pytest.raises(NotImplementedError, match="max scores is not supported"):
            call(*plain, return_aux=AuxRequest(max_scores=True))
