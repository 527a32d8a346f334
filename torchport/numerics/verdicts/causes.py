"""The known causes of differences between chips: one row a cause.

The rows hold what chips are known to do (docs/numerics/rules.md: matrix units, denormals, saturation), each alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torchport.arithmetic.rules import FLOATS, dot_rule

__all__ = ["CAUSES", "Cause", "cause_named", "causes_of", "functions_of"]


@dataclass(frozen=True)
class Cause:
    """One way of computing that differs. Rows of one name are ways to do the same thing.

    name: as in reports.
    rules: rules of the option ``arithmetic``.
    needs: a regular expression that the kernel's TTIR must match.
    how: how the cause shows. ``bits``: emulated, the kernel gives the recorded bits. ``size``: emulated, the kernel is
        as far off, in another order of its sums. ``noise``: errors are where noise in its functions moves results.
    why: a sentence for people, with ``name``, ``share`` (explained) and ``residual`` (left).
    ulp: the most that the cause moves 99 % of the elements.
    beyond: a sentence for people where errors are larger than ``ulp``.
    advice: what to do where the cause explains most of the difference.
    """

    name: str
    rules: Mapping[str, Any]
    needs: str = ""
    how: Literal["bits", "size", "noise"] = "bits"
    why: str = "Computing with {name!r} alone explains {share:.0%} of the difference; {residual:.0%} is left."
    ulp: float = math.inf
    beyond: str = ""
    advice: str = "torchport probe --target T: does the chip itself compute so?"

    def concerns(self, ttir: str) -> bool:
        """Whether the kernel has an operation that the cause changes."""
        return re.search(self.needs, ttir) is not None

    def words(self, share: float, residual: float | None, *, beyond: bool) -> tuple[str, ...]:
        """What it means that the cause explains ``share`` of a difference, and that ``residual`` is left.

        beyond: whether errors are larger than ``ulp``, so than the cause can make them
        """
        said = self.why.format(name=self.name, share=share, residual=1 - share if residual is None else residual)
        return (said, self.beyond.format(ulp=self.ulp)) if beyond else (said,)


_DOT, _SUM, _CAST = r"tt\.dot", r"tt\.(reduce|scan)", r"arith\.truncf|tt\.fp_to_fp"
_SUM_ALONE = rf"(?s)\A(?!.*{_DOT}).*{_SUM}"
_FUNCTION = r"math\.(?!fma|absf|floor|ceil)(\w+)|tp_(\w+)_f32|(arith\.divf)|tt\.precise_(\w+?)f?\b"
_CUT, _NARROW, _ORDER, _FUNCTIONS, _FLUSHED = (
    "truncating accumulation", "narrow accumulator", "reduction order", "approximate functions", "flushed denormals",
)  # fmt: skip


def _dot(name: str, **rules: Any) -> Cause:
    return Cause(name, {"dot": rules}, _DOT)


def _sum(name: str, how: Literal["bits", "size"] = "bits", **rules: Any) -> Cause:
    return Cause(name, {"reductions": rules}, _SUM if how == "bits" else _SUM_ALONE, how)


def _functions(rules: Mapping[str, Any], needs: str, how: Literal["bits", "noise"] = "bits") -> Cause:
    """WebGPU allows exp 3 + 2 |x| ULP, 181 at most while the result is finite, and other chips allow less."""
    return Cause(
        _FUNCTIONS, rules, needs, how,
        why="{share:.0%} of the difference is in elements that errors of the kernel's functions can reach.",
        ulp=1024.0,
        beyond="But it is more than {ulp:.0f} ULP, which no chip's functions are off by.",
    )  # fmt: skip


CAUSES: tuple[Cause, ...] = (
    # Before narrow accumulators, which lose denormals, too: of causes that explain as much, the first is named.
    _dot(_FLUSHED, types={"bf16": {"group": 1, "flush": True, "signed": True}}),
    _dot("TF32 inputs", inputs="tf32"),
    _dot(_CUT, group=4, fraction=23, rounding="rz"),
    _dot(_CUT, group=8, fraction=24, rounding="rz"),
    _dot(_CUT, group=16, fraction=25, rounding="rz"),
    _dot(_CUT, group=0, fraction=25, rounding="rz"),
    _dot("13-bit accumulator", group=32, fraction=13, rounding="rz", accumulator="e8m13"),
    _dot(_NARROW, accumulator="bf16"),
    _dot(_NARROW, accumulator="f16"),
    _dot(_ORDER, order="reversed"),
    _sum(_CUT, order="sequential", rounding="rz"),
    _sum(_NARROW, accumulator="bf16"),
    _sum(_NARROW, accumulator="f16"),
    _sum(_NARROW, how="size", accumulator="bf16"),
    _sum(_NARROW, how="size", accumulator="f16"),
    _sum(_ORDER, order="sequential"),
    Cause(_FLUSHED, {"denormals": {"f32": "flush", "f16": "flush", "bf16": "flush"}}, r"f32|f16|bf16"),
    Cause("saturating casts", {"casts": {"saturate": True}}, _CAST),
    Cause("NaN becomes 0", {"casts": {"nan": 0}}, _CAST),
    Cause("cast elision", {"casts": {"elide": True}}, _CAST),
    Cause("contraction", {"fma": False}, r"math\.fma|arith\.mulf"),
    Cause("contraction", {"fma": True}, r"arith\.mulf"),
    _functions({"functions": {"exp": {"via": "exp2"}}}, r"math\.exp\b|tp_exp_f32"),
    _functions({"functions": {"div": {"via": "reciprocal"}}}, r"arith\.divf"),
    _functions({}, _FUNCTION, how="noise"),
)

_RULE_NAMES = {
    "dot": "matrix unit", "functions": _FUNCTIONS, "denormals": _FLUSHED, "casts": "casts",
    "reductions": _ORDER, "fma": "contraction",
}  # fmt: skip


def causes_of(rules: Mapping[str, Any]) -> tuple[Cause, ...]:
    """The causes of a profile: each of its rules alone, named after the rule, and errors of functions.

    Of matrix units that flush denormals, that alone is a cause, too.
    """
    types = {type_: rule for type_ in FLOATS if (rule := dot_rule(rules.get("dot", {}), type_)) and rule.flush}
    flushing = {type_: {"group": 1, "flush": True, "signed": rule.signed} for type_, rule in types.items()}
    own = (Cause(_RULE_NAMES.get(name, name), {name: rule}) for name, rule in rules.items())
    return (
        *([_dot(_FLUSHED, types=flushing)] if flushing else ()),
        *own,
        *(cause for cause in CAUSES if cause.how == "noise"),
    )


def cause_named(name: str) -> Cause:
    """The first row of this name; a cause with the usual words if there is none."""
    return next((cause for cause in CAUSES if cause.name == name), Cause(name, {}))


def functions_of(ttir: str) -> set[str]:
    """Names, as rules have them, of the functions that a kernel calls; ``div`` if it divides."""
    names = {str(next(filter(None, match.groups()))) for match in re.finditer(_FUNCTION, ttir)}
    return {"div" if "div" in name else name for name in names}
