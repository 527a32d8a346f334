"""Every function of ``triton.language.extra.libdevice`` and ``tl.math``, against mpmath or exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from kernel_text import call
from torchport_passes.frontend import libdevice

COUNT = 32
TYPES = {"fp32": torch.float32, "fp64": torch.float64, "int32": torch.int32, "uint32": torch.uint32,
         "int64": torch.int64, "uint64": torch.uint64, "int1": torch.bool}  # fmt: skip
mp = mpmath.mp.clone()
mp.prec = 160

# function -> (reference, lowest and highest argument). ULP bounds are those of docs/math.md; 2 where it has none.
UNARY: dict[str, tuple[Callable[[Any], Any], float, float]] = {
    "acos": (mp.acos, -1, 1), "acosh": (mp.acosh, 1, 900), "asin": (mp.asin, -1, 1), "asinh": (mp.asinh, -90, 90),
    "atan": (mp.atan, -90, 90), "atanh": (mp.atanh, -0.99, 0.99), "cos": (mp.cos, -90, 90), "cosh": (mp.cosh, -80, 80),
    "cospi": (mp.cospi, -9, 9), "cyl_bessel_i0": (lambda x: mp.besseli(0, x), -30, 30),
    "cyl_bessel_i1": (lambda x: mp.besseli(1, x), -30, 30), "erf": (mp.erf, -3, 3), "erfc": (mp.erfc, -3, 9),
    "erfcinv": (lambda x: mp.erfinv(1 - x), 0.01, 1.9), "erfcx": (lambda x: mp.exp(x * x) * mp.erfc(x), -3, 30),
    "erfinv": (mp.erfinv, -0.99, 0.99), "exp": (mp.exp, -80, 80), "exp10": (lambda x: mp.mpf(10) ** x, -30, 30),
    "exp2": (lambda x: mp.mpf(2) ** x, -100, 100), "expm1": (mp.expm1, -5, 80), "j0": (mp.j0, 0, 2),
    "j1": (mp.j1, 0.1, 3), "lgamma": (mp.loggamma, 3, 90), "log": (mp.log, 1e-6, 900), "log10": (mp.log10, 1e-6, 900),
    "log1p": (mp.log1p, -0.9, 900), "log2": (lambda x: mp.log(x, 2), 1e-6, 900), "normcdf": (mp.ncdf, -9, 5),
    "normcdfinv": (lambda p: mp.sqrt(2) * mp.erfinv(2 * p - 1), 0.01, 0.99), "sin": (mp.sin, -90, 90),
    "rsqrt": (lambda x: 1 / mp.sqrt(x), 1e-6, 900), "sinh": (mp.sinh, -80, 80), "sinpi": (mp.sinpi, -9, 9),
    "sqrt": (mp.sqrt, 0, 900), "tan": (mp.tan, -90, 90), "tanh": (mp.tanh, -9, 9), "tgamma": (mp.gamma, 0.1, 30),
    "cbrt": (lambda x: mp.sign(x) * mp.cbrt(abs(x)), -900, 900), "y0": (lambda x: mp.bessely(0, x), 1.2, 3.5),
    "rcbrt": (lambda x: mp.sign(x) / mp.cbrt(abs(x)), 1e-3, 900), "y1": (lambda x: mp.bessely(1, x), 0.1, 1.5),
    "ceil": (mp.ceil, -90, 90), "floor": (mp.floor, -90, 90), "nearbyint": (lambda x: mp.mpf(round(float(x))), -90, 90),
    "rint": (lambda x: mp.mpf(round(float(x))), -90, 90), "trunc": (lambda x: mp.mpf(math.trunc(float(x))), -90, 90),
    "round": (lambda x: mp.sign(x) * mp.floor(abs(x) + 0.5), -90, 90), "abs": (abs, -90, 90),
    "logb": (lambda x: mp.mpf(math.frexp(float(x))[1] - 1), 1e-6, 900),
}  # fmt: skip
FAST = {"fast_cosf": "cos", "fast_exp10f": "exp10", "fast_expf": "exp", "fast_log10f": "log10", "fast_log2f": "log2",
        "fast_logf": "log", "fast_sinf": "sin", "fast_tanf": "tan", "fast_tanhf": "tanh",
        "rsqrt_rn": "rsqrt"}  # fmt: skip
BOUNDS = {("erfcx", "fp64"): 5.0, ("cyl_bessel_i0", "fp64"): 4.0, ("cyl_bessel_i1", "fp64"): 4.0,
          ("normcdf", "fp64"): 2.0, ("normcdfinv", "fp64"): 2.0, ("erfinv", "fp64"): 2.0, ("erfcinv", "fp64"): 2.0,
          ("rcbrt", "fp64"): 2.0, ("asinh", "fp64"): 2.0, ("acosh", "fp64"): 2.0,
          ("j0", ""): 4.0, ("j1", ""): 4.0, ("y0", ""): 4.0, ("y1", ""): 5.0}  # fmt: skip
SEVERAL: dict[str, tuple[Callable[..., Any], float, float]] = {
    "atan2": (mp.atan2, -9, 9), "fmod": (lambda x, y: mp.mpf(math.fmod(x, y)), -9, 9),
    "hypot": (mp.hypot, -9, 9), "rhypot": (lambda x, y: 1 / mp.hypot(x, y), 0.1, 9),
    "remainder": (lambda x, y: mp.mpf(math.remainder(x, y)), -9, 9),
    "copysign": (lambda x, y: mp.mpf(math.copysign(x, y)), -9, 9), "fdim": (lambda x, y: max(x - y, mp.mpf(0)), -9, 9),
    "fast_dividef": (lambda x, y: x / y, 0.1, 9), "fast_powf": (lambda x, y: x**y, 0.1, 9),
    "pow": (lambda x, y: x**y, 0.1, 9),
    "fma": (lambda x, y, z: x * y + z, -9, 9), "norm3d": (lambda *v: mp.sqrt(sum(x * x for x in v)), -9, 9),
    "norm4d": (lambda *v: mp.sqrt(sum(x * x for x in v)), -9, 9),
    "rnorm3d": (lambda *v: 1 / mp.sqrt(sum(x * x for x in v)), 0.1, 9),
    "rnorm4d": (lambda *v: 1 / mp.sqrt(sum(x * x for x in v)), 0.1, 9),
}  # fmt: skip


def ulps(got: torch.Tensor, exact: list[Any]) -> float:
    """The largest error in units of the last place of the exact value."""
    digits, least = (24, -149) if got.dtype == torch.float32 else (53, -1074)
    errors = []
    for value, wanted in zip(got.double().tolist(), exact, strict=True):
        wanted = mp.mpf(wanted)
        unit = (
            mp.mpf(2) ** max(int(mp.floor(mp.log(abs(wanted), 2))) + 1 - digits, least)
            if wanted
            else mp.mpf(2) ** least
        )
        errors.append(float(abs(mp.mpf(value) - wanted) / unit))
    return max(errors)


def draw(low: float, high: float, dtype: torch.dtype, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).uniform(low, high, COUNT)
    return torch.from_numpy(values).to(dtype)


@pytest.mark.cpu_only("Bessel functions are the C library's")
@pytest.mark.parametrize("kind", ["fp32", "fp64"])
@pytest.mark.parametrize("part", range(4))
def test_functions_of_one_number(part: int, kind: str) -> None:
    names = sorted([*UNARY, *(FAST if kind == "fp32" else ())])[part::4]
    dtype = TYPES[kind]
    tables = {n: UNARY[FAST.get(n, n)] for n in names}
    cases = {
        n: (f"libdevice.{n}", [draw(low, high, dtype, i)], dtype)
        for i, (n, (_, low, high)) in enumerate(tables.items())
    }
    for name, got in call(cases):
        function, x = tables[name][0], cases[name][1][0]
        bound = BOUNDS.get((name, kind), BOUNDS.get((name, ""), 1.51))
        assert ulps(got, [function(mp.mpf(v)) for v in x.tolist()]) <= bound, name


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_functions_of_several_numbers(kind: str) -> None:
    dtype, cases = TYPES[kind], {}
    for name, (_, low, high) in SEVERAL.items():
        for arguments, _ in libdevice._OVERLOADS[name]:
            types = arguments.split()
            if set(types) == {kind}:
                cases[name] = (f"libdevice.{name}", [draw(low, high, dtype, i) for i in range(len(types))], dtype)
    for name, got in call(cases):
        rows = zip(*(x.tolist() for x in cases[name][1]), strict=True)
        exact = [SEVERAL[name][0](*map(mp.mpf, row)) for row in rows]
        assert ulps(got, exact) <= (1.51 if kind == "fp32" else 2.01), name


@pytest.mark.cpu_only("Bessel functions are the C library's")
@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_integer_arguments_and_results(kind: str) -> None:
    dtype = TYPES[kind]
    n = torch.arange(COUNT, dtype=torch.int32) - 16
    x = draw(0.5, 9, dtype, 1)
    signed = x * (n % 2 * 2 - 1) * 1.37
    orders = n.abs() % 5
    cases = {
        "ldexp": ("libdevice.ldexp", [x, n * 20], dtype), "scalbn": ("libdevice.scalbn", [x, n * 20], dtype),
        "pow": ("libdevice.pow", [x, n], dtype), "jn": ("libdevice.jn", [orders, x + 3], dtype),
        "yn": ("libdevice.yn", [orders, x + 8], dtype), "ilogb": ("libdevice.ilogb", [x], torch.int32),
        "llrint": ("libdevice.llrint", [signed], torch.int64), "llround": ("libdevice.llround", [signed], torch.int64),
    }  # fmt: skip
    rows = list(zip(x.tolist(), n.tolist(), strict=True))
    for name, got in call(cases):
        if name in ("ldexp", "scalbn"):
            wanted = torch.tensor([math.ldexp(v, 20 * k) for v, k in rows], dtype=torch.float64).to(dtype)
            assert torch.equal(got, wanted), name
        elif name == "pow":
            assert ulps(got, [mp.mpf(v) ** k for v, k in rows]) <= 1.01
        elif name in ("jn", "yn"):
            function, shift = (mp.besselj, 3) if name == "jn" else (mp.bessely, 8)
            exact = [function(k, mp.mpf(v)) for k, v in zip(orders.tolist(), (x + shift).tolist(), strict=True)]
            np.testing.assert_allclose(got.double().numpy(), np.array(exact, float), rtol=0,
                                       atol=4e-7 if kind == "fp32" else 1e-15)  # fmt: skip
        elif name == "ilogb":
            assert got.tolist() == [math.frexp(v)[1] - 1 for v in x.tolist()]
        else:
            away = [int(math.copysign(math.floor(abs(v) + 0.5), v)) for v in signed.double().tolist()]
            assert got.tolist() == (away if name == "llround" else [round(v) for v in signed.tolist()])


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_math_of_the_language(kind: str) -> None:
    dtype = TYPES[kind]
    functions = {"exp": "exp", "exp2": "exp2", "log": "log", "log2": "log2", "sin": "sin", "cos": "cos", "sqrt": "sqrt",
                 "rsqrt": "rsqrt", "erf": "erf", "floor": "floor", "ceil": "ceil"}  # fmt: skip
    cases = {n: (f"tl.{n}", [draw(*UNARY[n][1:], dtype, 3)], dtype) for n in functions}
    cases["sigmoid"] = ("tl.sigmoid", [draw(-30, 30, dtype, 3)], dtype)
    if kind == "fp32":
        cases["sqrt_rn"] = ("tl.sqrt_rn", [draw(0, 9, dtype, 3)], dtype)
        cases["div_rn"] = ("tl.div_rn", [draw(-9, 9, dtype, 3), draw(1, 9, dtype, 4)], dtype)
    cases["fdiv"] = ("tl.fdiv", [draw(-9, 9, dtype, 3), draw(1, 9, dtype, 4)], dtype)
    extra = {"sigmoid": lambda x: 1 / (1 + mp.exp(-x)), "sqrt_rn": mp.sqrt, "div_rn": lambda x, y: x / y,
             "fdiv": lambda x, y: x / y}  # fmt: skip
    for name, got in call(cases):
        function = extra.get(name) or UNARY[name][0]
        exact = [function(*map(mp.mpf, row)) for row in zip(*(x.tolist() for x in cases[name][1]), strict=True)]
        # three roundings in a sigmoid
        bound = 0.501 if name in ("sqrt_rn", "div_rn", "fdiv", "sqrt") else 3.0 if name == "sigmoid" else 1.51
        assert ulps(got, exact) <= bound, name
