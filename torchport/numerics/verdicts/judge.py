"""Judges one recorded launch: a kernel against itself in float64, an operator against its FX nodes in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torchport.arithmetic.profile import Profile
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.verdicts.attention.kernels import asked_of_kernel
from torchport.numerics.verdicts.attention.verdict import exact_references, with_fault
from torchport.numerics.verdicts.attribution import EXPLAINS, Attribution, attribute_each
from torchport.numerics.verdicts.causes import CAUSES, Cause, causes_of
from torchport.numerics.verdicts.hosts_arithmetic import hosts_arithmetic
from torchport.numerics.verdicts.observed import tensor_of
from torchport.numerics.verdicts.operators.verdict import judge_operator
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.numerics.verdicts.references import references
from torchport.numerics.verdicts.replay import NotReplayable
from torchport.numerics.verdicts.verdict import KernelVerdict, TensorVerdict, judge_tensor, verdict_of
from torchport.triton.source import rules_of

__all__ = ["judge"]


def judge(call: RecordedCall, launch: Launch, profile: Profile | None = None) -> KernelVerdict:
    """The verdict on ``launch`` of ``call``.

    What fails a gate is EXPECTED if the target's arithmetic gives it: that which the kernel was compiled to emulate,
    else ``profile``, else the host's own where products of bf16 flush denormals.

    Raises what ``Replay`` raises if the kernel cannot be replayed, NotReplayable if something was not
    recorded, RunError for a damaged file.
    """
    declared = profile.rules() if profile is not None else {}
    if launch.kernel is None:
        emulated = next(filter(None, map(_rules, call.run.kernels.values())), {})  # a run has one arithmetic
    else:
        emulated = _rules(call.run.kernels.get(launch.kernel, {}))
    rules = emulated or declared
    own = {} if rules else hosts_arithmetic(call.run, launch)
    return (judge_operator if launch.kernel is None else _judge_kernel)(call, launch, rules, own)


def _judge_kernel(
    call: RecordedCall, launch: Launch, rules: Mapping[str, Any], own: Mapping[str, Any]
) -> KernelVerdict:
    """``rules``: the target's, each of which may be a cause. ``own``: the host's, beside all known causes."""
    run = call.run
    replay, storages, outputs = replay_of(run, launch)
    ulp = {name: float(rule["ulp"]) for name, rule in rules.get("functions", {}).items() if "ulp" in rule}
    expected = references(replay, storages, outputs, ulp=ulp)
    asked = asked_of_kernel(run, launch, call.nodes)
    exact = None if asked is None else exact_references(asked, expected)
    expected |= exact or {}
    args = {arg.name: arg for arg in launch.args}
    tensors = []
    for output in outputs:
        arg = args[output.name]
        canaries = int((arg.summary or {}).get("canary", 0))
        tensors.append(judge_tensor(_after(run, arg), expected[arg.name], arg.name, arg.node, canaries))
    verdict = verdict_of(launch, tensors, "kernel in float64" if exact is None else "attention in float64")
    if not verdict.is_bad:
        return verdict
    reasons = verdict.reasons
    results = {output.name: _after(run, args[output.name]) for output in outputs}
    if asked is not None and exact is not None:
        verdict = with_fault(verdict, asked, results, expected)
        if verdict.fault is not None:
            return verdict
    wrong = {tensor.argument: results[tensor.argument] for tensor in verdict.tensors if tensor.is_bad}

    def explained(causes: Sequence[Cause]) -> dict[str, Attribution]:
        return attribute_each(replay, storages, outputs, wrong, expected, causes)

    found = explained(causes_of(rules) if rules else CAUSES)
    together = explained([Cause("profile", rules or own)]) if rules or own else {}
    verdict = verdict.with_tensors([_attributed(one, found, together) for one in verdict.tensors])
    return verdict if verdict.is_bad else replace(verdict, reasons=reasons)


def _attributed(
    tensor: TensorVerdict, found: Mapping[str, Attribution], together: Mapping[str, Attribution]
) -> TensorVerdict:
    """The verdict on an output with what explains it: EXPECTED if the target's rules ``together`` do."""
    if tensor.argument not in found:
        return tensor
    shares, residual = found[tensor.argument].shares, found[tensor.argument].residual
    tensor = replace(tensor, attribution=shares, residual=residual)
    whole = together.get(tensor.argument)
    if whole is None or dict(whole.shares).get("profile", 0.0) < EXPLAINS:
        return tensor
    cause = shares[0][0] if shares else "the target's arithmetic"
    return replace(tensor, level="EXPECTED", cause=cause, residual=whole.residual)


def _rules(kernel: Mapping[str, Any]) -> dict[str, Any]:
    """The arithmetic that a recorded kernel was compiled for on the CPU target."""
    return rules_of(kernel.get("source", ""))


def _after(run: Run, arg: Arg) -> torch.Tensor:
    value = tensor_of(run, arg)
    if value is None:
        raise NotReplayable(f"what argument {arg.name} held after the launch was not kept")
    return value
