"""Errors of a target's functions: every f16 and bf16, f32 sampled, against long double or f64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from torchport.arithmetic.formats import FORMATS, FloatFormat

__all__ = ["FUNCTIONS", "function_errors"]

FUNCTIONS = ("exp", "exp2", "log", "log2", "sin", "cos", "erf", "rsqrt", "sqrt", "div")

_COUNT = 1 << 16
_LARGEST = 3.38e38
"""Results beyond, in the last hundredth of bf16's and f32's range, are left out."""
_RANGES = {
    "exp": (-80.0, 80.0), "exp2": (-120.0, 120.0), "log": (0.0, 4.0), "log2": (0.0, 4.0), "sin": (-3.14, 3.14),
    "cos": (-3.14, 3.14), "erf": (-4.0, 4.0), "rsqrt": (0.0, 16.0), "sqrt": (0.0, 16.0), "div": (-8.0, 8.0),
}  # fmt: skip


def function_errors(launch: Callable[..., None], name: str) -> dict[str, float]:
    """Largest error of function ``name`` in ULP of each type, of results that are normal numbers.

    f16 and bf16: computed in f32 from each of their 65536 values, the result rounded. f32: 65536 of the function's
    range, drawn from a fixed seed.
    """
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    generator = torch.Generator().manual_seed(0)
    low, high = _RANGES[name]
    sampled = low + (high - low) * torch.rand(_COUNT, generator=generator)
    operands = {"f16": every.view(torch.float16), "bf16": every.view(torch.bfloat16), "f32": sampled}
    found = {}
    for type_, x in operands.items():
        y = x.roll(12345).contiguous() if name == "div" else x
        out = torch.empty_like(x)
        from torchport.kernels.probes import function_probe

        launch(function_probe, _COUNT // 1024, x, y, out, NAME=name, BLOCK=1024)
        found[type_] = _largest(out, _exact(name, x, y), FORMATS[type_])
    return found


def _exact(name: str, x: torch.Tensor, y: torch.Tensor) -> Any:
    wide = x.double().numpy().astype(np.longdouble)
    with np.errstate(all="ignore"):
        if name == "erf":
            return torch.special.erf(x.double()).numpy().astype(np.longdouble)
        if name == "div":
            return wide / y.double().numpy().astype(np.longdouble)
        return 1 / np.sqrt(wide) if name == "rsqrt" else getattr(np, name)(wide)


def _largest(out: torch.Tensor, exact: Any, format_: FloatFormat) -> float:
    found = out.double().numpy().astype(np.longdouble)
    size = np.abs(exact)
    largest = np.longdouble(min(format_.largest, _LARGEST))
    normal = np.isfinite(exact) & (size >= np.ldexp(np.longdouble(1), format_.least)) & (size <= largest)
    if not normal.any():
        return 0.0
    _, exponent = np.frexp(size[normal])
    with np.errstate(invalid="ignore"):
        errors = np.abs(found[normal] - exact[normal]) / np.ldexp(np.longdouble(1), exponent - 1 - format_.fraction)
    return round(float(np.nan_to_num(errors, nan=np.inf).max()), 3)
