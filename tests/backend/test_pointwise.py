"""Floating-point pointwise operations: every dtype, every magnitude, NaN, infinities, subnormals and -0.0."""

from __future__ import annotations

import pytest
import torch
from inputs import FLOAT_CASES, dtype_id, every_magnitude, pairs, special
from opcheck import Family, Op, check
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("no_fallback")

dtypes = pytest.mark.parametrize("dtype", FLOAT_CASES, ids=dtype_id)

EXPONENTIAL: Family = {
    "exp": Op(torch.exp),
    "exp2": Op(torch.exp2),
    "expm1": Op(torch.expm1),
    "log": Op(torch.log),
    "log2": Op(torch.log2),
    "log10": Op(torch.log10),
    "log1p": Op(torch.log1p),
    "sqrt": Op(torch.sqrt, ulps=0.5),
    "rsqrt": Op(torch.rsqrt, ulps=2),
    "reciprocal": Op(torch.reciprocal, ulps=0.5),
    "square": Op(torch.square, ulps=0.5),
    "pow3": Op(lambda x: x**3, ulps=2),
    # Inductor lowers a power of 0.5 to sqrt, which differs at -inf and -0.0.
    "pow0.5": Op(lambda x: x.abs() ** 0.5),
    # Eager squares first: 0 where the result is a subnormal of float64.
    "pow-2": Op(lambda x: x**-2, ulps=2, exact=lambda x: (1 / x) * (1 / x)),
    "pow2.5": Op(lambda x: x**2.5),
}
TRIGONOMETRIC: Family = {
    name: Op(getattr(torch, name))
    for name in (
        "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"
    )
}  # fmt: skip
ROUNDING: Family = {
    "abs": Op(torch.abs, ulps=0),
    "neg": Op(torch.neg, ulps=0),
    "floor": Op(torch.floor, ulps=0),
    "ceil": Op(torch.ceil, ulps=0),
    "trunc": Op(torch.trunc, ulps=0),
    "round half to even": Op(torch.round, ulps=0),
    "frac": Op(torch.frac, ulps=0),
    "sign": Op(torch.sign, ulps=0),
    "sgn": Op(torch.sgn, ulps=0),
    "signbit": Op(torch.signbit),
    "isnan": Op(torch.isnan),
    "isinf": Op(torch.isinf),
    "isfinite": Op(torch.isfinite),
    "isposinf": Op(torch.isposinf),
    "logical_not": Op(torch.logical_not),
    "nan_to_num": Op(torch.nan_to_num, ulps=0),
    "nan_to_num values": Op(lambda x: torch.nan_to_num(x, nan=1.5, posinf=2.0, neginf=-3.0), ulps=0),
    "clamp": Op(lambda x: x.clamp(-1.5, 2.0), ulps=0),
    "clamp_min": Op(lambda x: x.clamp_min(0.25), ulps=0),
    "clamp_max": Op(lambda x: x.clamp_max(0.25), ulps=0),
}
# erf(x), tanh and exp inside an activation cancel against 1 where the result is small: the magnitude lost is that of x.
ACTIVATIONS: Family = {
    "relu": Op(F.relu, ulps=0),
    "relu6": Op(F.relu6, ulps=0, signed_zero=False),
    "leaky_relu": Op(lambda x: F.leaky_relu(x, 0.125), ulps=0.5),
    "elu": Op(F.elu, ulps=2),
    "celu": Op(lambda x: F.celu(x, 1.5), ulps=4),
    "selu": Op(F.selu, ulps=4),
    "sigmoid": Op(torch.sigmoid, ulps=3),
    "logsigmoid": Op(F.logsigmoid, ulps=3),
    "silu": Op(F.silu, ulps=4),
    # gelu(-x) is -0.0 where it vanishes: in float64, in PyTorch's own kernels and in the formula. Eager float32 is
    # oneDNN's, whose code for AVX2 gives 0.0 there, for -0.0 itself too.
    "gelu": Op(F.gelu, ulps=4, shadow=lambda x: x.clamp(-16, 0), exact_zero=True),
    "gelu tanh": Op(lambda x: F.gelu(x, approximate="tanh"), ulps=8, shadow=lambda x: 4 * x.clamp(-16, 0)),
    "softplus": Op(F.softplus, ulps=3),
    "mish": Op(F.mish, ulps=6),
    "hardtanh": Op(F.hardtanh, ulps=0, signed_zero=False),
    "hardswish": Op(F.hardswish, ulps=2),
    "hardsigmoid": Op(F.hardsigmoid, ulps=1, shadow=lambda x: torch.ones_like(x)),
    "softsign": Op(F.softsign, ulps=2),
    "erf": Op(torch.erf),
    "erfc": Op(torch.erfc, ulps=2),
}
SPECIAL_FUNCTIONS: Family = {
    "lgamma": Op(torch.lgamma, ulps=4, shadow=lambda x: 4 * torch.ones_like(x)),
    "digamma": Op(torch.digamma, ulps=4, shadow=lambda x: 8 * (1 + x.abs())),
    "erfinv of tanh": Op(lambda x: torch.erfinv(x.clamp(-0.9, 0.9)), ulps=4),
    "logit": Op(lambda x: torch.logit(x, eps=0.125), ulps=4, shadow=lambda x: 4 * torch.ones_like(x)),
    "i0": Op(torch.i0, ulps=8),
    "sinc": Op(torch.sinc, ulps=4, shadow=lambda x: 4 * torch.ones_like(x)),
}
BINARY: Family = {
    "add": Op(torch.add, ulps=0.5),
    "sub": Op(torch.sub, ulps=0.5),
    "mul": Op(torch.mul, ulps=0.5),
    "div": Op(torch.div, ulps=0.5),
    "maximum": Op(torch.maximum, ulps=0, signed_zero=False),
    "minimum": Op(torch.minimum, ulps=0, signed_zero=False),
    "fmax": Op(torch.fmax, ulps=0, signed_zero=False),
    "fmin": Op(torch.fmin, ulps=0, signed_zero=False),
    "copysign": Op(torch.copysign, ulps=0),
    "atan2": Op(torch.atan2),
    "hypot": Op(torch.hypot),
    "pow": Op(torch.pow),
    "where": Op(lambda x, y: torch.where(x > y, x, y), ulps=0),
    "logical_xor": Op(torch.logical_xor),
}
COMPARISONS: Family = {name: Op(getattr(torch, name)) for name in ("eq", "ne", "lt", "le", "gt", "ge", "isclose")}
# Quotients of a moderate range: fmod of 1e38 by 1e-38 is exact in eager, and not what Inductor promises.
DIVISION: Family = {
    "fmod": Op(torch.fmod, ulps=0),
    "remainder": Op(torch.remainder, ulps=0, shadow=lambda x, y: x.abs() + y.abs(), signed_zero=False),
    "div floor": Op(lambda x, y: torch.div(x, y, rounding_mode="floor"), ulps=0),
    "div trunc": Op(lambda x, y: torch.div(x, y, rounding_mode="trunc"), ulps=0),
    "floor_divide": Op(torch.floor_divide, ulps=0),
    "xlogy": Op(torch.xlogy, ulps=2),
    "logaddexp": Op(torch.logaddexp, ulps=2, shadow=lambda x, y: 2 + x.abs().maximum(y.abs())),
    "lerp": Op(lambda x, y: torch.lerp(x, y, 0.25), ulps=1, shadow=lambda x, y: 2 * (x.abs() + y.abs())),
    "addcmul": Op(lambda x, y: torch.addcmul(x, x, y, value=0.5), ulps=1, shadow=lambda x, y: x.abs() + (x * y).abs()),
    "addcdiv": Op(lambda x, y: torch.addcdiv(x, x, y, value=0.5), ulps=1, shadow=lambda x, y: x.abs() + (x / y).abs()),
}


@dtypes
@pytest.mark.parametrize(
    "family", [EXPONENTIAL, TRIGONOMETRIC, ROUNDING, ACTIVATIONS], ids=["exp", "trig", "round", "activation"]
)
def test_every_magnitude(family: Family, dtype: torch.dtype, compile_backend: str) -> None:
    check(family, (every_magnitude(dtype),), compile_backend)


@dtypes
def test_special_functions(dtype: torch.dtype, compile_backend: str) -> None:
    check(SPECIAL_FUNCTIONS, ((torch.rand(509, dtype=torch.float64) * 9 + 0.01).to(dtype),), compile_backend)


@dtypes
@pytest.mark.parametrize("family", [BINARY, COMPARISONS], ids=["arithmetic", "comparison"])
def test_pairs_of_special_values(family: Family, dtype: torch.dtype, compile_backend: str) -> None:
    check(family, pairs(torch.cat([special(dtype), torch.randn(8).to(dtype)])), compile_backend)


@dtypes
def test_division_and_composites(dtype: torch.dtype, compile_backend: str) -> None:
    x, y = 4 * torch.randn(2, 1009, dtype=torch.float64)
    y = torch.where(y.abs() < 0.1, 0.5, y)
    x[:6], y[:6] = torch.tensor([7.0, -7.0, 7.0, -7.0, 6.0, -6.0]), torch.tensor([3.0, 3.0, -3.0, -3.0, 3.0, -3.0])
    check(DIVISION, (x.to(dtype), y.to(dtype)), compile_backend)


@dtypes
def test_broadcast_and_zero_dimensional(dtype: torch.dtype, compile_backend: str) -> None:
    """A scalar tensor, a row, a column and an expanded tensor with one another."""
    family: Family = {
        "outer": Op(lambda s, r, c, e: r * c, ulps=0.5),
        "scalar": Op(lambda s, r, c, e: s * 2, ulps=0.5),
        "scalar promotes": Op(lambda s, r, c, e: (r * 3).floor() + s.double(), ulps=1),
        "expanded": Op(lambda s, r, c, e: e - c, ulps=0.5),
        "python scalar": Op(lambda s, r, c, e: 1.0 / (c.abs() + 1), ulps=1.5),
    }
    scalar, row, column = torch.tensor(1.5), torch.randn(1, 37), torch.randn(19, 1)
    values = [x.to(dtype) for x in (scalar, row, column)]
    check(family, (*values, torch.randn(1, 1).to(dtype).expand(19, 37)), compile_backend)
