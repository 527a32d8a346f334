"""What the results of a reduction over ranks may be: computed in float64, with a limit from the orders of its sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from torchport.arithmetic.formats import FloatFormat, format_of

__all__ = ["ORDERS", "Limit", "exact", "limit_of", "orders_of", "wrong_elements"]

ORDERS = 4
"""Up to how many ranks all orders of a sum are computed: 1, 3 and 15 binary trees for 2, 3 and 4 terms."""


@dataclass(frozen=True)
class Limit:
    """The legal results of a reduction, flat.

    expected: in float64, or in int64 for integers
    distance: how far a legal result may be off, float64; 0 for what does not round
    free: elements whose partial sums may overflow, so that an infinity or NaN is legal
    """

    expected: torch.Tensor
    distance: torch.Tensor
    free: torch.Tensor


def exact(part: torch.Tensor) -> torch.Tensor:
    """The elements in order, in float64, or in int64 for integers; of complex numbers both parts."""
    flat = torch.view_as_real(part.resolve_conj()) if part.dtype.is_complex else part
    flat = flat.reshape(-1)
    return flat.to(torch.float64 if flat.dtype.is_floating_point else torch.int64)


def limit_of(parts: Sequence[torch.Tensor], reduce: str, dtype: torch.dtype, count: int | None = None) -> Limit | None:
    """What ``parts``, one a rank, reduce to, as ``exact`` gives them; None for reductions that are not known here.

    dtype: of the parts and of the result. Partial sums are rounded to it, or to a wider type.
    count: by what an average divides; as many as there are parts if None

    Of a sum of n terms t in any order, each of n - 1 additions rounds a partial sum, which is at most Σ|t|: the result
    is off by at most (n - 1) u Σ|t| / (1 - (n - 1) u) (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
    2002, section 4.2, equation 4.4). An average also divides, before or after, or multiplies with a rounded
    reciprocal: two roundings more.
    """
    n = len(parts)
    none = torch.zeros(parts[0].shape, dtype=torch.bool)
    if not parts[0].dtype.is_floating_point:
        whole = _integers(parts, reduce, dtype)
        return None if whole is None else Limit(whole, torch.zeros(whole.shape, dtype=torch.float64), none)
    zero = torch.zeros(parts[0].shape, dtype=torch.float64)
    stacked = torch.stack(list(parts))
    if reduce in ("max", "min"):
        whole = stacked.amax(0) if reduce == "max" else stacked.amin(0)
        return Limit(whole, zero, whole.isnan())
    format_ = format_of(dtype.to_real() if dtype.is_complex else dtype)
    if reduce in ("sum", "avg"):
        divisor = 1 if reduce == "sum" else (n if count is None else count)
        whole, size = stacked.sum(0) / divisor, stacked.abs().sum(0)
        return Limit(whole, _off(n - 1 + 2 * (divisor > 1), size / divisor, format_), ~(size <= format_.largest))
    if reduce == "product" and not dtype.is_complex:
        whole, size = stacked.prod(0), stacked.abs().clamp_min(1).prod(0)
        return Limit(whole, _off(n - 1, whole.abs(), format_), ~(size <= format_.largest))
    return None


def _off(roundings: int, size: torch.Tensor, format_: FloatFormat) -> torch.Tensor:
    """How far that many roundings of numbers up to ``size`` move a result; float64 adds its own."""
    unit = format_.unit * (2 if format_.unit <= 2.0**-53 else 1)
    moved = roundings * unit / (1 - roundings * unit) * size + roundings * format_.tiny
    return torch.nan_to_num(moved, nan=0.0, posinf=math.inf)


def _integers(parts: Sequence[torch.Tensor], reduce: str, dtype: torch.dtype) -> torch.Tensor | None:
    combine: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "sum": torch.add, "product": torch.mul, "max": torch.maximum, "min": torch.minimum,
        "band": torch.bitwise_and, "bor": torch.bitwise_or, "bxor": torch.bitwise_xor,
    }  # fmt: skip
    if reduce not in combine:
        return None
    whole = parts[0]
    for part in parts[1:]:
        whole = combine[reduce](whole, part)
    return whole.to(dtype).to(torch.int64)  # it wraps as the type does


def wrong_elements(result: torch.Tensor, limit: Limit) -> torch.Tensor:
    """Which elements of a result, as ``exact`` gives it, no legal reduction gives."""
    if not result.dtype.is_floating_point:
        return result != limit.expected
    finite = result.isfinite() & limit.expected.isfinite()
    near = (result - limit.expected).abs() <= limit.distance
    special = (result == limit.expected) | (result.isnan() & limit.expected.isnan()) | (limit.free & ~result.isfinite())
    return ~torch.where(finite, near, special)


def orders_of(parts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The sum of up to ORDERS tensors in every order of additions, each rounded to their type."""
    if len(parts) == 1:
        yield parts[0]
        return
    rest = range(1, len(parts))
    for size in range(len(parts) - 1):  # the first part stays on the left: a + b is b + a
        for chosen in combinations(rest, size):
            left = [parts[0], *(parts[index] for index in chosen)]
            right = [parts[index] for index in rest if index not in chosen]
            for one in orders_of(left):
                for other in orders_of(right):
                    yield one + other
