"""Attention as products and a softmax: how far legal arithmetic moves it, and its results in other arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.graphs.special import masked
from torchport.numerics.verdicts.operators.calls import OperatorCall

__all__ = ["Attention", "attention_of", "sum_variance"]

Multiply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""[batch, m, k] and [batch, k, n] to [batch, m, n] in f32."""

_UNIT = format_of(torch.float32).unit
_FUNCTION = 2 * 2 * _UNIT
"""exp and log err by 2 ULP unless a profile says otherwise, as in noise variants of kernels."""

_NARROW_FUNCTION = 2.0**-12
"""Error of exp for operands of 16 bits: PyTorch's own kernel is off by -2.41e-4 to 9.3e-5 there (measured, both
types), which is half a unit of f16."""


def sum_variance(
    energy: torch.Tensor, total: torch.Tensor, terms: torch.Tensor | float, unit: float = _UNIT
) -> torch.Tensor:
    """Variance of the rounding errors of sums that add up one term after the other, in an unknown order.

    ``energy``: sums of the terms' squares, ``total``: the sums, ``terms``: how many each has, n. Adding term i rounds a
    partial sum, by u S_i xi with xi uniform in [-1, 1] (variance 1/3). The S_i**2 of independent terms add up to
    n / 2 energy, those of equal terms to n / 3 total**2; both are counted, as in noise variants of kernels.
    """
    return unit**2 / 3 * (terms / 2 * energy + terms / 3 * total.square())


@dataclass(frozen=True)
class Attention:
    """softmax(factor q kᵀ + mask) v, and the logarithms of the softmax's sums.

    query, key, value: [batch, heads, length, size], all with as many heads.
    causal: keys after the query are masked.
    factor: of the products.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    causal: bool
    mask: torch.Tensor | None
    factor: float

    @property
    def shared(self) -> float:
        """How far the logarithms of all rows may be off together: an approximation of exp errs to one side."""
        return _NARROW_FUNCTION if self.query.dtype.itemsize < 4 else 0.0

    def sigmas(self) -> list[torch.Tensor]:
        """Standard deviations of the result and of the logarithms in legal arithmetic, float64.

        Scores and sums are in f32 at least; fused kernels have weights in the operands' type for the second product.
        Errors of weights are small, so what they do is linear.
        """
        q, k, v = (one.double() for one in (self.query, self.key, self.value))
        narrow = format_of(self.query.dtype).unit
        function = self.shared or _FUNCTION
        plain = q @ k.mT
        scores = self._masked(plain * self.factor)
        weights, sums, shift = _softmax(scores)
        shares = (weights / sums).nan_to_num(0.0)
        keys = torch.count_nonzero(weights, -1).unsqueeze(-1).double()  # what is masked adds no rounding
        result, energy = shares @ v, shares.square() @ v.square()
        # A score is scaled, masked, and the maximum taken off: three roundings.
        rounded = (plain * self.factor).square() + scores.square() + (scores - shift).square()
        product = self.factor**2 * sum_variance(q.square() @ k.mT.square(), plain, q.shape[-1])
        relative = (product + _UNIT**2 / 3 * rounded).nan_to_num(0.0, 0.0) + function**2 / 3
        # A weight's error moves the result by its share of (value - result), its sum by its share.
        squares = shares.square() * relative
        moved = squares.sum(-1, keepdim=True)
        summed = moved + sum_variance(shares.square().sum(-1, keepdim=True), shares.sum(-1, keepdim=True), keys)
        variance = squares @ v.square() - 2 * result * (squares @ v) + result.square() * summed
        variance += sum_variance(energy, result, keys)
        variance += 2 * _UNIT**2 / 3 * result.square()  # divided once, or every weight
        if narrow > _UNIT:
            variance += narrow**2 / 3 * energy
        logarithm = summed + (_FUNCTION * sums.log().nan_to_num(0.0, 0.0, 0.0)).square() / 3 + self.shared**2 / 3
        return [variance.clamp_min(0.0).sqrt(), logarithm.sqrt().squeeze(-1)]

    def by(self, multiply: Multiply, narrow: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """The result in the operands' type and the logarithms in f32, products and sums by ``multiply``.

        ``narrow``: weights are rounded to the operands' type for the second product.
        """
        shape, (q, k, v) = self.query.shape, (one.flatten(0, 1) for one in (self.query, self.key, self.value))
        plain = multiply(q, k.mT).reshape(*shape[:-1], k.shape[-2])
        weights, _, shift = _softmax(self._masked(plain * self.factor))
        weights = weights.flatten(0, 1)
        sums = multiply(weights, weights.new_ones(*v.shape[:-1], 1))
        top = multiply(weights.to(v.dtype), v) if narrow else multiply(weights, v.float())
        result = (top / sums).nan_to_num(0.0, math.inf, -math.inf)
        logarithm = shift + sums.log().reshape(shift.shape)
        # Rows of which everything is masked are 0, as PyTorch has them.
        return result.reshape(*shape[:-1], v.shape[-1]).to(self.query.dtype), logarithm.nan_to_num(neginf=0.0).squeeze(
            -1
        )

    def _masked(self, scores: torch.Tensor) -> torch.Tensor:
        mask = self.mask
        return masked(scores, self.causal, mask if mask is None or mask.dtype == torch.bool else mask.to(scores.dtype))


def _softmax(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights that are not divided yet, their sums, and what was taken off the scores."""
    shift = scores.amax(-1, keepdim=True)
    shift = torch.where(torch.isfinite(shift), shift, 0.0)
    weights = torch.exp(scores - shift)
    return weights, weights.sum(-1, keepdim=True), shift


_NAMES = ("_scaled_dot_product_flash_attention_for_cpu", "torchport::sdpa")


def attention_of(called: OperatorCall) -> Attention | None:
    """The attention that an operator computes; None for other operators, and with dropout."""
    if called.name not in _NAMES or called.argument("dropout_p"):
        return None
    query, key, value = (called.argument(name) for name in ("query", "key", "value"))
    times = query.shape[-3] // key.shape[-3]
    key, value = (one.repeat_interleave(times, -3) if times > 1 else one for one in (key, value))
    scale = called.argument("scale")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    return Attention(query, key, value, bool(called.argument("is_causal")), called.argument("attn_mask"), factor)
