"""What is known of the bits that a kernel or an operator gives on a chip."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torchport.arithmetic.profile import Profile
from torchport.numerics.emulation.dispatch import only_moves

__all__ = ["KnownBits", "of_kernel", "of_operator"]

_TENSOR = r"tensor<([0-9x]+)x([a-zA-Z0-9]+)>"
_DOT = re.compile(rf"tt\.dot (?!_)(.*?) : {_TENSOR} \* {_TENSOR} -> {_TENSOR}")
_PRECISION = re.compile(r"inputPrecision = (\w+)")
_IMPRECISE = re.compile(r"maxNumImpreciseAcc = ([0-9]+)")
_REGION = re.compile(r'"tt\.(reduce|scan)"\(.*?\n\s*\}\)', re.DOTALL)
_SUMS = re.compile(r"arith\.(addf|mulf|subf|divf)|math\.fma")
_FUNCTION = re.compile(
    r"\bmath\.(\w+)|arith\.(divf|remf)\b|tt\.extern_elementwise .*?symbol = \"(?:tp_)?(\w+?)(?:_f(?:16|32|64))?\""
)
_WARPS = 4  # that an instruction for many rows takes
_ATOMIC = re.compile(r"tt\.atomic_rmw fadd")
_EXACT = frozenset(
    "absf absi abs fabs ceil floor trunc rint nearbyint round roundeven fma copysign isnan isinf isfinite "
    "add_rn sub_rn mul_rn div_rn fma_rn sqrt_rn".split()
)
"""Functions whose result is exact or rounded once."""


@dataclass(frozen=True)
class KnownBits:
    """assumed: what the bits rest on. unknown: why bits are not known."""

    assumed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __or__(self, other: KnownBits) -> KnownBits:
        return KnownBits(*(tuple(dict.fromkeys([*a, *b])) for a, b in zip(self.both(), other.both(), strict=True)))

    def both(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The fields."""
        return self.assumed, self.unknown


def of_operator(operation: str) -> KnownBits:
    """Of an operator that a library computes (``aten.mm.out``)."""
    return KnownBits() if only_moves(operation) else KnownBits((), (f"{operation}: a library's order is unknown",))


def of_kernel(
    function: str, ttir: str | None, profile: Profile, *, warps: int = 4, generated: bool = False
) -> KnownBits:
    """Of a Triton kernel on the profile's chip.

    ``ttir``: None where it was not recorded. ``warps``: of a program. ``generated``: from operators, not written by a
    user.
    """
    if ttir is None:
        return KnownBits((), (f"{function}: its TTIR was not recorded",))
    if generated and "tt.dot" in ttir:
        return KnownBits((), (f"{function}: generated for this CPU; the chip's order is unknown",))
    dots = [_of_dot(function, match, profile, warps) for match in _DOT.finditer(ttir)]
    unknown = tuple(f"{function}: {reason}" for reason in _reasons(ttir))
    contracted = re.search(r"arith\.mulf", ttir) and re.search(r"arith\.addf", ttir)
    assumed = (f"{function}: products that only a sum uses are fused with it",) if contracted else ()
    found = KnownBits(assumed, unknown)
    for dot in dots:
        found |= dot
    return found


def _reasons(ttir: str) -> Iterator[str]:
    """What else has no known bits in a kernel."""
    if "tt.dot_scaled" in ttir:
        yield "no model of units for scaled blocks"
    for match in _REGION.finditer(ttir):
        if _SUMS.search(match[0]):
            yield f"the order of a thread's own elements in tl.{'sum' if match[1] == 'reduce' else match[1]} is unknown"
    if "elementwise_inline_asm" in ttir:
        yield "inline assembly is not followed"
    if _ATOMIC.search(ttir):
        yield "the order of atomic sums is unknown"
    names = (next(filter(None, match.groups())) for match in _FUNCTION.finditer(ttir))
    for name in dict.fromkeys(name for name in names if name not in _EXACT):
        yield f"of {name.replace('divf', 'division')} only the error is known"


def _of_dot(function: str, match: re.Match[str], profile: Profile, warps: int) -> KnownBits:
    """Of one ``tt.dot``."""
    operands, a_shape, source, b_shape, other, _, sums = match.groups()
    if source.startswith("i"):
        return KnownBits()
    precision = _PRECISION.search(operands)
    asked = precision[1] if precision else "ieee"
    (m, k), n = (a_shape.split("x")[-2:]), b_shape.split("x")[-1]
    kind = {"f32": asked if asked != "ieee" else "f32"}.get(source, "f8" if source.startswith("f8") else source)
    types = kind if kind != "f8" else " and ".join(dict.fromkeys((source, other)))
    where = f"{function}: tl.dot {m}x{n}x{k} of {types}, sums in {sums}"
    known = profile.instruction(kind)
    if known is None or (known.formats and not {source, other} <= {*known.formats}):
        return KnownBits((), (f"{where}: no instruction of {profile.name} is known to the bit",))
    if known.rows > 1 and (int(m) < known.rows or warps < _WARPS):
        needs = f"{known.name} takes blocks of {known.rows} rows and {_WARPS} warps"
        return KnownBits((), (f"{where}: {needs}, the instruction is unknown",))
    if int(n) < known.columns:
        needs = f"{known.name} takes blocks of {known.columns} columns"
        return KnownBits((), (f"{where}: {needs}, the instruction is unknown",))
    rule = profile.rules()["dot"]["types"][kind]
    imprecise = int(found[1]) if rule.get("promote") and (found := _IMPRECISE.search(operands)) else 0
    parts = f", sums of {imprecise} terms added in f32" if 0 < imprecise <= int(k) and sums == "f32" else ""
    return KnownBits((f"{where}: {known.name}, {rule.get('group', 1)} terms a step{parts}, {_order(rule)}",))


def _order(rule: Mapping[str, Any]) -> str:
    return "k in pairs, the odd term first" if rule.get("order") == "swapped" else "k in the order of memory"
