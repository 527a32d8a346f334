"""Error bounds of results, element by element (docs/conformance.md gives the source of each number).

Every comparison returns the largest error in units of its bound and raises Wrong, naming the element, if that exceeds
1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from torchport.capabilities import Capabilities
from torchport.conformance.case import Measured, Wrong
from torchport.conformance.values import TORCH, is_float

__all__ = ["DEFAULT_ULP", "FACTOR", "accumulated", "equal", "function_bound", "unit", "within"]

FACTOR = 2.0
"""k of the element bound. Errors of partial sums are a random walk; this many standard deviations are allowed."""

DEFAULT_ULP = {
    "acos": 4, "acosh": 4, "asin": 4, "asinh": 4, "atan": 5, "atan2": 6, "atanh": 5, "cbrt": 2, "ceil": 0, "cos": 4,
    "cosh": 4, "div": 2.5, "erf": 16, "erfc": 16, "exp": 3, "exp2": 3, "expm1": 3, "floor": 0, "fma": 0.5, "fmod": 0,
    "hypot": 4, "log": 3, "log10": 3, "log1p": 2, "log2": 3, "pow": 16, "rsqrt": 2, "sin": 4, "sinh": 4, "sqrt": 3,
    "tan": 5, "tanh": 5, "trunc": 0,
}  # fmt: skip
"""Bounds of functions without a promise: OpenCL C 1.2, table 7.1, single precision (double requires no more)."""


def unit(dtype: str) -> float:
    """Unit roundoff: half the distance from 1 to the next number."""
    return float(torch.finfo(TORCH[dtype]).eps) / 2


def _spacing(values: Any, dtype: str) -> Any:
    """The distance between adjacent numbers of ``dtype`` at ``values``, denormals included."""
    info = torch.finfo(TORCH[dtype])
    size = np.clip(np.abs(np.where(np.isfinite(values), values, 0)), info.tiny, info.max)
    return info.eps * np.exp2(np.floor(np.log2(size)))


def function_bound(wanted: Any, dtype: str, able: Capabilities, ulp: float) -> Any:
    """The largest error of one operation for which ``ulp`` units are promised.

    If ``able.promoted`` names a wider type, the operation is done in that type and then rounded once more.
    """
    final = 0.5 if able.rounding == "rne" else 1.0
    inner = able.promoted.get(dtype, dtype)
    ulp = max(ulp, final) if ulp else 0.0
    if inner == dtype:
        return ulp * _spacing(wanted, dtype)
    return final * _spacing(wanted, dtype) + ulp * _spacing(wanted, inner)


def accumulated(
    wanted: Any, shadow: Any, n: int, dtype: str, able: Capabilities, inner: str | None = None, inputs: float = 0.0
) -> Any:
    """The element bound k * (u_out * |y| + u_acc * sqrt(n) * c) + inputs * c.

    shadow: c, the sum of the magnitudes of the terms.
    n: the number of terms; on targets that round toward zero n replaces sqrt(n).
    inner: the accumulator's type, by default what the target promotes ``dtype`` to.
    inputs: relative error of the terms, if the requested precision rounds them.
    """
    steps = float(n) if able.rounding == "rtz" else float(n) ** 0.5
    inner = inner or able.promoted.get(dtype, dtype)
    least = torch.finfo(TORCH[dtype]).tiny * torch.finfo(TORCH[dtype]).eps
    return FACTOR * (unit(dtype) * np.abs(wanted) + unit(inner) * steps * shadow) + inputs * shadow + least


def within(
    got: torch.Tensor, wanted: Sequence[Any] | Any, bound: Sequence[Any] | Any, dtype: str, able: Capabilities
) -> Measured:
    """Compare floats with their references (float64 or wider) under bounds of the same shape.

    ``wanted`` and ``bound`` may be tuples of alternatives, any of which an element may satisfy: the exact function, and
    the function of inputs whose denormals were flushed. Infinities and NaN must be those of the reference rounded to
    ``dtype``; a result next to the largest number may be that number or infinity. If the capabilities do not list
    ``dtype`` in ``denormals``, zero is accepted for a denormal.
    """
    wants = wanted if isinstance(wanted, tuple) else (wanted,)
    bounds = bound if isinstance(bound, tuple) else (bound,)
    values = got.to(torch.float64).numpy()
    ratios = [_ratio(values, np.asarray(w), b, dtype, able) for w, b in zip(wants, bounds, strict=True)]
    ratio = ratios[0] if len(ratios) == 1 else np.minimum.reduce(ratios)
    if not ratio.size:
        return Measured(0.0)
    worst = float(ratio.max())
    if not worst <= 1:
        raise Wrong(_describe(values, np.asarray(wants[0]), ratio), worst)
    helped = len(ratios) > 1 and bool(np.any(ratios[0] > 1))
    return Measured(worst, ("denormal inputs count as zero",) if helped else ())


def _ratio(got: Any, wanted: Any, bound: Any, dtype: str, able: Capabilities) -> Any:
    info = torch.finfo(TORCH[dtype])
    bound = np.broadcast_to(np.asarray(bound, dtype=wanted.dtype), wanted.shape)
    with np.errstate(all="ignore"):
        error = np.abs(got - wanted)
        zero = error == 0
        ratio = np.where(zero, 0.0, error / bound)
        both_nan = np.isnan(got) & np.isnan(wanted)
        same_inf = np.isinf(got) & np.isinf(wanted) & (np.signbit(got) == np.signbit(wanted))
        # A finite reference beyond the largest number rounds to infinity; one next to it may.
        beyond = np.isinf(got) & np.isfinite(wanted) & (np.abs(wanted) + bound >= info.max)
        beyond &= np.signbit(got) == np.signbit(wanted)
        largest = np.isfinite(got) & np.isfinite(wanted) & (np.abs(wanted) > info.max) & (np.abs(got) == info.max)
        largest &= np.abs(wanted) - bound <= info.max
        good = both_nan | same_inf | beyond | largest
        if dtype not in able.denormals:
            good |= (got == 0) & (np.abs(wanted) < info.tiny)
        return np.where(good, 0.0, np.where(np.isnan(ratio), np.inf, ratio)).astype(np.float64)


def equal(got: torch.Tensor, wanted: torch.Tensor, able: Capabilities, signs: bool = True) -> Measured:
    """Compare exactly: integers, booleans, and floats that are moved or rounded once.

    All NaNs are equal. ``signs``: also compare the signs of zeros.
    """
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        raise Wrong(f"{got.dtype} of {tuple(got.shape)} instead of {wanted.dtype} of {tuple(wanted.shape)}")
    if not got.dtype.is_floating_point:
        bad = (got != wanted).numpy()
        a, b = got.numpy(), wanted.numpy()
    else:
        a, b = got.to(torch.float64).numpy(), wanted.to(torch.float64).numpy()
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if signs:
            same &= (np.signbit(a) == np.signbit(b)) | np.isnan(a)
        name = next(name for name, dtype in TORCH.items() if dtype == got.dtype)
        if is_float(name) and name not in able.denormals:
            same |= (a == 0) & (np.abs(b) < torch.finfo(got.dtype).tiny)
        bad = ~same
    if np.any(bad):
        raise Wrong(_describe(a, b, bad.astype(float)))
    return Measured(0.0)


def _describe(got: Any, wanted: Any, ratio: Any) -> str:
    """The worst element, and the number of elements out of bounds."""
    wrong = int(np.count_nonzero(~(ratio <= 1)) or np.count_nonzero(ratio))
    index = np.unravel_index(int(np.argmax(np.where(np.isnan(ratio), np.inf, ratio))), ratio.shape)
    place = ", ".join(str(int(i)) for i in index)
    return f"{wrong} of {ratio.size} elements; at [{place}] {got[index]!s} instead of {wanted[index]!s}"
