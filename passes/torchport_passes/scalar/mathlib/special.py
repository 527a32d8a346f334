"""Inverse error functions, the normal distribution, scaled erfc and modified Bessel functions, in f64.

f32 arguments go through f64 and are rounded once. Formulas: Abramowitz and Stegun, Handbook of Mathematical Functions,
7.1 (erfc), 26.2 (normal distribution); inverses by Newton's method on Sleef's erf and erfc.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torchport_passes.scalar.mathlib.bessel_tables import I0_LARGE, I0_SMALL, I1_LARGE, I1_SMALL
from torchport_passes.scalar.mathlib.calls import Externals, Implementation
from torchport_passes.scalar.mathlib.composed import by_f64
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["SPECIAL"]

_INF = float("inf")
_HALF_SQRT_PI = 0.886226925452758
_INV_SQRT_PI = 0.5641895835477563
_SQRT2 = 1.4142135623730951
# 1 / sqrt(2) in two parts.
_RSQRT2, _RSQRT2_LOW = 0.7071067811865476, -4.833646656726457e-17
# Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011), single precision: the start of Newton's method.
_CENTRAL = (
    1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06,
    3.43273939e-07, 2.81022636e-08,
)  # fmt: skip
_TAIL = (
    2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322,
    0.000100950558, -0.000200214257,
)  # fmt: skip


def _horner(x: VectorValue, coefficients: Sequence[float]) -> VectorValue:
    total = x.const(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.fma(x, c)
    return total


def _inverse(externals: Externals, small: VectorValue, complement: VectorValue, central: VectorValue) -> VectorValue:
    """y >= 0 with erf(y) = small (where ``central``) or erfc(y) = complement, small + complement = 1, both in [0, 1].

    Newton's method from Giles's approximation; erfc keeps the relative accuracy where erf is close to one.
    """
    w = select(
        central, -externals.call("log1p", [-(small * small)]), -externals.call("log", [complement * (1.0 + small)])
    )
    # Giles's fit ends at w = 16.6. Beyond, erfc(y) = exp(-y^2) / (y sqrt(pi)) and w = -log(2 erfc(y)) give y.
    y = select(w.lt(5.0), _horner(w - 2.5, _CENTRAL) * small, _horner(w.sqrt() - 3.0, _TAIL) * small)
    y = select(w.gt(16.0), (w + 0.6931 - 0.5 * externals.call("log", [w * 3.1416])).sqrt(), y)
    for _ in range(3):
        e, c = externals.call("erf", [y]), externals.call("erfc", [y])
        # In the tail on log(erfc), whose slope is nearly linear: d/dy log erfc = -2/sqrt(pi) exp(-y^2) / erfc(y).
        density = externals.call("exp", [-(y * y)])
        step_central = (e - small) * _HALF_SQRT_PI / density
        step_tail = externals.call("log", [c / complement]) * c * _HALF_SQRT_PI / density
        y = select(central, y - step_central, y + step_tail)
    y = select(complement.eq(0.0), _INF, y)
    return select(small.eq(0.0), 0.0, y)


def _erfinv(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    (x,) = args
    a = x.abs()
    result = _inverse(externals, a, 1.0 - a, a.lt(0.5)).copysign(x)
    return select(a.le(1.0), result, float("nan"))


def _erfcinv(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    (x,) = args
    upper = x.gt(1.0)
    complement = select(upper, 2.0 - x, x)
    small = 1.0 - complement
    result = _inverse(externals, small, complement, small.lt(0.5))
    return select(x.ge(0.0) & x.le(2.0), select(upper, -result, result), float("nan"))


def _normcdfinv(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    return _erfcinv(externals, [args[0] * 2.0]) * -_SQRT2


def _normcdf(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    """erfc(-x / sqrt(2)) / 2; what rounding the argument lost is put back by erfc's derivative."""
    (x,) = args
    t = x * -_RSQRT2
    lost = select(x.abs().lt(40.0), x.fma(-_RSQRT2_LOW, x.fma(-_RSQRT2, -t)), 0.0)
    correction = externals.call("exp", [-(t * t)]) * lost * _INV_SQRT_PI
    value = externals.call("erfc", [t]) * 0.5 - correction
    return value


def _erfcx(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
    """exp(x^2) erfc(x), with x^2 in two parts; from 20 on the asymptotic series (A&S 7.1.23)."""
    (x,) = args
    square = x * x
    lost = select(square.lt(_INF), x.fma(x, -square), 0.0)
    scale = externals.call("exp", [square])
    product = scale * externals.call("erfc", [x])
    near = select(product.lt(_INF), product + product * lost, product)
    u = 0.5 / square
    terms = (1.0, -1.0, 3.0, -15.0, 105.0, -945.0, 10395.0)
    far = _horner(u, terms) * (_INV_SQRT_PI / x)
    return select(x.lt(20.0), near, select(x.isnan(), x, far))


def _clenshaw(t: VectorValue, coefficients: Sequence[float]) -> VectorValue:
    """Sum of c[k] T_k(t)."""
    b1, b2 = t.const(coefficients[-1]), t.const(0.0)
    twice = t + t
    for c in reversed(coefficients[1:-1]):
        b1, b2 = twice.fma(b1, c - b2), b1
    return t.fma(b1, coefficients[0] - b2)


def _bessel(small: Sequence[float], large: Sequence[float], odd: bool) -> Callable[..., VectorValue]:
    def bessel(externals: Externals, args: Sequence[VectorValue]) -> VectorValue:
        (x,) = args
        a = x.abs()
        t_small = select(a.gt(8.0), 1.0, a * 0.25 - 1.0)
        t_large = select(a.lt(8.0), 1.0, 16.0 / a - 1.0)
        low = _clenshaw(t_small, small)
        if odd:
            low = low * a
        half = externals.call("exp", [a * 0.5])
        value = half * select(a.le(8.0), low, _clenshaw(t_large, large) / a.sqrt()) * half
        value = select(a.eq(_INF), _INF, value)
        return value.copysign(x) if odd else value

    return bessel


SPECIAL: dict[str, Implementation] = {
    "cyl_bessel_i0": by_f64(_bessel(I0_SMALL, I0_LARGE, odd=False)),
    "cyl_bessel_i1": by_f64(_bessel(I1_SMALL, I1_LARGE, odd=True)),
    "erfcinv": by_f64(_erfcinv),
    "erfcx": by_f64(_erfcx),
    "erfinv": by_f64(_erfinv),
    "normcdf": by_f64(_normcdf),
    "normcdfinv": by_f64(_normcdfinv),
}
