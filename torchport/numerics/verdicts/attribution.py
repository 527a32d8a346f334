"""Why a kernel's numbers differ: one cause is switched on at a time, and what it explains is measured.

A cause is a set of rules of the option ``arithmetic`` (docs/numerics.md). The kernel is run with it on the CPU target,
on the same inputs; the share of the difference that goes away is what it explains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.numerics.verdicts.references import Reference
from torchport.numerics.verdicts.replay import Argument, Replay, view

__all__ = ["CAUSES", "Cause", "Explained", "attribute", "causes_of", "energy", "functions_of", "ranked"]

CUT, FUNCTIONS, NARROW, ORDER = (
    "truncating accumulation", "approximate functions", "narrow accumulator", "reduction order",
)  # fmt: skip


@dataclass(frozen=True)
class Cause:
    """One way of computing that differs. ``needs``: a regular expression that the kernel's TTIR must match."""

    name: str
    rules: Mapping[str, Any]
    needs: str


def _dot(name: str, **rules: Any) -> Cause:
    return Cause(name, {"dot": rules}, r"tt\.dot")


CAUSES: tuple[Cause, ...] = (
    _dot("TF32 inputs", inputs="tf32"),
    *(
        _dot(CUT, group=group, fraction=fraction, rounding="rz")
        for group, fraction in ((4, 23), (8, 24), (16, 25), (0, 25))
    ),
    _dot("13-bit accumulator", group=32, fraction=13, rounding="rz", accumulator="e8m13"),
    _dot(NARROW, accumulator="bf16"),
    _dot(NARROW, accumulator="f16"),
    _dot(ORDER, order="reversed"),
    Cause(CUT, {"reductions": {"order": "sequential", "rounding": "rz"}}, r"tt\.(reduce|scan)"),
    Cause(NARROW, {"reductions": {"accumulator": "bf16"}}, r"tt\.(reduce|scan)"),
    Cause(NARROW, {"reductions": {"accumulator": "f16"}}, r"tt\.(reduce|scan)"),
    Cause(ORDER, {"reductions": {"order": "sequential"}}, r"tt\.(reduce|scan)"),
    Cause("flushed denormals", {"denormals": {"f32": "flush", "f16": "flush", "bf16": "flush"}}, r"f32|f16|bf16"),
    Cause("saturating casts", {"casts": {"saturate": True}}, r"arith\.truncf|tt\.fp_to_fp"),
    Cause("NaN becomes 0", {"casts": {"nan": 0}}, r"arith\.truncf|tt\.fp_to_fp"),
    Cause("cast elision", {"casts": {"elide": True}}, r"arith\.truncf|tt\.fp_to_fp"),
    Cause("contraction", {"fma": False}, r"math\.fma|arith\.mulf"),
    Cause("contraction", {"fma": True}, r"arith\.mulf"),
    Cause(FUNCTIONS, {"functions": {"exp": {"via": "exp2"}}}, r"math\.exp\b|tp_exp_f32"),
    Cause(FUNCTIONS, {"functions": {"div": {"via": "reciprocal"}}}, r"arith\.divf"),
)
"""What chips are known to do (NUMERICS: matrix units, denormals, saturation), each alone."""

_FUNCTION_NOISE = 1024.0
"""ULPs by which functions are made to err in order to see where they matter."""

_FAR = 16.0
"""Times the root mean square effect of _FUNCTION_NOISE, so about 9,500 ULP: approximations of chips are far below."""

_FUNCTION = re.compile(r"math\.(?!fma|absf|floor|ceil)(\w+)|tp_(\w+)_f32|(arith\.divf)|tt\.precise_(\w+?)f?\b")
_LEAST, _EXACT, _SIMILAR = 0.05, 0.5, 0.25
"""Shares below the first are left out; where no cause explains the second bit by bit, errors' sizes are looked at, and
a narrow accumulator whose own error has this share of the energy, or the other way round, is taken for the cause."""


@dataclass(frozen=True)
class Explained:
    """``shares``: causes and the share of the difference's energy each explains alone, largest first; ``residual``:
    what the largest leaves."""

    shares: tuple[tuple[str, float], ...]
    residual: float


def causes_of(rules: Mapping[str, Any]) -> list[Cause]:
    """The causes of a profile: each of its rules alone, named after the rule."""
    return [Cause(_RULE_NAMES.get(name, name), {name: rule}, "") for name, rule in rules.items()]


_RULE_NAMES = {
    "dot": "matrix unit", "functions": FUNCTIONS, "denormals": "flushed denormals", "casts": "casts",
    "reductions": ORDER, "fma": "contraction",
}  # fmt: skip


def functions_of(ttir: str) -> set[str]:
    """Names, as rules have them, of the functions that a kernel calls; ``div`` where it divides."""
    names = {str(next(filter(None, one.groups()))) for one in _FUNCTION.finditer(ttir)}
    return {"div" if "div" in name else name for name in names}


def attribute(
    replay: Replay,
    storages: Mapping[int, torch.Tensor],
    outputs: Sequence[Argument],
    got: Mapping[str, torch.Tensor],
    found: Mapping[str, Reference],
    causes: Sequence[Cause] = CAUSES,
) -> Explained:
    """What explains that ``got`` (outputs of a launch by argument) is not what the CPU target computes.

    ``found``: their references. Functions are not known bit by bit: their share is how well the errors' sizes follow
    what noise in the kernel's functions alone would do, and counts where no exact cause explains half.
    """
    shares: dict[str, float] = {}
    similar = 0.0
    base = {name: found[name].native for name in got}
    total = _distance(got, base, found)
    if total == 0:
        return Explained((), 0.0)
    for cause in causes:
        if cause.needs and not re.search(cause.needs, replay.ttir):
            continue
        after = replay.run(storages, {"rules": dict(cause.rules)})
        emulated = {one.name: view(one, after[one.storage]) for one in outputs if one.storage is not None}
        share = 1 - _distance(got, emulated, found) / total
        shares[cause.name] = max(shares.get(cause.name, 0.0), share)
        if cause.name == NARROW and "tt.dot" not in replay.ttir:
            own = _distance(emulated, base, found)
            similar = max(similar, min(own, total) / max(own, total))
    if max(shares.values(), default=0.0) < _EXACT:
        if similar >= _SIMILAR:  # in another order, so not the same bits
            shares[NARROW] = similar
        elif names := functions_of(replay.ttir):
            share = _function_share(replay, storages, outputs, got, found, names)
            shares[FUNCTIONS] = max(shares.get(FUNCTIONS, 0.0), share)
    return ranked(shares)


def ranked(shares: Mapping[str, float]) -> Explained:
    """Shares by cause, the largest first, without those that are next to nothing."""
    kept = sorted(((name, share) for name, share in shares.items() if share >= _LEAST), key=lambda one: -one[1])
    return Explained(tuple(kept), 1 - kept[0][1] if kept else 1.0)


def _distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], found: Mapping[str, Reference]) -> float:
    """Energy of the difference of all outputs; integers that differ count as 10**6 sigmas."""
    total = 0.0
    for name, one in a.items():
        sigma, other = found[name].sigma, b[name]
        if sigma is None:
            total += float(torch.count_nonzero(one != other)) * 1e12
            continue
        total += energy(one, other, sigma)
    return total


def energy(a: torch.Tensor, b: torch.Tensor, sigma: torch.Tensor) -> float:
    """Energy of a difference in sigmas; elements of different class count as 10**6 sigmas. All of one shape."""
    x, y = a.double(), b.double()
    same = (x == y) | (torch.isnan(x) & torch.isnan(y))
    z = torch.nan_to_num((x - y) / sigma, nan=1e6, posinf=1e6, neginf=-1e6).clamp(-1e6, 1e6)
    return float(torch.where(same, 0.0, z.square()).sum())


def _function_share(
    replay: Replay,
    storages: Mapping[int, torch.Tensor],
    outputs: Sequence[Argument],
    got: Mapping[str, torch.Tensor],
    found: Mapping[str, Reference],
    names: Iterable[str],
) -> float:
    """Share of the errors' energy that is where functions that err would put it.

    Noise in functions (``names``) far above all other noise gives each element's sensitivity to them. Errors of more
    than _FAR times that are no function's.
    """
    explained, total = 0.0, 0.0
    ulp = dict.fromkeys(names, _FUNCTION_NOISE)
    runs = [
        replay.run(storages, {"promote": True, "noise": {"seed": seed, "scale": 1.0, "ulp": ulp}}) for seed in range(4)
    ]
    for argument in outputs:
        reference = found[argument.name]
        if reference.sigma is None or argument.storage is None:
            continue
        moved = torch.stack([(view(argument, one[argument.storage]) - reference.y64).square() for one in runs])
        sensitivity = torch.nan_to_num(moved.mean(0).sqrt())
        error = torch.nan_to_num(got[argument.name].double() - reference.y64).abs()
        z = torch.where(error > 4 * reference.sigma, error / reference.sigma, 0.0)
        beyond = sensitivity > 16 * reference.sigma  # where functions matter at all
        beyond &= error <= _FAR * sensitivity
        total += float(z.square().sum())
        explained += float(torch.where(beyond, z, 0.0).square().sum())
    return explained / total if total else 0.0
