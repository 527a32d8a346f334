"""Products and attention in other legal ways, with PyTorch's own operations, and attention with faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from torchport.numerics.verdicts.operators.attention import Attention
from torchport.numerics.verdicts.operators.calls import OperatorCall

__all__ = ["Factors", "attention_faults", "attention_variants", "factors_of", "product_variants"]


@dataclass(frozen=True)
class Factors:
    """An operator as a product. ``a``: [(batch,) m, k], ``b``: [(batch,) k, n]; ``shape``: the result's; ``bias``: what
    can be expanded to it."""

    a: torch.Tensor
    b: torch.Tensor
    bias: torch.Tensor | None
    shape: tuple[int, ...]

    def result(self, dtype: torch.dtype, total: torch.Tensor | None = None) -> torch.Tensor:
        """Rounded once; ``total``: the product (by default f32's), to which the bias is added."""
        total = (self.a.float() @ self.b.float() if total is None else total).reshape(self.shape)
        return (total if self.bias is None else total + self.bias.to(total.dtype)).to(dtype)


def factors_of(called: OperatorCall) -> Factors:
    """Of a product or a convolution of two dimensions, whose second factor is the columns of the image."""
    if called.name != "convolution":
        *bias, a, b = called.args
        return Factors(a, b, bias[0] if bias else None, (*a.shape[:-1], b.shape[-1]))
    x, weight, bias, stride, padding, dilation, _, _, groups = called.args
    columns = torch.nn.functional.unfold(x.float(), weight.shape[2:], dilation, padding, stride).to(x.dtype)
    n, terms = x.shape[0], columns.shape[1] // groups
    a = weight.reshape(1, groups, -1, terms).expand(n, -1, -1, -1).flatten(0, 1)
    return Factors(
        a,
        columns.reshape(n * groups, terms, -1),
        None if bias is None else bias.reshape(1, -1, 1, 1),
        tuple(called.run()[0].shape),
    )


def product_variants(factors: Factors, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Sums in f32 at least, rounded once: in parts, in other orders, by rows, the other way round, bias first."""
    a, b = factors.a.float(), factors.b.float()
    terms = a.shape[-1]

    def parts(indices: list[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros(())
        for one in indices:
            total = total + a[..., one] @ b[..., one, :]
        return factors.result(dtype, total)

    every = torch.arange(terms)
    for count in (2, 4, 8, 16):
        yield f"k in {count} parts", parts(list(every.chunk(count)))
        yield f"every {count}th of k", parts([every[start::count] for start in range(count)])
    yield "one term after the other", parts(list(every.split(1)))
    for seed in range(3):
        yield f"k in order {seed}", parts([torch.randperm(terms, generator=torch.Generator().manual_seed(seed))])
    yield "f64 sums", factors.result(dtype, a.double() @ b.double())
    yield "by rows", factors.result(dtype, torch.cat([one @ b for one in a.split(7, -2)], -2))
    yield "the other way round", factors.result(dtype, (b.mT @ a.mT).mT)
    if factors.bias is not None:
        start = factors.bias.float().expand(factors.shape).reshape((a @ b).shape)
        for part in every.split(8):
            start = start + a[..., part] @ b[..., part, :]
        yield "bias first", start.reshape(factors.shape).to(dtype)


def attention_variants(attention: Attention) -> Iterator[tuple[str, torch.Tensor]]:
    """The math that PyTorch has besides, online softmax by blocks of keys, in parts, exp as exp2."""
    one = attention
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield (
            "math",
            torch.nn.functional.scaled_dot_product_attention(
                one.query, one.key, one.value, is_causal=one.causal, scale=one.factor
            ),
        )
    for narrow in (False, True):
        yield f"f32, weights {'narrow' if narrow else 'wide'}", one.by(_multiply, narrow)[0]
        for block in (16, 32, 64):
            yield f"online by {block}, {narrow}", _online(one, block, narrow, torch.exp)
        yield f"exp2, {narrow}", _online(one, 32, narrow, _by_exp2)
        yield f"weights divided, {narrow}", _divided(one, narrow)


def _multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.float() @ b.float()


def _by_exp2(x: torch.Tensor) -> torch.Tensor:
    return torch.exp2(x * 1.4426950408889634)


def _scores(one: Attention) -> torch.Tensor:
    scores = (one.query.float() @ one.key.float().mT) * one.factor
    if one.causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).tril().logical_not(), -torch.inf)
    return scores


def _online(one: Attention, block: int, narrow: bool, exp: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """FlashAttention (Dao et al., NeurIPS 2022): sums and results are scaled again whenever the maximum rises."""
    scores, values = _scores(one), one.value.float()
    top, total, shift = torch.zeros(()), torch.zeros(()), torch.full((*scores.shape[:-1], 1), -torch.inf)
    for part, value in zip(scores.split(block, -1), values.split(block, -2), strict=True):
        highest = torch.maximum(shift, part.amax(-1, keepdim=True))
        weights, again = exp(part - highest), exp(shift - highest)
        total = total * again + weights.sum(-1, keepdim=True)
        top = top * again + (weights.to(one.query.dtype).float() if narrow else weights) @ value
        shift = highest
    return (top / total).to(one.query.dtype)


def _divided(one: Attention, narrow: bool) -> torch.Tensor:
    weights = torch.softmax(_scores(one), -1)
    return ((weights.to(one.query.dtype).float() if narrow else weights) @ one.value.float()).to(one.query.dtype)


def attention_faults(attention: Attention) -> Iterator[tuple[int, str, torch.Tensor]]:
    """(number, fault, result): scores or sums in a narrow type, an exp out of budget, a mask off by one, a scale."""
    one, scores, values = attention, _scores(attention), attention.value.float()
    dtype = one.query.dtype

    def finished(weights: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        return ((weights @ values) / total).to(dtype)

    narrow = torch.bfloat16 if dtype == torch.float32 else dtype
    weights = torch.softmax(scores.to(narrow).float(), -1)
    yield 7, f"scores in {narrow}", finished(weights, torch.ones(()))
    exps = torch.exp(scores - scores.amax(-1, keepdim=True))
    total = torch.zeros((*exps.shape[:-1], 1), dtype=narrow)
    for column in exps.split(1, -1):
        total = (total.float() + column).to(narrow)
    yield 7, f"sums of weights in {narrow}", finished(exps, total.float())
    shifted = scores - scores.amax(-1, keepdim=True)
    for low, high, ulp in ((-torch.inf, 0.0, 64), (-1.0, -0.9, 4096)):
        inside = (shifted >= low) & (shifted < high)
        wrong = torch.where(inside, exps * (1 + ulp * 2.0**-23), exps)
        yield 9, f"exp off by {ulp} ULP from {low} to {high}", finished(wrong, wrong.sum(-1, keepdim=True))
    cut = exps.clone()
    cut[..., -1] = 0.0
    yield 1, "last key left out", finished(cut, cut.sum(-1, keepdim=True))
