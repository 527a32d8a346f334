"""Measure f32 functions on every input (2^32, or every n-th) against float64: the figures of docs/math.md.

    python tools/ulp_exhaustive.py exp tanh          # a few minutes a function on one core
    python tools/ulp_exhaustive.py --step 97 all     # seconds
    python tools/ulp_exhaustive.py --through-f64 exp # where bits differ if sums of f64 stand for fused multiply-adds

The reference is torch's float64 function, far below 0.001 ULP of f32. Reported: the largest error in ULP of the f32
result (with its input), how many results are not the correctly rounded ones, and special results (NaN, infinities,
signs of zero) that differ from the rounded reference.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torchport_passes.scalar.lower_casts import LowerCasts
from torchport_passes.scalar.lower_math import LowerMath
from torchport_passes.scalar.mathlib.harness import compile_elementwise, host_vector_bits, through_f64

REFERENCES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    name: getattr(torch.special if name in ("erfinv", "i0", "i1") else torch, name)
    for name in (
        "acos acosh asin asinh atan atanh cos cosh erf erfc erfinv exp exp2 expm1 lgamma log log10 log1p log2 rsqrt "
        "sin sinh sqrt tan tanh"
    ).split()
}
REFERENCES |= {
    "cyl_bessel_i0": torch.special.i0,
    "cyl_bessel_i1": torch.special.i1,
    "erfcx": torch.special.erfcx,
}
CHUNK = 1 << 22


@dataclass
class Figures:
    worst: float = 0.0
    worst_input: float = 0.0
    misrounded: int = 0
    special: int = 0
    special_input: float = 0.0
    count: int = 0


def inputs(step: int) -> Iterator[np.ndarray]:
    """Every step-th bit pattern of f32, in chunks."""
    for start in range(0, 1 << 32, CHUNK * step):
        bits = np.arange(start, min(start + CHUNK * step, 1 << 32), step, dtype=np.uint64).astype(np.uint32)
        yield np.pad(bits, (0, -bits.size % 16)).view(np.float32)


def compare(figures: Figures, x: np.ndarray, got: np.ndarray, exact: np.ndarray) -> None:
    """Add the errors of f32 ``got`` against f64 ``exact`` to ``figures``."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        special = ~np.isfinite(rounded) | ~np.isfinite(got) | (rounded == 0)
        same = (got == rounded) & (np.signbit(got) == np.signbit(rounded)) | (np.isnan(got) & np.isnan(rounded))
        # A result that rounds to another zero, infinity or denormal by one ULP is an ordinary error.
        unit = np.maximum(np.spacing(np.minimum(np.abs(rounded), np.float32(3.4e38))).astype(np.float64), 2.0**-149)
        error = np.abs(got.astype(np.float64) - exact) / unit
    wrong = special & ~same & ~(error <= 1)
    figures.special += int(wrong.sum())
    if wrong.any():
        figures.special_input = float(x[wrong][0])
    error = np.where(special & same, 0, np.where(wrong, 0, error))
    at = int(np.argmax(error))
    if error[at] > figures.worst:
        figures.worst, figures.worst_input = float(error[at]), float(x[at])
    figures.misrounded += int((~same).sum())
    figures.count += x.size


def measure(name: str, step: int, bits: int) -> Figures:
    """The figures of libdevice function ``name`` on every ``step``-th f32."""
    symbol = f'%r = "tp.extern"(%a) {{symbol = "tp_{name}_f32"}} : (T0) -> R'
    kernel = compile_elementwise(symbol, ["f32"], "f32", [LowerMath(bits), LowerCasts()], lanes=min(bits // 32, 16))
    figures = Figures()
    for x in inputs(step):
        exact = REFERENCES[name](torch.from_numpy(x).double()).numpy()
        compare(figures, x, kernel(x), exact)
    return figures


@dataclass(frozen=True)
class ThroughF64:
    """What targets without a fused multiply-add make of marked ones, as a pass."""

    name: ClassVar[str] = "through-f64"

    def apply(self, module: Any) -> None:
        if not through_f64(module):
            raise SystemExit("lower-math marks no operation of this function")


def differences(name: str, step: int, bits: int) -> int:
    """On how many f32 a function has other bits through f64; NaN is NaN."""
    symbol = f'%r = "tp.extern"(%a) {{symbol = "tp_{name}_f32"}} : (T0) -> R'
    lowered = [LowerMath(bits)], [LowerMath(bits, arch="none"), ThroughF64()]
    fused, through = (
        compile_elementwise(symbol, ["f32"], "f32", [*passes, LowerCasts()], lanes=min(bits // 32, 16))
        for passes in lowered
    )
    count = 0
    for x in inputs(step):
        a, b = fused(x), through(x)
        count += int(((a.view(np.uint32) != b.view(np.uint32)) & ~(np.isnan(a) & np.isnan(b))).sum())
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("functions", nargs="+", help="function names, or 'all'")
    parser.add_argument("--step", type=int, default=1, help="take every n-th bit pattern (default: all)")
    parser.add_argument("--bits", type=int, default=host_vector_bits(), help="vector width (default: the host's)")
    parser.add_argument("--through-f64", action="store_true", help="count differing bits instead")
    options = parser.parse_args()
    names = sorted(REFERENCES) if options.functions == ["all"] else options.functions
    for name in names:
        if options.through_f64:
            print(f"{name}: {differences(name, options.step, options.bits)} differ", flush=True)
            continue
        f = measure(name, options.step, options.bits)
        print(
            f"{name:16} max {f.worst:8.4f} ULP at {f.worst_input!r}, "
            f"{f.misrounded / f.count:.2%} not "
            f"correctly rounded, {f.special} wrong special results"
            f"{f' (e.g. {f.special_input!r})' if f.special else ''}",
            flush=True,
        )


if __name__ == "__main__":
    main()
