"""The first bad kernel of a run or of a model on a target, and whether the fault follows its block sizes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from torchport import quarantine
from torchport.compat import reset_dynamo
from torchport.errors import OptionError, TorchportError
from torchport.inductor.quarantined import STEPS, fitted
from torchport.numerics.compare.launch_verdict import LaunchVerdict, judge_launch, launch_name
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of
from torchport.numerics.verdicts.verdict import KernelVerdict
from torchport.precision.case import Case, case_of, execute, judge_case, with_blocks
from torchport.triton.source import triton_kernel

__all__ = ["Bad", "Bisected", "Tried", "first_bad", "loss_of", "of_model", "of_runs", "try_blocks"]

Judge = Callable[[RecordedCall, Launch], KernelVerdict]
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Tried:
    """One configuration of a kernel: ``level``: of what it computes on the target, or why that is not known."""

    config: str
    level: str

    @property
    def bad(self) -> bool:
        return self.level in ("SUSPECT", "FAIL")


@dataclass(frozen=True)
class Bad:
    """The first launch whose verdict, on its own inputs, is SUSPECT or FAIL, or whose second run gave other bits.

    ``kernel``: function or operation; ``key``: in the run; ``identity``: for the quarantine, and ``config``: None for
    operators; ``place``: the user's line. ``other``: the level of run A's launch that computes the same nodes.
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
class Bisected:
    """``bad``: the first bad kernel, None where there is none; ``judged``: launches up to and with it; ``unverified``:
    those of them that have no verdict, by reason; ``runs``, ``hits``: how many runs were made, and in how many this
    kernel is bad; ``tried``: its configurations, the recorded one first."""

    bad: Bad | None
    judged: int
    unverified: Mapping[str, int]
    runs: int = 1
    hits: int = 0
    tried: tuple[Tried, ...] = ()

    @property
    def follows(self) -> str:
        """What the fault follows: ``config``, ``kernel``, or empty where that is not known."""
        if len(self.tried) < 2 or not self.tried[0].bad:
            return ""
        known = [one for one in self.tried[1:] if one.level in ("EXACT", "EXPECTED", "SUSPECT", "FAIL")]
        if not known:
            return ""
        return "kernel" if all(one.bad for one in known) else "config"

    @property
    def command(self) -> str | None:
        """The command that has the kernel avoided with its configuration; None where that would not help."""
        if self.bad is None or self.bad.identity is None or not self.bad.config or self.follows == "kernel":
            return None
        reason = self.bad.reasons[0] if self.bad.reasons else self.bad.level
        reason = reason.replace("'", "")
        target, config = self.bad.target, self.bad.config
        return f"torchport quarantine add {self.bad.identity} --config '{config}' --target {target} --reason '{reason}'"

    def as_json(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**asdict(self), "follows": self.follows, "command": self.command}


def first_bad(
    run: Run, judge: Judge = judge, advance: Advance = lambda done, all_: None
) -> tuple[LaunchVerdict | None, Any]:
    """The first bad launch of a run in the order of execution; also the verdicts up to it."""
    calls = list(calls_of(run))
    order = sorted(((launch.seq, call, launch) for call in calls for launch in call.launches), key=lambda one: one[0])
    found: list[LaunchVerdict] = []
    for done, (_, call, launch) in enumerate(order, 1):
        one = judge_launch(call, launch, judge)
        found.append(one)
        advance(done, len(order))
        if one.suspicious:
            return one, found
    return None, found


def of_runs(a: Run, b: Run, judge: Judge = judge, advance: Advance = lambda done, all_: None) -> Bisected:
    """The first bad kernel of run ``b``, and what ``a`` has in its place."""
    one, found = first_bad(b, judge, advance)
    if one is None:
        return Bisected(None, len(found), _unverified(found))
    return Bisected(replace(_bad(one), other=_level_in(a, one, judge)), len(found), _unverified(found), 1, 1)


def _level_in(a: Run, one: LaunchVerdict, judge: Judge) -> str | None:
    """The level of the launch of ``a`` that computes the same nodes of the same call."""
    for call in calls_of(a):
        for launch in call.launches:
            if launch.nodes and launch.nodes == one.launch.nodes and call.number == one.call.number:
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
) -> Bisected:
    """Run ``model(*inputs)`` on ``target`` ``repeat`` times, recorded, find the first bad kernel and try other block
    sizes. The kernel is the one that is first bad in most runs, the earliest of them. ``train``: backward, too, from
    ``loss_of`` what the model returns.

    Raises TargetError for a target that cannot run here, OptionError for a model that cannot be trained, and what the
    model raises.
    """
    reset_dynamo()
    compiled = torch.compile(model, backend="torchport", options={"target": target}, dynamic=False)
    found: list[tuple[LaunchVerdict, Case | str]] = []
    most: list[LaunchVerdict] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeat):
            path = Path(folder) / str(number)
            torch.manual_seed(0)
            with torch.set_grad_enabled(train), record(path, "full", overhead=math.inf):
                result = compiled(*tree_map(_copy, tuple(inputs)))
                if train:
                    loss_of(result).backward()
            one, verdicts = first_bad(Run.load(path), judge, advance)
            most = max(most, verdicts, key=len)
            if one is not None:
                found.append((one, _case(one)))
    if not found:
        return Bisected(None, len(most), _unverified(most), repeat)
    names = [(one.launch.kernel, one.launch.nodes) for one, _ in found]
    index = max(range(len(found)), key=lambda i: (names.count(names[i]), -found[i][0].launch.seq))
    one, case = found[index]
    tried = try_blocks(case) if isinstance(case, Case) else ()
    return Bisected(_bad(one), len(most), _unverified(most), repeat, names.count(names[index]), tried)


def loss_of(result: Any) -> torch.Tensor:
    """A model's result where that is one number, else the sum of its floating-point tensors' mean squares.

    Raises OptionError where it depends on nothing that has a gradient.
    """
    tensors = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor) and one.is_floating_point()]
    single = len(tensors) == 1 and tensors[0].numel() == 1
    loss = tensors[0].sum() if single else torch.stack([one.float().square().mean() for one in tensors]).sum()
    if not loss.requires_grad:
        raise OptionError("the model cannot be trained: no input or parameter of it needs a gradient")
    return loss


def _copy(value: Any) -> Any:
    return value.detach().clone().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value


def _case(one: LaunchVerdict) -> Case | str:
    try:
        return case_of(one.call.run, one.launch)
    except TorchportError as error:  # an operator's, or not all was kept
        return str(error)


def try_blocks(
    case: Case, run: Callable[[Case, str], Mapping[int, torch.Tensor]] = execute, steps: int = STEPS
) -> tuple[Tried, ...]:
    """What ``case`` computes on its target with its own block sizes, then with the largest halved once, twice ...

    Only kernels whose grid follows from their sizes have others; the rest have the first entry alone.
    """
    blocks = dict(triton_kernel(case.function, case.source).blocks)
    tried = [Tried(case.config, _level(case, case, run))]
    known = {tuple(sorted(blocks.items()))}
    for step in range(1, steps + 1):
        smaller = fitted(blocks, step)
        if (key := tuple(sorted(smaller.items()))) in known:
            break
        known.add(key)
        rest = {word: int(size) for word, _, size in (one.partition("=") for one in case.config.split())}
        name = quarantine.configuration({**rest, **smaller})
        try:
            tried.append(Tried(name, _level(case, with_blocks(case, smaller), run)))
        except TorchportError as error:
            tried.append(Tried(name, f"not tried: {error}"))
    return tuple(tried)


def _level(case: Case, variant: Case, run: Callable[[Case, str], Mapping[int, torch.Tensor]]) -> str:
    """The level of what ``variant`` computes, against the golden kernel of ``case``, whose block sizes are its own."""
    try:
        return judge_case(case, run(variant, case.target)).level
    except TorchportError as error:
        return f"not run: {error}"


def _bad(one: LaunchVerdict) -> Bad:
    run, launch = one.call.run, one.launch
    kernel = run.kernels.get(launch.kernel or "", {})
    source, function = kernel.get("source", ""), kernel.get("function", "")
    target = str(kernel.get("target") or run.graphs[launch.graph].get("target"))
    return Bad(
        launch.seq, launch_name(run, launch), launch.kernel, target,
        launch.nodes, _place(one), one.verdict.level, one.verdict.reasons,
        quarantine.identity(source, function) if source else None, kernel.get("config"),
    )  # fmt: skip


def _place(one: LaunchVerdict) -> str:
    """The user's line of the last FX node that is computed there."""
    for name in reversed(one.launch.nodes):
        source = one.call.nodes.get(name, {}).get("source")
        if source:
            return f"{source['file']}:{source['line']}"
    return ""


def _unverified(found: Sequence[LaunchVerdict]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for one in found:
        if one.verdict.level == "UNVERIFIED":
            reason = (one.verdict.reasons or ("no reason given",))[0]
            reasons[reason] = reasons.get(reason, 0) + 1
    return reasons
