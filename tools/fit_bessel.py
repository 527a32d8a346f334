"""Write torchport_passes/mathlib/bessel_tables.py: Chebyshev coefficients of the scaled modified Bessel functions.

Below 8: exp(-x) I0(x) and exp(-x) I1(x) / x in t = x / 4 - 1. From 8 on: exp(-x) sqrt(x) I(x) in t = 16 / x - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mpmath as mp

mp.mp.dps = 40
TABLES = Path(__file__).parents[1] / "passes/torchport_passes/scalar/mathlib/bessel_tables.py"


def chebyshev(function: Callable[[mp.mpf], mp.mpf], nodes: int = 60) -> list[float]:
    """Coefficients of T_0, T_1, ... down to 1e-18 of the first."""
    angles = [mp.pi * (2 * i + 1) / (2 * nodes) for i in range(nodes)]
    values = [function(mp.cos(a)) for a in angles]
    found = [
        2 / mp.mpf(nodes) * sum(v * mp.cos(k * a) for v, a in zip(values, angles, strict=True)) for k in range(nodes)
    ]
    found[0] /= 2
    kept = max(k for k, c in enumerate(found) if abs(c) > abs(found[0]) * mp.mpf("1e-18")) + 1
    return [float(c) for c in found[:kept]]


def main() -> None:
    tables = {}
    for order in (0, 1):
        tables[f"I{order}_SMALL"] = chebyshev(
            lambda t, n=order: mp.exp(-4 * (t + 1)) * mp.besseli(n, 4 * (t + 1)) / (4 * (t + 1)) ** n
        )
        tables[f"I{order}_LARGE"] = chebyshev(
            lambda t, n=order: mp.exp(-16 / (t + 1)) * mp.sqrt(16 / (t + 1)) * mp.besseli(n, 16 / (t + 1))
        )
    text = '"""Chebyshev coefficients made by tools/fit_bessel.py, which says of what."""\n\n'
    for name, coefficients in tables.items():
        text += f"{name} = (\n" + "".join(f"    {c!r},\n" for c in coefficients) + ")\n"
    TABLES.write_text(text)


if __name__ == "__main__":
    main()
