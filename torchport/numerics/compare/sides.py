"""One run's side of a compared value: the verdict on the launch that made it, and its errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from torchport.numerics.compare.launch_verdict import LaunchVerdict
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.measure import relative_l2
from torchport.numerics.verdicts.observed import Observed
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.verdict import TensorVerdict

__all__ = ["AMPLIFIES", "SideReport", "local_error", "side_report"]

AMPLIFIES = 8.0
"""A kernel is marked as an amplifier if it multiplies the relative error of its inputs by this much or more."""


@dataclass(frozen=True)
class SideReport:
    """One run's side of a value. Errors are relative L2, None if not known.

    seq: of the launch that made the value
    kernel: its function, or the operator
    key: of the kernel in the run
    level: of the verdict on the value; of the launch's if the value has none, the launch has a flag, or no value of its
        own shows what is bad
    launch_level: of the launch's verdict, the worst of its values'
    verdict: on the value itself
    cause: of the same verdict as the level
    reasons: of the launch's verdict
    method: of the launch's verdict
    attribution: share of the error by cause: of the value's, or of the launch's, if the value is bad and has none
    residual: share that no cause explains
    local: error of the kernel against its float64 reference on the same inputs
    graph: error against its FX nodes in float64 on the same inputs
    propagated: what the errors of the inputs become in float64, against the whole graph in float64
    end_to_end: total error, against the whole graph in float64
    amplification: propagated error over the largest error of the inputs
    fault: of the launch's verdict
    algebra: of the launch's verdict
    order: of the launch's verdict
    """

    seq: int
    kernel: str
    key: str | None
    level: str
    verdict: TensorVerdict | None
    cause: str | None
    reasons: tuple[str, ...]
    method: str
    attribution: tuple[tuple[str, float], ...]
    residual: float | None
    local: float | None = None
    graph: float | None = None
    propagated: float | None = None
    end_to_end: float | None = None
    amplification: float | None = None
    fault: str | None = None
    algebra: str | None = None
    order: str | None = None
    launch_level: str = ""

    @property
    def amplifies(self) -> bool:
        return self.amplification is not None and self.amplification >= AMPLIFIES


def side_report(judged: LaunchVerdict, value: Observed, node: str, *, truth: bool) -> SideReport:
    """The side of a value of ``node`` that the launch ``judged`` made. ``truth``: as for ``diff.compare``."""
    call, verdict = judged.call, judged.verdict
    tensor = next((each for each in verdict.tensors if each.node == node or each.argument == value.arg.name), None)
    own = tensor is not None and not judged.flagged and (tensor.is_bad or _bad_is_shown(judged))
    level, cause = (tensor.level, tensor.cause) if tensor is not None and own else (verdict.level, verdict.cause)
    explained = tensor if tensor is not None and own and (tensor.attribution or not tensor.is_bad) else verdict
    side = SideReport(
        judged.launch.seq, judged.name, judged.launch.kernel, level, tensor, cause, verdict.reasons, verdict.method,
        explained.attribution, explained.residual,
        local=local_error(tensor) if tensor else None,
        fault=verdict.fault if level in ("SUSPECT", "FAIL") else None, launch_level=verdict.level,
        algebra=verdict.algebra, order=verdict.order,
    )  # fmt: skip
    if value.value is None or not value.value.dtype.is_floating_point:
        return side
    y, reference = value.value.double(), judged.reference.get(node)
    reference = reference.reshape(y.shape).double() if reference is not None else None
    graph = relative_l2(y - reference, reference) if reference is not None else None
    side = replace(side, graph=graph, local=graph if side.local is None else side.local)
    exact = call.reference.values.get(node) if truth else None
    if exact is None:
        return side
    exact = exact.reshape(y.shape).double()
    propagated = relative_l2(reference - exact, exact) if reference is not None else None
    arriving = _input_error(call, judged.launch)
    amplification = propagated / arriving if propagated is not None and arriving else None
    return replace(side, propagated=propagated, end_to_end=relative_l2(y - exact, exact), amplification=amplification)


def local_error(tensor: TensorVerdict) -> float | None:
    """The relative L2 error of a result on the kernel's inputs; of integers, the share that differs and may not.

    Infinite if an element is NaN, infinite or a number where it may not be. None if it is not known.
    """
    errors = tensor.errors
    if errors is None:
        return None
    if errors.classes:
        return math.inf
    if getattr(torch, tensor.dtype).is_floating_point:
        return errors.relative_l2
    return errors.misrounded if tensor.is_bad else 0.0


def _bad_is_shown(judged: LaunchVerdict) -> bool:
    """Whether a launch is not bad, or what is bad has a row: the value of a node that no later launch wrote again."""
    wrong, observed = {one.argument for one in judged.verdict.tensors if one.is_bad}, judged.call.observed
    left = observed.left_by(judged.launch).items()
    shown = any(one.arg.name in wrong and observed.by_node[node].launch.seq == judged.launch.seq for node, one in left)
    return shown or not judged.suspicious


def _input_error(call: RecordedCall, launch: Launch) -> float:
    """The largest relative error of what a launch read, against the whole graph in float64."""
    errors = [0.0]
    for node, value in call.observed.read_by(launch).items():
        exact: Any = call.reference.values.get(node)
        if exact is not None and value.dtype.is_floating_point:
            errors.append(relative_l2(value.double() - exact.double(), exact.double()))
    return max(errors)
