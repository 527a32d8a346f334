"""Judges a recorded launch: its kernel's verdict, the second opinion of its FX nodes, and its flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from torchport.arithmetic.formats import format_of
from torchport.errors import TorchportError
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.limits import ELEMENT
from torchport.numerics.verdicts.measure import relative_l2
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.verdict import KernelVerdict, worst_level

__all__ = ["Judge", "LaunchVerdict", "judge_launch", "launch_name"]

Judge = Callable[[RecordedCall, Launch], KernelVerdict]

_DISAGREES = 64.0
"""How far a value may be from its FX nodes in float64, in units of its type or of the kernel's own local error."""

_WRONG = ("nondeterministic", "canary")
"""Beginnings of flags that no arithmetic explains."""


@dataclass
class LaunchVerdict:
    """A launch with its verdict.

    call: the graph call that the launch is in
    launch: the launch
    verdict: on its kernel or operator
    """

    call: RecordedCall
    launch: Launch
    verdict: KernelVerdict

    @cached_property
    def reference(self) -> dict[str, torch.Tensor]:
        """The float64 values of the launch's FX nodes."""
        return self.call.reference.of_launch(self.launch)

    @cached_property
    def spread(self) -> dict[str, float]:
        """How far rounding between launches moves these values, relative (L2)."""
        return self.call.reference.spread(self.launch)

    @property
    def name(self) -> str:
        """The kernel's function, or the operator."""
        return launch_name(self.call.run, self.launch)

    @property
    def suspicious(self) -> bool:
        return self.verdict.level in ("SUSPECT", "FAIL")


def launch_name(run: Run, launch: Launch) -> str:
    """The function of a launch's kernel, or its operator."""
    kernel = run.kernels.get(launch.kernel or "")
    return str(kernel["function"]) if kernel is not None else launch.operation or launch.kernel or "?"


def judge_launch(call: RecordedCall, launch: Launch, judge: Judge) -> LaunchVerdict:
    """Judge a launch: by ``judge``, by its FX nodes, and by its flags. UNVERIFIED, with the reason, if that fails."""
    judged = LaunchVerdict(call, launch, _verdict(call, launch, judge))
    if judged.verdict.tensors:
        judged.verdict = _second_opinion(judged)
    if flags := tuple(flag for flag in launch.flags if flag.startswith(_WRONG)):
        judged.verdict = replace(judged.verdict, level="FAIL", cause=None, reasons=(*flags, *judged.verdict.reasons))
    return judged


def _verdict(call: RecordedCall, launch: Launch, judge: Judge) -> KernelVerdict:
    outputs = [arg for arg in launch.args if arg.role in ("out", "inout")]
    if any(arg.after is None for arg in outputs) or not outputs:
        return _unverified(launch, f"only statistics: {launch.unrecorded or 'its results were not kept'}")
    try:
        return judge(call, launch)
    except TorchportError as error:
        return _unverified(launch, str(error))


def _unverified(launch: Launch, reason: str) -> KernelVerdict:
    return KernelVerdict(launch.seq, launch.kernel, launch.operation, launch.nodes, "UNVERIFIED", None, (reason,))


def _second_opinion(judged: LaunchVerdict) -> KernelVerdict:
    """The verdict, SUSPECT if the kernel does what its source says but not what the graph says.

    Values that are off from the kernel in float64, too, are judged already. Differences that legal arithmetic can make
    do not count. Drops ``sigma`` of the tensors, which nothing needs afterwards.
    """
    verdict = judged.verdict
    tensors = {tensor.node: tensor for tensor in verdict.tensors}
    reasons = []
    for node, result in judged.call.observed.left_by(judged.launch).items():
        tensor, value = tensors.get(node), result.value
        if value is None or tensor is None or tensor.errors is None or judged.suspicious:
            continue
        if not value.dtype.is_floating_point or node not in judged.reference:
            continue
        reference = judged.reference[node].double()
        error = value.double() - reference
        if tensor.sigma is not None:  # a branch may depend on rounding, and go another way than in the nodes
            error = torch.where(error.abs() <= ELEMENT * tensor.sigma.reshape(error.shape), 0.0, error)
        size = relative_l2(error, reference)
        unit = format_of(value.dtype).unit
        if size > _DISAGREES * max(tensor.errors.relative_l2, unit, judged.spread.get(node, 0.0)):
            reasons.append(
                f"{node} is off by {size:.2g} (relative L2) from its FX nodes in float64, and by "
                f"{tensor.errors.relative_l2:.2g} from the kernel in float64: the kernel is another computation"
            )
    verdict = replace(verdict, tensors=tuple(replace(tensor, sigma=None) for tensor in verdict.tensors))
    if not reasons:
        return verdict
    level = worst_level([verdict.level if verdict.level != "UNVERIFIED" else "EXACT", "SUSPECT"])
    return replace(verdict, level=level, cause=None, reasons=(*verdict.reasons, *reasons))
