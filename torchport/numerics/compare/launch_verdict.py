"""Judges a recorded launch: its kernel's verdict, the second opinion of its FX nodes, and its flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from torchport.errors import TorchportError
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.second_opinion import second_opinion
from torchport.numerics.verdicts.verdict import KernelVerdict

__all__ = ["Judge", "LaunchVerdict", "judge_launch", "launch_name"]

Judge = Callable[[RecordedCall, Launch], KernelVerdict]

_WRONG = ("nondeterministic", "canary")
"""Beginnings of flags that no arithmetic explains."""


@dataclass
class LaunchVerdict:
    """A launch with its verdict.

    call: the graph call that the launch is in
    launch: the launch
    verdict: on its kernel or operator
    refused: why FX nodes have no float64 value, once ``reference`` was read
    """

    call: RecordedCall
    launch: Launch
    verdict: KernelVerdict
    refused: dict[str, str] = field(default_factory=dict)

    @cached_property
    def reference(self) -> dict[str, torch.Tensor]:
        """The float64 values of the launch's FX nodes; ``refused`` has the reasons of those without."""
        return self.call.reference.of_launch(self.launch, refused=self.refused)

    @property
    def name(self) -> str:
        """The kernel's function, or the operator."""
        return launch_name(self.call.run, self.launch)

    @property
    def flagged(self) -> tuple[str, ...]:
        """What was seen at the launch that no arithmetic explains."""
        return tuple(flag for flag in self.launch.flags if flag.startswith(_WRONG))

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
        verdict = second_opinion(
            call,
            launch,
            judged.verdict,
            judged.reference,
            judged.refused,
            lambda one: _verdict(call, one, judge).is_bad,
        )
        judged.verdict = replace(verdict, tensors=tuple(replace(one, reference=None) for one in verdict.tensors))
    if flags := judged.flagged:
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
