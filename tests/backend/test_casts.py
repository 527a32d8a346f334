"""Conversions between every pair of dtypes: rounding to nearest even, overflow to infinity, wrap-around, NaN."""

from __future__ import annotations

import math

import pytest
import torch
from inputs import FLOATS, INTEGERS, PRIME, dtype_id, every_magnitude, integers
from opcheck import Family, Op, check

pytestmark = pytest.mark.usefixtures("no_fallback")

EVERY = (*FLOATS, *INTEGERS, torch.bool)


def casts(targets: tuple[torch.dtype, ...]) -> Family:
    return {f"to {dtype_id(t)}": Op(lambda x, t=t: x.to(t), ulps=0) for t in targets}


@pytest.mark.parametrize("source", FLOATS, ids=dtype_id)
def test_float_to_float(source: torch.dtype, compile_backend: str) -> None:
    """Every magnitude, and ties: numbers halfway between two neighbours of the smaller dtype."""
    ties = 1 + torch.arange(-40, 40, dtype=torch.float64) * 2.0**-12
    x = torch.cat([every_magnitude(source), ties.to(source), (ties * 65504).to(source), (ties * 2.0**-24).to(source)])
    check(casts((*FLOATS, torch.bool)), (x,), compile_backend)


@pytest.mark.parametrize("source", FLOATS, ids=dtype_id)
def test_float_to_integer_truncates(source: torch.dtype, compile_backend: str) -> None:
    """Numbers in range, both signs, fractions toward zero. Out of range is undefined in eager too, uint8 apart."""
    for target in INTEGERS:
        info = torch.iinfo(target)
        largest = min(info.max / 2, torch.finfo(source).max / 2)
        low = -largest if info.min < 0 else 0.0
        x = torch.empty(PRIME, dtype=torch.float64).uniform_(low, largest)
        x[:6] = torch.tensor([0.0, -0.0, 0.99, 1.5, 2.5, 3.999])
        if info.min < 0:
            x[6:9] = torch.tensor([-0.99, -1.5, -2.5])
        check(casts((target,)), (x.to(source),), compile_backend)


def test_negative_float_to_uint8_wraps(compile_backend: str) -> None:
    """c10 converts through int64, so that eager's -1.0 becomes 255 on every machine."""
    check(casts((torch.uint8,)), (torch.tensor([-1.0, -2.5, -128.0, 255.0, 256.0, 300.7, -1000.0]),), compile_backend)


@pytest.mark.parametrize("source", [*INTEGERS, torch.bool], ids=dtype_id)
def test_integer_to_everything(source: torch.dtype, compile_backend: str) -> None:
    """Narrowing wraps, widening keeps the sign, floats round to nearest even."""
    x = torch.rand(PRIME) < 0.5 if source == torch.bool else integers(source, (PRIME,))
    check(casts(EVERY), (x,), compile_backend)


def test_round_trips_inside_one_kernel(compile_backend: str) -> None:
    """A cast down and up again is a rounding that must not be optimised away where it is the result."""
    family: Family = {
        "through int": Op(lambda x: x.to(torch.int32).to(torch.float32), ulps=0),
        "through int8": Op(lambda x: x.to(torch.int32).to(torch.int8).to(torch.float32), ulps=0),
        "through bool": Op(lambda x: x.to(torch.bool).to(torch.float32), ulps=0),
        "bits": Op(lambda x: x.view(torch.int32)),
        "bits and back": Op(lambda x: (x.view(torch.int32) ^ 1).view(torch.float32).isnan()),
    }
    x = 1000 * torch.randn(PRIME)
    x[:2] = torch.tensor([0.0, -0.0])
    check(family, (x,), compile_backend)


def test_not_a_number_to_bool(compile_backend: str) -> None:
    check(casts((torch.bool,)), (torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45]),), compile_backend)
