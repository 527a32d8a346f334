"""The table of floating-point formats: their precision and range, as bounds, roundings and emulation need them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["FORMATS", "FloatFormat", "format_of"]


@dataclass(frozen=True)
class FloatFormat:
    """A binary floating-point format.

    fraction: bits of the significand behind the point, without the implicit one.
    least: exponent of the smallest normal number.
    largest: the largest finite number.
    infinities: whether it has them.
    """

    fraction: int
    least: int
    largest: float
    infinities: bool = True

    @property
    def unit(self) -> float:
        """Unit roundoff, half the distance from 1 to the next number."""
        return 2.0 ** -(self.fraction + 1)

    @property
    def tiny(self) -> float:
        """The smallest number above 0, a denormal."""
        return 2.0 ** (self.least - self.fraction)


def _ieee(fraction: int, least: int) -> FloatFormat:
    """A format with as many exponents above 1 as below, and infinities."""
    return FloatFormat(fraction, least, (2.0 - 2.0**-fraction) * 2.0 ** (1 - least))


FORMATS: Mapping[str, FloatFormat] = {
    "f64": _ieee(52, -1022),
    "f32": _ieee(23, -126),
    "tf32": _ieee(10, -126),
    "e8m13": _ieee(13, -126),
    "bf16": _ieee(7, -126),
    "f16": _ieee(10, -14),
    "f8E5M2": _ieee(2, -14),
    "f8E4M3FN": FloatFormat(3, -6, 448.0, infinities=False),
    "f8E5M2FNUZ": FloatFormat(2, -15, 57344.0, infinities=False),
    "f8E4M3FNUZ": FloatFormat(3, -7, 240.0, infinities=False),
}
"""By name: MLIR's, ``tf32``, and ``e8m13``, an accumulator of Hopper's matrix units.

``torch.finfo`` says the same, except that its ``eps`` of ``float8_e5m2fnuz`` is that of three bits instead of two.
"""

_TORCH_NAMES = {
    "float64": "f64", "float32": "f32", "bfloat16": "bf16", "float16": "f16", "float8_e5m2": "f8E5M2",
    "float8_e4m3fn": "f8E4M3FN", "float8_e5m2fnuz": "f8E5M2FNUZ", "float8_e4m3fnuz": "f8E4M3FNUZ",
}  # fmt: skip


def format_of(dtype: torch.dtype) -> FloatFormat:
    """The format of a floating-point dtype of PyTorch. Raises KeyError for other dtypes."""
    return FORMATS[_TORCH_NAMES[str(dtype).removeprefix("torch.")]]
