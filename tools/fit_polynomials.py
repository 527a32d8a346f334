"""Fit the polynomials of torchport_passes.scalar.mathlib.inline_f32: prints f32 coefficients, lowest degree first.

Weighted minimax by Lawson's iteration (least squares with weights multiplied by the error until it levels) on Chebyshev
nodes, in 50 digits; coefficients are rounded to f32 one by one, the rest being fitted again after each.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 50
NODES = 400

Function = Callable[[mp.mpf], mp.mpf]


def fit(target: Function, weight: Function, low: float, high: float, terms: int, variable: Function) -> list[float]:
    """f32 coefficients c of ``sum c[i] * variable(x)**i`` so that ``|sum - target| * weight`` is small on [low,
    high]."""
    middle, half = (mp.mpf(low) + mp.mpf(high)) / 2, (mp.mpf(high) - mp.mpf(low)) / 2
    xs = [middle + half * mp.cos(mp.pi * (2 * i + 1) / (2 * NODES)) for i in range(NODES)]
    wanted = np.array([float(target(x) * weight(x)) for x in xs], np.longdouble)
    exact = [target(x) for x in xs]
    powers = [[variable(x) ** k for k in range(terms)] for x in xs]
    scale = [weight(x) for x in xs]
    done: list[float] = []
    for first in range(terms):
        lawson = np.ones(NODES)
        rest = np.array([[float(p[k] * s) for k in range(first, terms)] for p, s in zip(powers, scale, strict=True)])
        goal = np.array(
            [
                float((e - sum(mp.mpf(c) * p[k] for k, c in enumerate(done))) * s)
                for e, p, s in zip(exact, powers, scale, strict=True)
            ]
        )
        for _ in range(60):
            root = np.sqrt(lawson)
            solution = np.linalg.lstsq(rest * root[:, None], goal * root, rcond=None)[0]
            error = np.abs(rest @ solution - goal)
            lawson = lawson * (error + 1e-300)
            lawson /= lawson.sum()
        done.append(float(np.float32(solution[0])))
    worst = max(
        abs(float((sum(mp.mpf(c) * p[k] for k, c in enumerate(done)) - e) * s))
        for e, p, s in zip(exact, powers, scale, strict=True)
    )
    assert np.isfinite(wanted).all()
    print(f"  error {worst:.3g} = 2^{np.log2(worst):.1f}: ({', '.join(c.hex() for c in done)})")
    return done


def center_of_cosine() -> tuple[float, float]:
    """The f32 c in [0.375, 0.39] for which cos(sqrt(c)) is closest to an f32, and that one."""
    centers = np.arange(0.375, 0.39, 3 * 2.0**-25)
    exact = np.cos(np.sqrt(centers.astype(np.longdouble)))
    best = int(np.argmin(np.abs(exact - exact.astype(np.float32))))
    return float(centers[best]), float(exact[best].astype(np.float32))


def main() -> None:
    half_ln2 = float(mp.log(2) / 2) * 1.001
    for terms in (4, 5):
        print("exp: Q in 1 + r + r^2 Q(r), relative", terms)
        fit(lambda r: (mp.expm1(r) - r) / r**2, lambda r: r**2 / mp.exp(r), -half_ln2, half_ln2, terms, lambda r: r)
    print("exp2: Q in 1 + r Q(r), relative")
    fit(lambda r: mp.expm1(r * mp.log(2)) / r, lambda r: r / mp.mpf(2) ** r, -0.5005, 0.5005, 6, lambda r: r)
    low, high = float(mp.sqrt(0.5)) - 1, float(mp.sqrt(2)) - 1
    for terms in (7, 8, 9):
        print("log: P in f - f^2/2 + f^3 P(f), relative", terms)
        fit(lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3, lambda f: f**3 / mp.log1p(f), low, high, terms, lambda f: f)
    for top, terms in ((1.0, 7), (1.0, 8)):
        print(f"tanh: P in x + x^3 P(x^2), 0..{top}, relative", terms)
        fit(lambda x: (mp.tanh(x) - x) / x**3, lambda x: x**3 / mp.tanh(x), 1e-3, top, terms, lambda x: x**2)
    print("erf: P in x + x P(x^2), relative")
    fit(lambda x: (mp.erf(x) - x) / x, lambda x: x / mp.erf(x), 1e-4, 0.93, 7, lambda x: x**2)
    for terms in (6, 7, 8):
        print("erf: G in 1 - exp(-x - x G(x)), absolute", terms)
        fit(lambda x: -mp.log(mp.erfc(x)) / x - 1, lambda x: x * mp.erfc(x), 0.92, 4.0, terms, lambda x: x)
    quarter = float(mp.pi / 4) * 1.003
    print("sin: S in r + r^3 S(r^2), relative")
    fit(lambda r: (mp.sin(r) - r) / r**3, lambda r: r**3 / mp.sin(r), 1e-3, quarter, 3, lambda r: r**2)
    center, top = center_of_cosine()
    print(f"cos: C in {top.hex()} + z C(z) with z = r^2 - {center.hex()}, relative")
    fit(
        lambda r: (mp.cos(r) - top) / (r**2 - center), lambda r: (r**2 - center) / mp.cos(r), 1e-3, quarter, 4,
        lambda r: r**2 - center,
    )  # fmt: skip


if __name__ == "__main__":
    main()
