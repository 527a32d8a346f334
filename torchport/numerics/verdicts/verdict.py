"""Verdicts: whether a tensor, and so a kernel, is within what legal arithmetic gives (docs/numerics/verdicts.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch

from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.classes import class_errors
from torchport.numerics.verdicts.limits import Limits
from torchport.numerics.verdicts.measure import Errors, measure
from torchport.numerics.verdicts.references import Reference

__all__ = ["LEVELS", "KernelVerdict", "TensorVerdict", "judge_tensor", "verdict_of", "worst_level"]

LEVELS = ("EXACT", "EXPECTED", "UNVERIFIED", "SUSPECT", "FAIL")
"""From good to bad."""

_BAD = ("SUSPECT", "FAIL")

_SUSPECT = 2.0
"""A figure above its limit is SUSPECT up to this many times the limit, and FAIL beyond."""


@dataclass(frozen=True)
class TensorVerdict:
    """The verdict on one output of a kernel.

    argument: its name.
    node: the FX node it holds.
    level: one of LEVELS.
    cause: why it is EXPECTED.
    reasons: which gates it failed, in words.
    errors: its error figures.
    score: the largest figure in units of that figure's limit, above 1 if one fails.
    attribution, residual: as of its kernel, for itself.
    unchecked: why it was not compared with its FX node, if a kernel wrote it; empty if it was.
    reference: what it was judged by; not part of reports.
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
    attribution: tuple[tuple[str, float], ...] = ()
    residual: float | None = None
    unchecked: str = ""
    reference: Reference | None = field(default=None, compare=False, repr=False)

    @property
    def is_bad(self) -> bool:
        """As of its kernel."""
        return self.level in _BAD


@dataclass(frozen=True)
class KernelVerdict:
    """The verdict on one launch.

    seq: number of the launch in its run.
    kernel: key of the kernel; None for an operator.
    operation: the operator; None for a kernel.
    nodes: FX nodes that it computes.
    level: the worst of its tensors'.
    attribution: causes and the share of the difference that each explains, of the output that is furthest off.
    residual: the share that none explains.
    method: what it was compared with.
    fault: name of the fault of attention that explains the results (docs/numerics/verdicts.md).
    algebra: whether the kernel computes the algebra of its FX nodes (docs/numerics/equivalence.md); None if not asked.
    order: of PROVEN, its sums in the order that the kernel has (docs/numerics/trees.md), or why that is not known.
    """

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
    fault: str | None = None
    algebra: str | None = None
    order: str | None = None

    @property
    def is_bad(self) -> bool:
        """Whether a gate failed and nothing legal explains it."""
        return self.level in _BAD

    def with_tensors(self, tensors: Sequence[TensorVerdict]) -> KernelVerdict:
        """The verdict after those on its outputs changed: their worst level, explained as the worst of them is."""
        level = worst_level(tensor.level for tensor in tensors)
        worst = sorted((tensor for tensor in tensors if tensor.level == level), key=lambda tensor: -tensor.score)
        explained = next((tensor for tensor in worst if tensor.attribution), None)
        causes = [tensor.cause for tensor in (*([explained] if explained else ()), *worst) if tensor.cause]
        verdict = replace(self, level=level, cause=causes[0] if causes else None, tensors=tuple(tensors))
        if explained is None:
            return verdict
        return replace(verdict, attribution=explained.attribution, residual=explained.residual)


def worst_level(levels: Iterable[str]) -> str:
    """The worst of several levels; UNVERIFIED if there is none."""
    return max(levels, key=LEVELS.index, default="UNVERIFIED")


def verdict_of(launch: Launch, tensors: Sequence[TensorVerdict], method: str) -> KernelVerdict:
    """The verdict on a launch from those on its outputs."""
    level = worst_level(tensor.level for tensor in tensors)
    cause = next((tensor.cause for tensor in tensors if tensor.level == level and tensor.cause), None)
    reasons = tuple(f"{tensor.node or tensor.argument}: {reason}" for tensor in tensors for reason in tensor.reasons)
    return KernelVerdict(
        launch.seq, launch.kernel, launch.operation, launch.nodes, level, cause, reasons, tuple(tensors), method=method
    )


def judge_tensor(
    y: torch.Tensor, reference: Reference, argument: str = "", node: str | None = None, canaries: int = 0
) -> TensorVerdict:
    """Apply the gates of docs/numerics/verdicts.md to one output ``y``, of the reference's shape.

    ``canaries``: elements that were never written. The level is EXACT, EXPECTED("legal rounding"), SUSPECT or FAIL.
    """
    level, reasons, errors, score = _judge(y, reference, canaries)
    return TensorVerdict(
        argument,
        node,
        str(y.dtype).removeprefix("torch."),
        tuple(y.shape),
        level,
        "legal rounding" if level == "EXPECTED" else None,
        tuple(reasons),
        errors,
        score,
        reference=reference,
    )


_Outcome = tuple[str, list[str], Errors | None, float]
"""Level, reasons, errors and score of a TensorVerdict."""


def _judge(y: torch.Tensor, reference: Reference, canaries: int) -> _Outcome:
    if y.dtype != reference.dtype or y.shape != reference.values.shape:
        wanted = f"{reference.dtype} of {tuple(reference.values.shape)}"
        return "FAIL", [f"{y.dtype} of {tuple(y.shape)} instead of {wanted}"], None, float("inf")
    if not y.dtype.is_floating_point:
        return _judge_integers(y, reference)
    assert reference.sigma is not None and reference.allowed is not None and reference.limits is not None
    classes = class_errors(y, reference.allowed)
    errors = measure(y, reference.values, reference.sigma, classes)
    if canaries:
        return "FAIL", [f"{canaries} elements were never written"], errors, float("inf")
    if classes:
        return "FAIL", [f"{count} x {name}" for name, count in classes.items()], errors, float("inf")
    return _judge_figures(errors, reference.limits)


def _judge_figures(errors: Errors, limits: Limits) -> _Outcome:
    figures = (
        (errors.z_max, limits.element, "an element is off by {:.3g} sigma (limit {:.3g})"),
        (errors.z_rms, limits.rms, "the tensor is off by {:.3g} sigma (limit {:.3g})"),
        (errors.z_tile, limits.tile, "a tile is off by {:.3g} sigma (limit {:.3g})"),
        (abs(errors.bias), limits.bias, "results are biased by {:.3g} sigma (limit {:.3g})"),
    )
    failed = [(value / limit, text.format(value, limit)) for value, limit, text in figures if value > limit]
    score = max(value / limit for value, limit, _ in figures)
    if failed:
        level = "FAIL" if score > _SUSPECT else "SUSPECT"
        return level, [text for _, text in sorted(failed, reverse=True)], errors, score
    return "EXPECTED" if errors.misrounded else "EXACT", [], errors, score


def _judge_integers(y: torch.Tensor, reference: Reference) -> _Outcome:
    different = y != reference.values
    count = int(torch.count_nonzero(different))
    errors = Errors(y.numel(), misrounded=count / max(1, y.numel()))
    if not count:
        return "EXACT", [], errors, 0.0
    legal = torch.zeros_like(different)
    for alternative in reference.alternatives:
        legal |= y == alternative
    wrong = int(torch.count_nonzero(different & ~legal))
    if wrong:
        reason = f"{wrong} of {y.numel()} integers differ, and no legal rounding does that"
        return "FAIL", [reason], errors, float("inf")
    return "EXPECTED", [f"{count} integers depend on legal rounding"], errors, 0.0
