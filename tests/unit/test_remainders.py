"""fmod of f32: quotients next to integers, at the end of the short way, and what has no quotient."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mlir")

from torchport_passes.scalar.lower_casts import LowerCasts
from torchport_passes.scalar.lower_math import LowerMath
from torchport_passes.scalar.mathlib.harness import compile_elementwise, host_vector_bits

PASSES = [LowerMath(host_vector_bits()), LowerCasts()]
SPECIAL = np.float32([0, np.inf, np.nan, 1e-45, 3e-39, 1.1754944e-38, 1, 0.1, 3, 16777216, 3.4028235e38])


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Dividends next to multiples of divisors of all magnitudes, denormal ones too; random bits; special values."""
    random = np.random.default_rng(5)

    def bits(count: int) -> np.ndarray:
        return random.integers(0, 1 << 31, count, dtype=np.uint32).view(np.float32)

    y = np.concatenate([bits(1 << 15), random.integers(1, 1 << 23, 1 << 13, dtype=np.uint32).view(np.float32)])
    times = np.exp2(random.uniform(-2, 26, y.size)).round()
    times[: y.size // 4] = 2**23 + random.integers(-3, 4, y.size // 4)
    with np.errstate(all="ignore"):
        x = (y.astype(np.float64) * times).astype(np.float32)
    near = [x, np.nextafter(x, np.float32(0)), np.nextafter(x, np.float32(np.inf))]
    grid = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1)
    x = np.concatenate([*near, bits(1 << 15), grid[0]])
    y = np.concatenate([y, y, y, bits(1 << 15), grid[1]])
    x, y = (np.concatenate([a, b, a, b]) for a, b in ((x, -x), (y, y)))
    y[y.size // 2 :] *= -1
    return x[: x.size // 48 * 48], y[: y.size // 48 * 48]


@pytest.mark.parametrize("lanes", [0, 3, 16, 48])
def test_fmod_is_exact(lanes: int) -> None:
    x, y = pairs()
    with np.errstate(invalid="ignore"):
        wanted = np.fmod(x, y)  # the C library's
    got = compile_elementwise('%r = "arith.remf"(%a, %b) : (T0, T1) -> R', ["f32"] * 2, "f32", PASSES, lanes=lanes)(
        x, y
    )
    same = (got.view(np.uint32) == wanted.view(np.uint32)) | (np.isnan(got) & np.isnan(wanted))
    assert same.all(), [(x[i], y[i], got[i], wanted[i]) for i in np.flatnonzero(~same)[:5]]
