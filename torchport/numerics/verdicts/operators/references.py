"""How far legal arithmetic moves an operator's results: from the terms it adds up, and from orders of its sums."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.verdicts.measure import root
from torchport.numerics.verdicts.operators.attention import attention_of, sum_variance
from torchport.numerics.verdicts.operators.calls import OperatorCall
from torchport.numerics.verdicts.operators.emulation import computed_by
from torchport.numerics.verdicts.references import VARIANTS, Reference, reference_of

__all__ = ["Spread", "sigmas_of", "spread_of"]

_PRODUCTS = frozenset(
    ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution", "convolution_backward",
     "transformers::grouped_mm_fallback")
)  # fmt: skip
"""Operators that add up in f32 at least, and round once, at the end."""

_SUMS = frozenset(("embedding_dense_backward", "index_add", "scatter_add", "scatter_add_", "index_put", "index_put_"))
"""Operators that may add up in memory, in the type of their result."""

_COEFFICIENTS = ("alpha", "beta")
_TINY = format_of(torch.float32).tiny


@dataclass(frozen=True)
class Spread:
    """How far legal arithmetic moves an operator's results, in order.

    moved: of each variant, the differences from the float64 reference.
    orders: results in other orders of sums.
    sigmas: the variants' standard deviations.
    """

    moved: list[list[torch.Tensor]]
    orders: list[tuple[torch.Tensor, ...]]
    sigmas: list[torch.Tensor]

    def reference(self, index: int, values: torch.Tensor, dtype: torch.dtype) -> Reference:
        """Of result ``index``, whose float64 ``values`` may have another shape of as many elements."""
        native, shape = values.to(dtype), values.shape
        if not dtype.is_floating_point:
            return reference_of(values, native, [])
        noise = [values + variant[index].reshape(shape).nan_to_num(0.0, 0.0, 0.0) for variant in self.moved]
        orders = [variant[index].reshape(shape) for variant in self.orders]
        return reference_of(values, native, noise, orders=orders, sigma=self.sigmas[index].reshape(shape))


def spread_of(called: OperatorCall, seed: int = 0, orders: bool = True) -> Spread | None:
    """How far legal arithmetic moves an operator's results; None if its sums are not known here.

    ``orders``: whether to compute it in other orders, which may take compiling a kernel.
    """
    attention = attention_of(called)
    sigmas = sigmas_of(called) if attention is None else attention.sigmas()
    if sigmas is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    moved = []
    for _ in range(VARIANTS):
        errors = [one * torch.randn(one.shape, generator=generator, dtype=torch.float64) for one in sigmas]
        if attention is not None:
            errors[1] += attention.shared * (torch.rand((), generator=generator, dtype=torch.float64) * 2 - 1)
        moved.append(errors)
    return Spread(moved, _orders(called) if orders else [], sigmas)


def sigmas_of(called: OperatorCall) -> list[torch.Tensor] | None:
    """Standard deviations of the results of an operator that sums products of its operands' elements, or None.

    Given its operands' squares, such an operator sums the terms' squares. Given ones where operands are not 0, it
    counts the terms that are not: adding 0 rounds nothing.
    """
    if called.name not in _PRODUCTS | _SUMS or called.dtype is None:
        return None
    own = unit = format_of(called.dtype).unit
    if called.name in _PRODUCTS:
        unit = min(unit, format_of(torch.float32).unit)
    totals = _called(called, lambda value: value.double(), lambda value: value)
    energies = _called(called, lambda value: value.double().square(), lambda value: value * value)
    terms = _called(called, lambda value: (value != 0).double(), lambda value: float(value != 0))
    # Products of f32 that are denormal round absolutely, each by half a spacing at most.
    variances = [
        sum_variance(energy, total, count, unit) + count * _TINY**2 / 12
        for total, energy, count in zip(totals, energies, terms, strict=True)
    ]
    if called.name == "convolution" and (bias := called.argument("bias")) is not None:
        # For libraries without a bias, PyTorch adds it to the rounded result (as on GPUs).
        size = totals[0] - bias.double().reshape(1, -1, *[1] * (totals[0].dim() - 2))
        variances[0] += own**2 / 3 * size.square()
    return [root(one) for one in variances]


def _called(called: OperatorCall, change: Any, coefficient: Any) -> tuple[torch.Tensor, ...]:
    """The results with other values in tensors, and in ``alpha`` and ``beta``."""
    kwargs = {name: coefficient(value) if name in _COEFFICIENTS else value for name, value in called.kwargs.items()}
    # In-place operators change a tensor that is already f64.
    return replace(called, kwargs=kwargs).with_floats(lambda value: change(value).clone()).run()


def _orders(called: OperatorCall) -> list[tuple[torch.Tensor, ...]]:
    """Results with sums from the first term to the last, and the other way round."""
    if called.dtype == torch.float64:
        return []
    found = [computed_by(called, {}, apart=True, backwards=backwards) for backwards in (False, True)]
    return [one for one in found if one is not None]
