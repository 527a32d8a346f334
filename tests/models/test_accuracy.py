"""The judge itself: what must pass passes, and each kind of fault is found."""

from __future__ import annotations

import math

import pytest
import torch
from accuracy import InFloat64, compare

REFERENCE = torch.randn(64, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EAGER = (REFERENCE * (1 + 3e-7 * torch.randn(64, 48, dtype=torch.float64))).float()


def fault(kind: str) -> torch.Tensor:
    x = EAGER.clone()
    if kind == "one element":
        x[63, 47] += 1e-4
    elif kind == "a bias":
        x *= 1 + 2e-6
    elif kind == "a dropped tail":
        x[:, 47] = 0
    elif kind == "NaN":
        x[0, 0] = math.nan
    elif kind == "inf":
        x[0, 0] = math.inf
    elif kind == "dtype":
        return x.double()
    elif kind == "shape":
        return x[:, :47]
    elif kind == "precision":
        return x.bfloat16().float()
    return x


def test_eager_and_a_rounded_reference_pass() -> None:
    for good in (EAGER, REFERENCE.float()):
        assert compare({"x": good}, {"x": EAGER}, {"x": REFERENCE}) == []


@pytest.mark.parametrize(
    "kind", ["one element", "a bias", "a dropped tail", "NaN", "inf", "dtype", "shape", "precision"]
)
def test_faults_are_found(kind: str) -> None:
    assert compare({"x": fault(kind)}, {"x": EAGER}, {"x": REFERENCE})


def test_a_fault_in_one_of_many_tensors_is_found() -> None:
    eager = {f"x{i}": EAGER for i in range(50)}
    wrong = {**eager, "x7": fault("a bias")}
    assert any("x7" in line for line in compare(wrong, eager, {name: REFERENCE for name in eager}))


def test_reference_ignores_written_downcasts() -> None:
    x = torch.rand(16, dtype=torch.float64)
    with InFloat64():
        y = x.to(torch.float32).exp().to(torch.bfloat16)
    assert y.dtype == torch.float64
    assert torch.equal(y, x.exp())
