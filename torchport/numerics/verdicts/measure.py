"""Measures a tensor's errors against its float64 reference, in units of what legal arithmetic may do.

Names in this module, all of one shape:
y: the chip's values in their dtype T.
reference: float64.
sigma: how far legal arithmetic moves each element (``torchport.numerics.verdicts.references``), float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from torchport.arithmetic.formats import FloatFormat, format_of
from torchport.arithmetic.spacing import spacing

__all__ = [
    "BINS", "Errors", "Scaled", "excess", "measure", "relative_l2", "root", "same_bits", "scaled", "tile_shape",
    "tiles_of",
]  # fmt: skip

BINS = 64
"""Bins of the histogram of ULP errors: bin 0 holds errors of 0, bin b those from 2**(b - 17) to below 2**(b - 16), the
last one all beyond."""

WORST = 8
"""Elements that are named."""

MAP = 16
"""Most rows and columns of a heat map."""

_TILE = 32
_CHUNK = 256

_PART, _SHARED = 2048, 32768
"""Elements from which torch shares square roots, and other operations, among threads."""


@dataclass(frozen=True)
class Errors:
    """One tensor's error figures. A ULP is T's spacing at the reference; z is the excess over the final rounding, in
    sigmas.

    relative_l2: norm of the error over that of the reference.
    bias: mean of (y - reference) / sigma, positive for results that are too large in magnitude.
    balance: elements that are too large minus those too small, as a share of the misrounded ones.
    misrounded: share of elements that are not the reference rounded.
    z_rms, z_tile, z_max: root mean square z of the tensor and of the worst tile, and the largest z.
    p50, p99, p9999, maximum: quantiles of the errors in ULP.
    ulp_histogram: see BINS.
    worst: (flat index, y, reference) of the largest z.
    tiles: root mean square z of up to 16 x 16 regions.
    classes: how many elements are NaN, infinite, ... where the reference is not, by name.
    """

    elements: int
    relative_l2: float = 0.0
    bias: float = 0.0
    balance: float = 0.0
    misrounded: float = 0.0
    z_rms: float = 0.0
    z_tile: float = 0.0
    z_max: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    p9999: float = 0.0
    maximum: float = 0.0
    ulp_histogram: tuple[int, ...] = (0,) * BINS
    worst: tuple[tuple[int, float, float], ...] = ()
    tiles: tuple[tuple[float, ...], ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Scaled:
    """Errors of each element.

    z: 0 where classes differ or nothing is finite.
    signs: of errors beyond rounding, +1 for too large in magnitude.
    finite: where y and reference are both finite.
    """

    z: torch.Tensor
    signs: torch.Tensor
    finite: torch.Tensor

    @property
    def figures(self) -> tuple[float, float, float, float]:
        """``z_rms``, ``z_tile``, ``z_max`` and ``bias`` of Errors; of one element at least."""
        rms = float(self.z.square().mean().sqrt())
        return rms, float(tiles_of(self.z).max()), float(self.z.max()), float((self.signs * self.z).mean())


def excess(y: torch.Tensor, reference: torch.Tensor, format_: FloatFormat) -> torch.Tensor:
    """How far each reference is outside the interval of reals that round to y, float64; 0 where y is it, rounded.

    ``y``: values of ``format_``, as float64. Meaningless where either is not finite.
    """
    gap = spacing(y, format_)
    mantissa, _ = torch.frexp(y.abs())
    # Below a power of two the neighbours are half as far, but for the smallest normal and what is below.
    inward = (reference.abs() < y.abs()) & (mantissa == 0.5) & (y.abs() > 2.0**format_.least)
    gap = torch.where(inward, gap / 2, gap)
    return ((y - reference).abs() - gap / 2).clamp_min(0.0)


def scaled(y: torch.Tensor, reference: torch.Tensor, sigma: torch.Tensor) -> Scaled:
    """z of every element: its excess in sigmas. ``sigma`` must be above 0 wherever reference is finite."""
    format_ = format_of(y.dtype)
    wide = y.to(torch.float64)
    finite = torch.isfinite(wide) & torch.isfinite(reference)
    zero = torch.zeros((), dtype=torch.float64)
    wide, reference = torch.where(finite, wide, zero), torch.where(finite, reference, zero)
    over = excess(wide, reference, format_)
    z = torch.where(finite, over / sigma, zero)
    z = torch.nan_to_num(z, nan=0.0, posinf=float("inf"))
    outward = torch.sign(wide - reference) * torch.where(reference == 0, torch.sign(wide), torch.sign(reference))
    return Scaled(z, torch.where(over > 0, outward, zero), finite)


def measure(
    y: torch.Tensor, reference: torch.Tensor, sigma: torch.Tensor, classes: Mapping[str, int] | None = None
) -> Errors:
    """Every figure of one tensor. ``classes`` as ``torchport.numerics.verdicts.classes`` counts them."""
    n = y.numel()
    if n == 0:
        return Errors(0, classes=dict(classes or {}))
    found = scaled(y, reference, sigma)
    format_ = format_of(y.dtype)
    zero = torch.zeros((), dtype=torch.float64)
    error = torch.where(found.finite, y.to(torch.float64) - reference, zero)
    finite = torch.where(found.finite, reference, zero)
    ulps = error.abs() / spacing(finite, format_)
    size = float(torch.linalg.vector_norm(finite))
    wrong = float(torch.linalg.vector_norm(error))
    signs = found.signs
    misrounded = int(torch.count_nonzero(signs))
    flat = found.z.reshape(-1)
    top = torch.topk(flat, min(WORST, n)).indices
    values, expected = y.reshape(-1).to(torch.float64), reference.reshape(-1)
    quantiles = _quantiles(ulps.reshape(-1))
    rms, tile, largest, bias = found.figures
    return Errors(
        elements=n,
        relative_l2=wrong / size if size else (math.inf if wrong else 0.0),
        bias=bias,
        balance=float(signs.sum()) / misrounded if misrounded else 0.0,
        misrounded=misrounded / n,
        z_rms=rms,
        z_tile=tile,
        z_max=largest,
        p50=quantiles[0],
        p99=quantiles[1],
        p9999=quantiles[2],
        maximum=float(ulps.max()),
        ulp_histogram=_histogram(ulps),
        worst=tuple((int(i), float(values[i]), float(expected[i])) for i in top if float(flat[i]) > 0),
        tiles=_map(found.z),
        classes=dict(classes or {}),
    )


def relative_l2(error: torch.Tensor, size: torch.Tensor) -> float:
    """L2 norm of ``error`` in units of that of ``size``; infinite if ``error`` is not finite where ``size`` is."""
    finite = torch.isfinite(size)
    wrong = torch.where(finite, error, torch.zeros((), dtype=error.dtype))
    top, bottom = float(torch.linalg.vector_norm(wrong)), float(torch.linalg.vector_norm(size[finite]))
    if not math.isfinite(top):
        return math.inf
    return top / bottom if bottom else (math.inf if top else 0.0)


def same_bits(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    """Whether two tensors hold the same bits in the same order: -0.0 is not 0.0, and NaNs may differ."""
    if b is None or a.dtype != b.dtype or a.numel() != b.numel():
        return False
    flat = [one.contiguous().reshape(-1) for one in (a, b)]
    return torch.equal(*(one.view(torch.uint8) if one.numel() else one for one in flat))


def root(values: torch.Tensor) -> torch.Tensor:
    """The square root of float64 values, the bits of ``torch.sqrt``.

    That divides 2,048 elements and more among threads, which wait for each other much longer than they compute: other
    operations begin with 32,768. Where processors are busy, one root of 2,432 elements takes 1.4 ms in place of 20 us.
    """
    if not _PART < values.numel() <= _SHARED:
        return values.sqrt()
    return torch.cat([part.sqrt() for part in values.reshape(-1).split(_PART)]).reshape(values.shape)


def tile_shape(shape: torch.Size | tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a tile of a tensor that is seen as a matrix with its last dimension as columns."""
    columns = shape[-1] if shape else 1
    rows = math.prod(shape[:-1]) if len(shape) > 1 else 1
    if rows == 1:
        return 1, min(columns, _CHUNK)
    if columns == 1:
        return min(rows, _CHUNK), 1
    return min(rows, _TILE), min(columns, _TILE)


def tiles_of(z: torch.Tensor) -> torch.Tensor:
    """Root mean square of z in every tile, as a matrix. What is beyond the edge does not count."""
    rows, columns = tile_shape(z.shape)
    return _pooled(z, rows, columns)


def _pooled(z: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    if z.dim() < 2:
        matrix = z.reshape(1, -1)
    elif z.shape[-1] == 1:
        matrix = z.reshape(-1, 1)
    else:
        matrix = z.reshape(-1, z.shape[-1])
    height, width = -(-matrix.shape[0] // rows) * rows, -(-matrix.shape[1] // columns) * columns
    padding = (0, width - matrix.shape[1], 0, height - matrix.shape[0])
    squares = torch.nn.functional.pad(matrix.square(), padding)
    ones = torch.nn.functional.pad(torch.ones_like(matrix), padding)
    blocks = (height // rows, rows, width // columns, columns)
    total, count = squares.reshape(blocks).sum((1, 3)), ones.reshape(blocks).sum((1, 3))
    return (total / count).sqrt()


def _map(z: torch.Tensor) -> tuple[tuple[float, ...], ...]:
    """z over at most MAP x MAP regions of equal size."""
    width = z.shape[-1] if z.dim() else 1
    height = z.numel() // width if width else 0
    pooled = _pooled(z, max(1, -(-height // MAP)), max(1, -(-width // MAP)))
    return tuple(tuple(float(f"{value:.4g}") for value in row) for row in pooled.tolist())


def _histogram(ulps: torch.Tensor) -> tuple[int, ...]:
    finite = torch.nan_to_num(ulps, posinf=2.0**60).reshape(-1)
    _, exponents = torch.frexp(finite)
    bins = torch.where(finite == 0, 0, exponents.to(torch.int64) + 16).clamp(0, BINS - 1)
    bins = torch.where((finite > 0) & (bins == 0), 1, bins)
    return tuple(torch.bincount(bins, minlength=BINS).tolist())


def _quantiles(values: torch.Tensor) -> tuple[float, float, float]:
    """The 50, 99 and 99.99 % quantiles: the smallest value that so many do not exceed."""
    ordered = values.sort().values
    last = ordered.numel() - 1
    return tuple(float(ordered[min(last, math.ceil(q * ordered.numel()) - 1)]) for q in (0.5, 0.99, 0.9999))  # type: ignore[return-value]
