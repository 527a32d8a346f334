"""Operands of dots that reach the edges of matrix units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["DISTRIBUTIONS", "DTYPES", "Dots", "draw"]

DTYPES = {
    "f16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32, "f32": torch.float32,
    "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "e4m3fnuz": torch.float8_e4m3fnuz,
    "e5m2fnuz": torch.float8_e5m2fnuz,
}  # fmt: skip
_RANGES = {  # exponents of the smallest number above zero, the smallest normal and the largest one
    torch.float16: (-24, -14, 15), torch.bfloat16: (-133, -126, 127), torch.float32: (-149, -126, 127),
    torch.float8_e4m3fn: (-9, -6, 8), torch.float8_e5m2: (-16, -14, 15), torch.float8_e4m3fnuz: (-10, -7, 7),
    torch.float8_e5m2fnuz: (-17, -15, 15),
}  # fmt: skip
_Draw = Callable[[np.random.Generator, tuple[int, int, int], tuple[int, int, int]], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Dots:
    """``a @ b + c``: [m, k], [k, n] of one type, [m, n] of f32 or f16."""

    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor

    def exact(self, *, cut: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All three in f64; ``cut``: operands are cut to tf32."""
        a, b = (_cut(one) if cut else one for one in (self.a, self.b))
        return a.double().numpy(), b.double().numpy(), self.c.double().numpy()


def draw(distribution: str, operands: str, shape: tuple[int, int, int], seed: int, *, half: bool = False) -> Dots:
    """``operands``: one of DTYPES, or two (``e4m3 e5m2``), of ``shape`` (m, n, k); the same for the same seed.

    ``half``: c is f16.
    """
    types = operands.split()
    first, second = DTYPES[types[0]], DTYPES[types[-1]]
    generator = np.random.default_rng([seed, *distribution.encode()])
    with np.errstate(all="ignore"):
        a, b, c = DISTRIBUTIONS[distribution](generator, shape, _RANGES[first])
        if second is not first:
            b = DISTRIBUTIONS[distribution](generator, shape, _RANGES[second])[1]
    c = np.where(generator.random(c.shape) < 0.4, 0.0, c)
    return Dots(_as(a, first), _as(b, second), _as(c, torch.float16 if half else torch.float32))


def _as(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(x.astype(np.float32)).to(dtype)


def _cut(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.isnan(), x, (x.view(torch.int32) >> 13 << 13).view(torch.float32))


def _scaled(generator: np.random.Generator, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of both signs whose exponents are drawn from ``low`` to ``high``."""
    numbers = (1 + generator.random(shape)) * generator.choice([-1.0, 1.0], shape)
    return np.ldexp(numbers, generator.integers(low, high + 1, shape))


def _randn(generator: np.random.Generator, shape: tuple[int, int, int], _: object) -> tuple[np.ndarray, ...]:
    m, n, k = shape
    a, b, c = (generator.standard_normal(one) for one in ((m, k), (k, n), (m, n)))
    return a, b, c * np.sqrt(k)


def _positive(generator: np.random.Generator, shape: tuple[int, int, int], _: object) -> tuple[np.ndarray, ...]:
    m, n, k = shape
    a, b, c = (generator.random(one) for one in ((m, k), (k, n), (m, n)))
    return a, b, c * k


def _mixed(
    generator: np.random.Generator, shape: tuple[int, int, int], limits: tuple[int, int, int]
) -> tuple[np.ndarray, ...]:
    """Magnitudes over most of what the type has, some zeros."""
    m, n, k = shape
    low, high = max(limits[1], -50), min(limits[2] - 2, 50)
    a, b = (_scaled(generator, low, high, one) for one in ((m, k), (k, n)))
    a[generator.random(a.shape) < 0.1] = 0.0
    return a, b, _scaled(generator, 2 * low, 2 * high, (m, n))


def _subnormal(
    generator: np.random.Generator, shape: tuple[int, int, int], limits: tuple[int, int, int]
) -> tuple[np.ndarray, ...]:
    """Operands around the smallest normal number, results around the smallest ones of sums; some zeros."""
    m, n, k = shape
    smallest, normal, largest = limits
    wide = largest > 100
    a = _scaled(generator, smallest - 1, normal + 3, (m, k))
    b = _scaled(generator, *((-40, 12) if wide else (smallest, normal + 12)), (k, n))
    rows = generator.random(m) < 0.5  # in the others products are near f32's smallest numbers
    a[rows] = _scaled(generator, max(smallest, -100), max(normal, -60), (int(rows.sum()), k))
    b[:, : n // 2] = np.ldexp(b[:, : n // 2], -40 if wide else 0)
    for one in (a, b):
        one[generator.random(one.shape) < 0.15] = 0.0
    a[: m // 3], b[:, n // 2 :] = _beside_a_step(generator, (m // 3, n - n // 2, k), wide)
    c = _scaled(generator, -149, -120, (m, n))
    return a, b, np.where(generator.random(c.shape) < 0.5, c, _scaled(generator, -26, -10, (m, n)))


def _beside_a_step(
    generator: np.random.Generator, shape: tuple[int, int, int], wide: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The first product is a step between the smallest numbers of sums, or half of one; the next three are far below.

    Whether these count decides how the sum is rounded. ``wide``: steps of f32, not of f16.
    """
    m, n, k = shape
    a, b = np.zeros((m, k)), np.zeros((k, n))
    a[:, 0], b[0] = np.ldexp(generator.integers(0, 4, m) * 2.0 + 1, -75 if wide else -17), 2.0**-74 if wide else 2.0**-8
    if wide:
        a[:, 1:4], b[1:4] = _scaled(generator, -93, -80, (m, 3)), 2.0**-74
    else:
        for one in (a[:, 1:4], b[1:4]):
            one[:] = np.ldexp(generator.integers(1, 8, one.shape) * generator.choice([-1.0, 1.0], one.shape), -24)
    a[:, 1:4][generator.random((m, 3)) < 0.4] = 0.0
    return a, b


def _cancelling(
    generator: np.random.Generator, shape: tuple[int, int, int], limits: tuple[int, int, int]
) -> tuple[np.ndarray, ...]:
    """Large terms, each of which another one takes away, between small ones."""
    m, n, k = shape
    top = min(limits[2] - 1, 14)
    a, b = (_scaled(generator, -3, 3, one) for one in ((m, k), (k, n)))
    b = np.ldexp(b, generator.integers(max(limits[1], -12), 1, (k, n)))
    order = generator.permutation(k)
    first, second = order[: k // 4], order[k // 4 : k // 2]
    a[:, first] = _scaled(generator, top - 2, top, (m, len(first)))
    b[first] = _scaled(generator, top - 4, top, (len(first), n))
    a[:, second], b[second] = -a[:, first], b[first]
    return a, b, _scaled(generator, 2 * top - 30, 2 * top, (m, n))


def _special(
    generator: np.random.Generator, shape: tuple[int, int, int], limits: tuple[int, int, int]
) -> tuple[np.ndarray, ...]:
    """Numbers near the largest; in some rows, columns and sums Inf, NaN, -0, the largest or the smallest number."""
    m, n, k = shape
    smallest, _, largest = limits
    a, b = (_scaled(generator, largest // 4, largest // 2 + 1, one) for one in ((m, k), (k, n)))
    a[: m // 3], b[:, : n // 3] = -0.0, np.abs(b[:, : n // 3])
    c = _scaled(generator, 100, 127, (m, n))
    values = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0, 2.0**largest, -(2.0**largest), 2.0**smallest])
    for one in (a, b.T):
        rows = generator.random(len(one)) < 0.5
        one[rows, generator.integers(0, k, rows.sum())] = generator.choice(values, rows.sum())
    chosen = generator.random(c.shape) < 0.2
    c[chosen] = generator.choice([np.inf, -np.inf, np.nan, -0.0, 3.4028234e38, -1e-45], chosen.sum())
    return a, b, c


def _bits(
    generator: np.random.Generator, shape: tuple[int, int, int], limits: tuple[int, int, int]
) -> tuple[np.ndarray, ...]:
    """Finite numbers of every exponent, as random bits have them."""
    m, n, k = shape
    smallest, _, largest = limits
    a, b = (_scaled(generator, smallest, largest - 1, one) for one in ((m, k), (k, n)))
    return a, b, _scaled(generator, -149, 126, (m, n))


DISTRIBUTIONS: dict[str, _Draw] = {
    "randn": _randn, "positive": _positive, "mixed": _mixed, "subnormal": _subnormal, "cancelling": _cancelling,
    "special": _special, "bits": _bits,
}  # fmt: skip
