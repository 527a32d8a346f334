"""Functions of two registers in a step (code of the level avx2), at lengths that fill none, one or both of them."""

from __future__ import annotations

import math

import pytest
import torch
from torchport_cpu.levels import has_level, levels

pytestmark = pytest.mark.skipif("avx2" not in levels() or not has_level("avx2"), reason="no AVX2")

SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-40, 3.4e38, -104.5, 88.9, 0.925, -4.0]


def functions(x: torch.Tensor) -> list[torch.Tensor]:
    return [torch.erf(x), torch.exp(x), torch.tanh(x), torch.log(x.abs()), torch.expm1(x)]


@pytest.mark.parametrize("shape", [(1021,), (5, 23), (7,)], ids=str)
def test_lengths(shape: tuple[int, ...]) -> None:
    """Within one unit of the last place of float64's, and NaN and infinities where these are."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    x.view(-1)[: len(SPECIAL)] = torch.tensor(SPECIAL)[: x.numel()]
    found = torch.compile(functions, backend="torchport", dynamic=False, options={"target": "cpu:x86_64:avx2"})(x)
    for ours, exact in zip(found, functions(x.double()), strict=True):
        kept = exact.abs() < 3.4e38
        error = (ours.double() - exact).abs()
        assert (error[kept] <= 2.0**-23 * exact.abs()[kept] + 2.0**-149).all()
        assert torch.equal(ours.isnan(), exact.isnan())
        assert torch.equal(ours[exact.isinf()].double(), exact[exact.isinf()])
