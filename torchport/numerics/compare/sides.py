"""One run's side of a comparison: the verdict on the kernel that made a value, and that value's errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from torchport.arithmetic.formats import format_of
from torchport.errors import TorchportError
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.observed import Call, Observed, relative
from torchport.numerics.verdicts.references import ELEMENT
from torchport.numerics.verdicts.verdict import KernelVerdict, TensorVerdict, worst_level

__all__ = ["AMPLIFIES", "Judged", "Side", "judged", "side_of"]

AMPLIFIES = 8.0
"""A kernel that makes the relative error of its inputs so many times larger is marked as an amplifier."""

_DISAGREES = 64.0
"""Units of the type, or times the kernel's own local error, that a value may be off from its FX nodes in float64."""


_WRONG = ("nondeterministic", "canary")
"""Beginnings of a launch's flags that no arithmetic explains."""


@dataclass(frozen=True)
class Side:
    """``local``: relative L2 error of the kernel against its golden kernel on the same inputs; ``graph``: the same
    against its FX nodes in float64; ``propagated``: what its inputs' errors make of exact arithmetic, ``end_to_end``:
    all of it, both relative to the truth; ``amplification``: propagated error over the largest of its inputs'.
    ``verdict``: on the output, ``kernel``: name of the function or operation.
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

    @property
    def amplifies(self) -> bool:
        return self.amplification is not None and self.amplification >= AMPLIFIES


@dataclass
class Judged:
    """A launch with its verdict and its FX nodes' float64 values, which are computed when first asked for."""

    call: Call
    launch: Launch
    verdict: KernelVerdict

    @cached_property
    def golden(self) -> dict[str, torch.Tensor]:
        return self.call.golden(self.launch)

    @property
    def name(self) -> str:
        return name_of(self.call.run, self.launch)

    @property
    def suspicious(self) -> bool:
        return self.verdict.level in ("SUSPECT", "FAIL")


def name_of(run: Run, launch: Launch) -> str:
    """The function of a kernel, or the operation."""
    kernel = run.kernels.get(launch.kernel or "")
    return str(kernel["function"]) if kernel is not None else launch.operation or launch.kernel or "?"


def judged(call: Call, launch: Launch, judge: Callable[[Call, Launch], KernelVerdict]) -> Judged:
    """The verdict of ``judge`` with the graph's second opinion and what was seen at the launch itself; UNVERIFIED with
    the reason where there is none."""
    found = _judged(call, launch, judge)
    if seen := tuple(flag for flag in launch.flags if flag.startswith(_WRONG)):
        found.verdict = replace(found.verdict, level="FAIL", cause=None, reasons=(*seen, *found.verdict.reasons))
    return found


def _judged(call: Call, launch: Launch, judge: Callable[[Call, Launch], KernelVerdict]) -> Judged:
    outputs = [arg for arg in launch.args if arg.role in ("out", "inout")]
    if any(arg.after is None for arg in outputs) or not outputs:
        reason = launch.unrecorded or "its results were not kept"
        return Judged(call, launch, _unverified(launch, f"only statistics: {reason}"))
    try:
        verdict = judge(call, launch)
    except TorchportError as error:
        verdict = _unverified(launch, str(error))
    return _second_opinion(Judged(call, launch, verdict))


def _unverified(launch: Launch, reason: str) -> KernelVerdict:
    return KernelVerdict(launch.seq, launch.kernel, launch.operation, launch.nodes, "UNVERIFIED", None, (reason,))


def _second_opinion(found: Judged) -> Judged:
    """A kernel that does what its source says is SUSPECT where that is not what the graph says.

    Only where the golden kernel agrees with the launch: what is off from both is judged already. What legal
    arithmetic does to an element is no difference. Tensors' ``sigma`` is given up here.
    """
    reasons, verdict = [], found.verdict
    tensors = {one.node: one for one in verdict.tensors}
    for node, one in found.call.results(found.launch).items():
        judged_one = tensors.get(node)
        if one.value is None or judged_one is None or judged_one.errors is None or found.suspicious:
            continue
        if not one.value.dtype.is_floating_point or node not in found.golden:
            continue
        exact = found.golden[node].double()
        off = one.value.double() - exact
        if judged_one.sigma is not None:  # a decision may go one way in the kernel and the other way in its nodes
            off = torch.where(off.abs() <= ELEMENT * judged_one.sigma.reshape(off.shape), 0.0, off)
        wrong = relative(off, exact)
        legal = max(judged_one.errors.relative_l2, format_of(one.value.dtype).unit)
        if wrong > _DISAGREES * legal:
            reasons.append(
                f"{node} is off by {wrong:.2g} (relative L2) from its FX nodes in float64, and by "
                f"{judged_one.errors.relative_l2:.2g} from the kernel in float64: the kernel is another computation"
            )
    verdict = found.verdict = replace(verdict, tensors=tuple(replace(one, sigma=None) for one in verdict.tensors))
    if not reasons:
        return found
    level = worst_level([verdict.level if verdict.level != "UNVERIFIED" else "EXACT", "SUSPECT"])
    found.verdict = replace(verdict, level=level, cause=None, reasons=(*verdict.reasons, *reasons))
    return found


def side_of(call: Call, value: Observed, node: str, verdicts: Mapping[int, Judged], *, truth: bool) -> Side:
    """The side of a value that ``call`` kept of ``node``."""
    launch = value.launch
    found = verdicts[launch.seq]
    verdict = found.verdict
    tensor = next((one for one in verdict.tensors if one.node == node or one.argument == value.arg.name), None)
    side = Side(
        launch.seq, found.name, launch.kernel, verdict.level, tensor, verdict.cause, verdict.reasons, verdict.method,
        verdict.attribution, verdict.residual, local=tensor.errors.relative_l2 if tensor and tensor.errors else None,
    )  # fmt: skip
    if value.value is None or not value.value.dtype.is_floating_point:
        return side
    y, golden = value.value.double(), found.golden.get(node)
    golden = golden.reshape(y.shape).double() if golden is not None else None
    graph = relative(y - golden, golden) if golden is not None else None
    side = replace(side, graph=graph, local=graph if side.local is None else side.local)
    exact = call.truth.get(node) if truth else None
    if exact is None:
        return side
    exact = exact.reshape(y.shape).double()
    propagated = relative(golden - exact, exact) if golden is not None else None
    arriving = _arriving(call, launch)
    amplification = propagated / arriving if propagated is not None and arriving else None
    return replace(side, propagated=propagated, end_to_end=relative(y - exact, exact), amplification=amplification)


def _arriving(call: Call, launch: Launch) -> float:
    """The largest relative error of what a launch read, against the truth."""
    found = [0.0]
    for node, value in call.known_before(launch).items():
        exact: Any = call.truth.get(node)
        if exact is not None and value.dtype.is_floating_point:
            found.append(relative(value.double() - exact.double(), exact.double()))
    return max(found)
