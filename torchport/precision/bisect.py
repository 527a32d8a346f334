"""Finds the first bad kernel of a run, or of a model on a target, and whether the fault follows its block sizes."""

from __future__ import annotations

import math
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from torchport import quarantine
from torchport.compat import reset_dynamo
from torchport.errors import TorchportError
from torchport.inductor.quarantined import STEPS, fitted
from torchport.numerics.compare.launch_verdict import LaunchVerdict, judge_launch, launch_name
from torchport.numerics.programs.comparison import compare_programs
from torchport.numerics.programs.difference import Programs
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of
from torchport.numerics.verdicts.verdict import KernelVerdict
from torchport.precision.case import KernelCase, case_of, execute, judge_case, with_blocks
from torchport.precision.steps import loss_of
from torchport.triton.source import triton_kernel

__all__ = ["BisectResult", "FirstBadKernel", "Trial", "first_bad", "of_model", "of_runs", "try_blocks"]

Judge = Callable[[RecordedCall, Launch], KernelVerdict]
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Trial:
    """One block size configuration of a kernel.

    level: of what it computes on the target, or why that is not known.
    """

    config: str
    level: str

    @property
    def bad(self) -> bool:
        return self.level in ("SUSPECT", "FAIL")


@dataclass(frozen=True)
class FirstBadKernel:
    """The first launch whose verdict, on its own inputs, is SUSPECT or FAIL, or whose second run gave other bits.

    kernel: function or operation.
    key: of the kernel in the run.
    nodes: FX nodes that it computes.
    place: the user's line.
    identity: for the quarantine; None for operators.
    config: block size configuration; None for operators.
    other: the level of run A's launch that computes the same nodes.
    """

    seq: int
    kernel: str
    key: str | None
    target: str
    nodes: tuple[str, ...]
    place: str
    level: str
    reasons: tuple[str, ...]
    identity: str | None = None
    config: str | None = None
    other: str | None = None


@dataclass(frozen=True)
class BisectResult:
    """What bisection found.

    bad: the first bad kernel, if there is one.
    judged: how many launches were judged, up to it.
    unverified: those of them that have no verdict, counted by reason.
    runs: how many runs were made.
    hits: in how many of them this kernel is bad.
    tried: its block size configurations, the recorded one first.
    programs: of two runs, how they differ as programs, and in what they were given.
    """

    bad: FirstBadKernel | None
    judged: int
    unverified: Mapping[str, int]
    runs: int = 1
    hits: int = 0
    tried: tuple[Trial, ...] = ()
    programs: Programs | None = None

    @property
    def follows(self) -> str:
        """What the fault follows: ``config``, ``kernel``, or empty if that is not known."""
        if len(self.tried) < 2 or not self.tried[0].bad:
            return ""
        known = [one for one in self.tried[1:] if one.level in ("EXACT", "EXPECTED", "SUSPECT", "FAIL")]
        if not known:
            return ""
        return "kernel" if all(one.bad for one in known) else "config"

    @property
    def command(self) -> str | None:
        """The command that quarantines the kernel with its configuration; None if that would not help."""
        if self.bad is None or self.bad.identity is None or not self.bad.config or self.follows == "kernel":
            return None
        reason = self.bad.reasons[0] if self.bad.reasons else self.bad.level
        words = ("torchport", "quarantine", "add", self.bad.identity, "--config", self.bad.config, "--target",
                 self.bad.target, "--reason", reason)  # fmt: skip
        return shlex.join(words)  # names may come from strangers

    def as_json(self) -> dict[str, Any]:
        """All of it, for JSON."""
        found = {**asdict(self), "follows": self.follows, "command": self.command}
        if self.programs is not None:
            found["programs"] = {
                "same": self.programs.same,
                "headline": self.programs.headline,
                "differences": [asdict(one) for one in self.programs.differences],
            }
        return found


def first_bad(
    run: Run, judge: Judge = judge, advance: Advance = lambda done, all_: None
) -> tuple[LaunchVerdict | None, list[LaunchVerdict]]:
    """The first bad launch of a run in the order of execution, and the verdicts up to it."""
    order = sorted(((call, launch) for call in calls_of(run) for launch in call.launches), key=lambda item: item[1].seq)
    verdicts: list[LaunchVerdict] = []
    for done, (call, launch) in enumerate(order, 1):
        verdict = judge_launch(call, launch, judge)
        verdicts.append(verdict)
        advance(done, len(order))
        if verdict.suspicious:
            return verdict, verdicts
    return None, verdicts


def of_runs(a: Run, b: Run, judge: Judge = judge, advance: Advance = lambda done, all_: None) -> BisectResult:
    """The first bad kernel of run ``b``, the level of ``a``'s launch in its place, and how the programs differ."""
    programs = compare_programs(a, b)
    bad, verdicts = first_bad(b, judge, advance)
    if bad is None:
        return BisectResult(None, len(verdicts), _unverified(verdicts), programs=programs)
    kernel = replace(_described(bad), other=_level_in(a, bad, judge))
    return BisectResult(kernel, len(verdicts), _unverified(verdicts), 1, 1, programs=programs)


def _level_in(a: Run, bad: LaunchVerdict, judge: Judge) -> str | None:
    """The level of the launch of ``a`` that computes the same nodes of the same call."""
    for call in calls_of(a):
        for launch in call.launches:
            if launch.nodes and launch.nodes == bad.launch.nodes and call.number == bad.call.number:
                return judge_launch(call, launch, judge).verdict.level
    return None


def of_model(
    model: Callable[..., Any],
    inputs: Sequence[Any],
    target: str,
    repeat: int = 1,
    judge: Judge = judge,
    advance: Advance = lambda done, all_: None,
    *,
    train: bool = False,
) -> BisectResult:
    """Run ``model(*inputs)`` on ``target``, recorded, find the first bad kernel and try other block sizes.

    ``repeat``: number of runs; the kernel is the one that is first bad in most of them, the earliest if several are.
    ``train``: also run backward from ``loss_of`` what the model returns.

    Raises TargetError for a target that cannot run here, OptionError for a model that cannot be trained, and what the
    model raises.
    """
    reset_dynamo()
    compiled = torch.compile(model, backend="torchport", options={"target": target}, dynamic=False)
    bad: list[tuple[LaunchVerdict, KernelCase | str]] = []
    longest: list[LaunchVerdict] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeat):
            path = Path(folder) / str(number)
            torch.manual_seed(0)
            with torch.set_grad_enabled(train), record(path, "full", overhead=math.inf):
                result = compiled(*tree_map(_copy, tuple(inputs)))
                if train:
                    loss_of(result).backward()
            first, verdicts = first_bad(Run.load(path, trust=True), judge, advance)
            longest = max(longest, verdicts, key=len)
            if first is not None:
                bad.append((first, _case(first)))
    if not bad:
        return BisectResult(None, len(longest), _unverified(longest), repeat)
    names = [(verdict.launch.kernel, verdict.launch.nodes) for verdict, _ in bad]
    index = max(range(len(bad)), key=lambda i: (names.count(names[i]), -bad[i][0].launch.seq))
    first, case = bad[index]
    tried = try_blocks(case) if isinstance(case, KernelCase) else ()
    hits = names.count(names[index])
    return BisectResult(_described(first), len(longest), _unverified(longest), repeat, hits, tried)


def _copy(value: Any) -> Any:
    return value.detach().clone().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value


def _case(bad: LaunchVerdict) -> KernelCase | str:
    try:
        return case_of(bad.call.run, bad.launch)
    except TorchportError as error:  # an operator call, or not everything was kept
        return str(error)


def try_blocks(
    case: KernelCase, run: Callable[[KernelCase, str], Mapping[int, torch.Tensor]] = execute, steps: int = STEPS
) -> tuple[Trial, ...]:
    """What ``case`` computes on its target with its own block sizes, then with the largest halved once, twice ...

    Only kernels whose grid follows from their sizes have others; the rest have the first entry alone.
    """
    blocks = dict(triton_kernel(case.function, case.source).blocks)
    tried = [Trial(case.config, _level(case, case, run))]
    known = {tuple(sorted(blocks.items()))}
    for step in range(1, steps + 1):
        smaller = fitted(blocks, step)
        if (key := tuple(sorted(smaller.items()))) in known:
            break
        known.add(key)
        rest = {word: int(size) for word, _, size in (one.partition("=") for one in case.config.split())}
        name = quarantine.configuration({**rest, **smaller})
        try:
            tried.append(Trial(name, _level(case, with_blocks(case, smaller), run)))
        except TorchportError as error:
            tried.append(Trial(name, f"not tried: {error}"))
    return tuple(tried)


def _level(case: KernelCase, variant: KernelCase, run: Callable[[KernelCase, str], Mapping[int, torch.Tensor]]) -> str:
    """The level of what ``variant`` computes, against the kernel of ``case`` in float64 with its own block sizes."""
    try:
        return judge_case(case, run(variant, case.target)).level
    except TorchportError as error:
        return f"not run: {error}"


def _described(bad: LaunchVerdict) -> FirstBadKernel:
    run, launch = bad.call.run, bad.launch
    kernel = run.kernels.get(launch.kernel or "", {})
    source, function = kernel.get("source", ""), kernel.get("function", "")
    target = str(kernel.get("target") or run.graphs[launch.graph].get("target"))
    return FirstBadKernel(
        launch.seq, launch_name(run, launch), launch.kernel, target,
        launch.nodes, _place(bad), bad.verdict.level, bad.verdict.reasons,
        quarantine.identity(source, function) if source else None, kernel.get("config"),
    )  # fmt: skip


def _place(bad: LaunchVerdict) -> str:
    """The user's line of the last FX node that is computed there."""
    for name in reversed(bad.launch.nodes):
        source = bad.call.nodes.get(name, {}).get("source")
        if source:
            return f"{source['file']}:{source['line']}"
    return ""


def _unverified(verdicts: Sequence[LaunchVerdict]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for judged in verdicts:
        if judged.verdict.level == "UNVERIFIED":
            reason = (judged.verdict.reasons or ("no reason given",))[0]
            reasons[reason] = reasons.get(reason, 0) + 1
    return reasons
