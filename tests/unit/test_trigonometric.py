"""sin and cos of f32: errors where reductions go wrong, and both functions of one value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("mlir")

from torchport_passes.scalar.lower_casts import LowerCasts
from torchport_passes.scalar.lower_math import LowerMath
from torchport_passes.scalar.mathlib.harness import compile_elementwise, host_vector_bits

PASSES = [LowerMath(host_vector_bits()), LowerCasts()]
FAR = 2**16 * np.pi / 2
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3e-30, -1e-12, 3.4e38, -3.4e38]


def compiled(body: str, lanes: int = 16):
    return compile_elementwise(body, ["f32"], "f32", PASSES, lanes=lanes)


def arguments() -> np.ndarray:
    """Multiples of pi/2 and of pi/4 with their neighbours, the last arguments before the call, all magnitudes."""
    random = np.random.default_rng(3)
    eighths = np.concatenate([np.arange(1, 3000), random.integers(3000, 4 * 2**16, 20000)]) * (np.pi / 4)
    nearest = eighths.astype(np.float32)
    neighbours = [nearest, *(np.nextafter(nearest, np.float32(end)) for end in (0, np.inf))]
    edge = np.float32(FAR) + np.arange(-64, 64, dtype=np.float32) / 64
    spread = np.exp(random.uniform(-12, np.log(2 * FAR), 1 << 17)).astype(np.float32)
    x = np.concatenate([np.resize(np.array(SPECIAL, np.float32), 48), *neighbours, edge, spread])
    x = np.concatenate([x, -x])
    return x[: x.size // 240 * 240]


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_errors(name: str) -> None:
    x = arguments()
    exact = getattr(torch, name)(torch.from_numpy(x).double()).numpy()
    got = compiled(f"%r = math.{name} %a : R")(x)
    assert (np.isnan(got) == ~np.isfinite(x)).all()
    with np.errstate(invalid="ignore"):
        rounded = exact.astype(np.float32)
        error = np.abs(got - exact) / np.spacing(np.abs(rounded))
    near = np.abs(x) < FAR - 1
    assert error[near].max() <= 0.88
    assert np.nanmax(error[~near]) <= 1.0
    zero = x == 0
    assert (np.signbit(got[zero]) == np.signbit(rounded[zero])).all()


@pytest.mark.parametrize("lanes", [0, 3, 8, 16, 32, 48])
def test_both_of_one_value_have_the_bits_of_each(lanes: int) -> None:
    x = arguments()[: 240 * 64]
    sine, cosine = (compiled(f"%r = math.{name} %a : R")(x) for name in ("sin", "cos"))
    for first, second in (("sin", "cos"), ("cos", "sin")):
        body = f"%x = math.{first} %a : R\n%y = math.{second} %a : R\n%r = arith.subf %x, %y : R"
        difference = sine - cosine if first == "sin" else cosine - sine
        assert np.array_equal(compiled(body, lanes)(x), difference, equal_nan=True)
