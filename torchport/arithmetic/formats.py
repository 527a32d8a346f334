"""The floating-point types of kernels: their precision and range, as bounds and roundings need them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Format", "format_of", "spacing"]


@dataclass(frozen=True)
class Format:
    """A binary floating-point type. ``digits``: bits of the significand, the implicit one included; ``least``: exponent
    of the smallest normal number 2**least; ``largest``: the largest finite number; ``infinities``: whether it has them.
    """

    digits: int
    least: int
    largest: float
    infinities: bool = True

    @property
    def unit(self) -> float:
        """Unit roundoff, half the distance from 1 to the next number."""
        return 2.0**-self.digits

    @property
    def tiny(self) -> float:
        """The smallest number above 0, a denormal."""
        return 2.0 ** (self.least - self.digits + 1)


_NO_INFINITIES = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)


def format_of(dtype: torch.dtype) -> Format:
    """The format of a floating-point dtype, from ``torch.finfo``."""
    info = torch.finfo(dtype)
    digits = 1 - _exponent(info.eps)
    return Format(digits, _exponent(info.smallest_normal), info.max, dtype not in _NO_INFINITIES)


def _exponent(power: float) -> int:
    """e of 2**e."""
    mantissa, exponent = torch.frexp(torch.tensor(power, dtype=torch.float64))
    assert float(mantissa) == 0.5
    return int(exponent) - 1


def spacing(values: torch.Tensor, format_: Format) -> torch.Tensor:
    """Distance between neighbours of ``format_`` in the binade of each value, float64; denormals included."""
    _, exponents = torch.frexp(values.abs())
    binade = torch.where(values == 0, format_.least, exponents - 1).clamp_min(format_.least)
    return torch.ldexp(torch.ones_like(values, dtype=torch.float64), binade - (format_.digits - 1))
