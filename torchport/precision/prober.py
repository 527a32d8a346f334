"""Probes of a target's arithmetic: kernels whose results show how it adds up, rounds and treats subnormals.

The order of sums is found as by FPRev (arXiv 2411.00442): among a large number, its negative and ones, the ones that
survive tell how many terms were added before the two met. Widths and roundings are found as by FTTN (Li et al., arXiv
2403.00232): numbers are chosen so that the result shows whether a bit is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from torchport.arithmetic.formats import FORMATS
from torchport.precision.function_errors import FUNCTIONS, function_errors

__all__ = ["DTYPES", "TERMS", "Prober", "Problem"]

TERMS = 64
"""Of the dots that are probed."""
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f8": torch.float8_e4m3fn}
_LARGE = 2.0**30
Problem = tuple[dict[int, tuple[float, float]], float]
"""A dot: factors of the terms that are not zero, by place in k, and the accumulator before."""


@dataclass(frozen=True)
class Prober:
    """Launches probes on Triton's active target. ``options``: of every kernel."""

    options: dict[str, Any]

    def measurements(self) -> dict[str, Callable[[], Any]]:
        """What a passport holds: by place, what measures it."""
        return {
            **{f"dot.{type_}": partial(self.dot, type_) for type_ in ("f16", "bf16", "f8")},
            "dot.f32": partial(self.dot, "f32", "ieee"),
            "dot.tf32": partial(self.dot, "f32", "tf32"),
            "dot.default": partial(self.inputs, ""),
            "reductions.order": self.reductions,
            **{f"denormals.{type_}": partial(self.denormals, type_) for type_ in ("f32", "f16")},
            **{f"casts.{type_}": partial(self.casts, type_) for type_ in ("f16", "bf16")},
            **{f"functions.{name}": partial(function_errors, self.launch, name) for name in FUNCTIONS},
        }

    def launch(self, kernel: Any, grid: int, *args: Any, **constants: Any) -> None:
        """``kernel`` over ``grid`` programs."""
        kernel[(grid,)](*args, **constants, **self.options)

    def dots(self, type_: str, problems: Sequence[Problem], precision: str = "ieee") -> list[float]:
        """Results of ``problems``, 16 a launch: each is one element of the diagonal."""
        from torchport.kernels.probes import dot_probe

        results: list[float] = []
        for first in range(0, len(problems), 16):
            some = problems[first : first + 16]
            a, b, c, out = torch.zeros(16, TERMS), torch.zeros(TERMS, 16), torch.zeros(16, 16), torch.zeros(16, 16)
            for i, (terms, start) in enumerate(some):
                c[i, i] = start
                for k, (left, right) in terms.items():
                    a[i, k], b[k, i] = left, right
            dtype = DTYPES[type_]
            self.launch(dot_probe, 1, a.to(dtype), b.to(dtype), c, out, PRECISION=precision, K=TERMS)
            results += out.diagonal()[: len(some)].tolist()
        return results

    def inputs(self, precision: str) -> str:
        """Whether f32 operands are cut to TF32."""
        (found,) = self.dots("f32", [({0: (1 + 2.0**-12, 1.0)}, 0.0)], precision)
        return "tf32" if found == 1.0 else "ieee"

    def dot(self, type_: str, precision: str = "ieee") -> dict[str, Any]:
        """What a dot of operands of ``type_`` does; keys as in the rule ``dot``."""
        group, order = self.order(type_, precision)
        fraction = self.kept(type_, precision) if order == "fused" else None
        width = self._width(type_, precision)
        upper, lower = self.dots(
            type_, [({0: (s, 1.0)}, s * (1 + 3 * 2.0**-width)) for s in (1.0, -1.0)], precision
        )  # 2 + 1.5 units: a tie
        up, down = upper == 2 + 2 * 2.0 ** (1 - width), lower == -(2 + 2 * 2.0 ** (1 - width))
        rounding = {(True, True): "rne", (False, False): "rz", (False, True): "rd", (True, False): "ru"}[up, down]
        return {
            "group": group, "within": order, "fraction": fraction, "rounding": rounding,
            "accumulator": {23: "f32", 13: "e8m13", 10: "f16", 7: "bf16"}.get(width, f"{width} bits"),
            "flush": self.flushed(type_, precision), "stages": self._stages(type_, precision),
            **({"inputs": self.inputs(precision)} if type_ == "f32" else {}),
        }  # fmt: skip

    def flushed(self, type_: str, precision: str, *, start: bool = True) -> bool | str:
        """Which subnormals become zeros: of operands, products and the accumulator (with ``start``), all, or none.

        Products of narrow types are never subnormal numbers of f32.
        """
        least = {"f16": 2.0**-24, "bf16": 2.0**-130, "f32": 2.0**-130, "f8": 2.0**-9}[type_]
        problems: dict[str, Problem] = {"operands": ({0: (least, 1.0)}, 0.0)}
        if type_ in ("bf16", "f32"):
            problems["results"] = ({0: (2.0**-70, 2.0**-70)}, 0.0)
        if start and type_ != "f8":
            problems["sums"] = ({}, 2.0**-130)
        values = self.dots(type_, list(problems.values()), precision)
        zeros = [name for name, value in zip(problems, values, strict=True) if value == 0]
        return len(zeros) == len(problems) if len(zeros) in (0, len(problems)) else ", ".join(zeros)

    def _large(self, type_: str) -> tuple[float, float]:
        """Two factors of a finite number that absorbs a one added to it."""
        return (2.0**8, 2.0**8) if type_ == "f8" else (2.0**15, 2.0**15)

    def order(self, type_: str, precision: str) -> tuple[int, str]:
        """Terms of a step, and how it adds them: ``fused``, ``pairwise``, ``sequential``, ``exact`` (nothing is lost
        within a step), ``swapped`` (one by one, the odd one of a pair first) or ``other``."""
        large, one = self._large(type_), 2.0**-6 if type_ == "f8" else 1.0
        problems = []
        for j in range(1, TERMS):
            terms = dict.fromkeys(range(TERMS), (one, one))
            terms[0], terms[j] = large, (-large[0], large[1])
            problems.append((terms, 0.0))
        lost = [round(TERMS - found / (one * one)) for found in self.dots(type_, problems, precision)]
        if lost[0] == 2 and lost == list(range(2, TERMS + 1)):
            return 1, "sequential"
        if lost == [2 if j == 1 else j if j % 2 else j + 2 for j in range(1, TERMS)]:
            return 1, "swapped"
        if lost[0] == 2 and lost[1] == lost[2] == 4:
            sizes = (2, 4, 8, 16)  # the third group joins the first two, or is half of a tree of four
            return next((size for size in sizes if lost[2 * size - 1] == 3 * size), TERMS), "pairwise"
        for group in (2, 4, 8, 16, 32, 64):
            if lost == [-(-(j + 1) // group) * group for j in range(1, TERMS)]:
                return group, "pairwise" if group == 2 and self.kept(type_, precision) == 23 else "fused"
        exact = next((j for j, n in enumerate(lost, 1) if n > 2), TERMS)
        return (exact, "exact") if exact > 1 and all(n == 2 for n in lost[: exact - 1]) else (1, "other")

    def kept(self, type_: str, precision: str) -> int | None:
        """The largest t for which 2^-t is kept beside 1 and -1; None if the type cannot show it."""
        top = 14 if type_ != "f8" else 8
        least = {"f16": -14, "f8": -6}.get(type_, -30)
        tests = range(1, min(2 * (top - least), 48))
        problems = []
        for t in tests:
            exponent = 2 * top - t
            half = max(least, exponent // 2)
            large = (2.0**top, 2.0**top)
            terms = {0: large, 1: (2.0**half, 2.0 ** (exponent - half)), 2: (-large[0], large[1])}
            problems.append((terms, 0.0))
        kept = [t for t, found in zip(tests, self.dots(type_, problems, precision), strict=True) if found != 0]
        return None if kept and kept[-1] == tests[-1] else max(kept, default=0)

    def _width(self, type_: str, precision: str) -> int:
        """Bits of the accumulator's fraction: the largest p for which 1 + 2^-p survives when nothing is added."""
        results = self.dots(type_, [({}, 1 + 2.0**-p) for p in range(1, 24)], precision)
        return max(p for p, found in enumerate(results, 1) if found == 1 + 2.0**-p)

    def _stages(self, type_: str, precision: str) -> bool:
        """Whether a small negative accumulator beside large products that cancel is rounded down, not cut.

        One far below them is not always rounded: CDNA3's 8-bit floats shift it out.
        """
        large = self._large(type_)
        smalls = [-large[0] * large[1] * 2.0**-below for below in (25, 34)]
        problems: list[Problem] = [({0: large, 1: (-large[0], large[1])}, small) for small in smalls]
        return any(found < small for found, small in zip(self.dots(type_, problems, precision), smalls, strict=True))

    def reductions(self) -> str:
        """The order in which a row of 64 is summed."""
        from torchport.kernels.probes import sum_probe

        n = 64
        x = torch.ones(n, n)
        for j in range(1, n):
            x[j, 0], x[j, j] = _LARGE, -_LARGE
        back = torch.ones(n, n)
        for j in range(n - 1):
            back[j, n - 1], back[j, j] = _LARGE, -_LARGE
        lost = []
        for one in (x, back):
            out = torch.zeros(n)
            self.launch(sum_probe, 1, one, out, ROWS=n, N=n)
            lost.append([round(n - found) for found in out.tolist()])
        first, last = lost[0][1:], lost[1][:-1][::-1]
        straight = list(range(2, n + 1))
        tree = [1 << j.bit_length() for j in range(1, n)]
        if first == straight:
            return "sequential"
        if last == straight:
            return "reversed"
        return "pairwise" if first == tree else "lost " + " ".join(map(str, first))

    def denormals(self, type_: str) -> str:
        """What happens to subnormal operands and results of a product: ``keep``, ``flush``, or only one is flushed."""
        from torchport.kernels.probes import product_probe

        dtype, least = DTYPES[type_], FORMATS[type_].least
        x = torch.tensor([2.0 ** (least - 3), 2.0 ** (least + 2)] * 8).to(dtype)
        y = torch.tensor([2.0**5, 2.0**-5] * 8).to(dtype)
        out = torch.ones(16, dtype=dtype)
        self.launch(product_probe, 1, x, y, out, N=16)
        operand, result = (bool(out[i] == 0) for i in (0, 1))
        return {(True, True): "flush", (False, False): "keep", (True, False): "flush operands"}.get(
            (operand, result), "flush results"
        )

    def casts(self, type_: str) -> dict[str, Any]:
        """What a conversion from f32 does with too large numbers, NaN and rounding."""
        from torchport.kernels.probes import cast_probe

        bits = FORMATS[type_].fraction
        large = 1e6 if type_ == "f16" else 3.4e38
        x = torch.tensor([large, float("nan"), 1 + 1.5 * 2.0**-bits, 1 + 1.25 * 2.0**-bits, *[0.0] * 12])
        out = torch.zeros(16, dtype=DTYPES[type_])
        self.launch(cast_probe, 1, x, out, N=16)
        tie, quarter = (round((float(out[i]) - 1) * 2.0**bits) for i in (2, 3))
        rounding = {(2, 1): "rne", (1, 1): "rz"}.get((tie, quarter), "other")  # 1.5 and 1.25 units above 1
        nan = None if out[1].isnan() else float(out[1])
        return {"saturate": not bool(out[0].isinf()), "nan": nan, "rounding": rounding}
