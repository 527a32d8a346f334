"""Verdicts: whether a tensor, and so a kernel, is what legal arithmetic gives (docs/numerics/verdicts.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from torchport.numerics.verdicts.classes import class_errors
from torchport.numerics.verdicts.measure import Errors, measure
from torchport.numerics.verdicts.references import Reference

__all__ = ["LEVELS", "KernelVerdict", "TensorVerdict", "judge_tensor", "worst_level"]

LEVELS = ("EXACT", "EXPECTED", "UNVERIFIED", "SUSPECT", "FAIL")
"""From good to bad."""

_SUSPECT = 2.0
"""Up to so many times a limit a figure is SUSPECT, beyond it FAIL."""


@dataclass(frozen=True)
class TensorVerdict:
    """One output of a kernel. ``node``: the FX node it holds; ``cause``: why it is EXPECTED; ``reasons``: which gates
    it failed, in words; ``score``: its largest figure in units of that figure's limit, above 1 where one fails.
    ``sigma``: as in Reference; no part of reports.
    """

    argument: str
    node: str | None
    dtype: str
    shape: tuple[int, ...]
    level: str
    cause: str | None = None
    reasons: tuple[str, ...] = ()
    errors: Errors | None = None
    score: float = 0.0
    sigma: torch.Tensor | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class KernelVerdict:
    """One launch. ``attribution``: causes and the share of the difference each explains; ``residual``: the share that
    none does; ``method``: against what it was judged."""

    seq: int
    kernel: str | None
    operation: str | None
    nodes: tuple[str, ...]
    level: str
    cause: str | None = None
    reasons: tuple[str, ...] = ()
    tensors: tuple[TensorVerdict, ...] = ()
    attribution: tuple[tuple[str, float], ...] = ()
    residual: float | None = None
    method: str = ""


def worst_level(levels: Iterable[str]) -> str:
    """The worst of several levels; UNVERIFIED where there is none."""
    return max(levels, key=LEVELS.index, default="UNVERIFIED")


def judge_tensor(
    y: torch.Tensor, reference: Reference, argument: str = "", node: str | None = None, canaries: int = 0
) -> TensorVerdict:
    """Gates of docs/numerics/verdicts.md on one output ``y``, of the reference's shape.

    ``canaries``: elements never written.
    The level is EXACT, EXPECTED("legal rounding"), SUSPECT or FAIL.
    """
    dtype = str(y.dtype).removeprefix("torch.")
    shape = tuple(y.shape)

    def verdict(level: str, reasons: list[str], errors: Errors | None, score: float) -> TensorVerdict:
        cause = "legal rounding" if level == "EXPECTED" else None
        return TensorVerdict(argument, node, dtype, shape, level, cause, tuple(reasons), errors, score, reference.sigma)

    if y.dtype != reference.dtype or y.shape != reference.y64.shape:
        wanted = f"{reference.dtype} of {tuple(reference.y64.shape)}"
        return verdict("FAIL", [f"{y.dtype} of {shape} instead of {wanted}"], None, float("inf"))
    if not y.dtype.is_floating_point:
        return _judge_integers(y, reference, verdict)
    assert reference.sigma is not None and reference.allowed is not None and reference.limits is not None
    classes = class_errors(y, reference.allowed)
    errors = measure(y, reference.y64, reference.sigma, classes)
    if canaries:
        return verdict("FAIL", [f"{canaries} elements were never written"], errors, float("inf"))
    if classes:
        return verdict("FAIL", [f"{count} x {name}" for name, count in classes.items()], errors, float("inf"))
    limits = reference.limits
    figures = (
        ("elements", errors.z_max, limits.element, "an element is off by {:.3g} sigma (limit {:.3g})"),
        ("tensor", errors.z_rms, limits.rms, "the tensor is off by {:.3g} sigma (limit {:.3g})"),
        ("tile", errors.z_tile, limits.tile, "a tile is off by {:.3g} sigma (limit {:.3g})"),
        ("bias", abs(errors.bias), limits.bias, "results are biased by {:.3g} sigma (limit {:.3g})"),
    )
    failed = [(value / limit, text.format(value, limit)) for _, value, limit, text in figures if value > limit]
    score = max(value / limit for _, value, limit, _ in figures)
    if failed:
        level = "FAIL" if score > _SUSPECT else "SUSPECT"
        return verdict(level, [text for _, text in sorted(failed, reverse=True)], errors, score)
    return verdict("EXPECTED" if errors.misrounded else "EXACT", [], errors, score)


def _judge_integers(y: torch.Tensor, reference: Reference, verdict: object) -> TensorVerdict:
    assert callable(verdict)
    different = y != reference.y64
    count = int(torch.count_nonzero(different))
    errors = Errors(y.numel(), misrounded=count / max(1, y.numel()))
    if not count:
        found: TensorVerdict = verdict("EXACT", [], errors, 0.0)
        return found
    legal = torch.zeros_like(different)
    for other in reference.alternatives:
        legal |= y == other
    wrong = int(torch.count_nonzero(different & ~legal))
    if wrong:
        found = verdict(
            "FAIL", [f"{wrong} of {y.numel()} integers differ, and no legal rounding does that"], errors, float("inf")
        )
    else:
        found = verdict("EXPECTED", [f"{count} decisions that legal rounding turns"], errors, 0.0)
    return found
