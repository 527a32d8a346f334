"""Distances between neighbouring floating-point numbers."""

from __future__ import annotations

import torch

from torchport.arithmetic.formats import FloatFormat

__all__ = ["spacing"]


def spacing(values: torch.Tensor, format_: FloatFormat) -> torch.Tensor:
    """Distance between neighbours of ``format_`` in the binade of each value, float64; denormals included."""
    _, exponents = torch.frexp(values.abs())
    binade = torch.where(values == 0, format_.least, exponents - 1).clamp_min(format_.least)
    return torch.ldexp(torch.ones_like(values, dtype=torch.float64), binade - format_.fraction)
