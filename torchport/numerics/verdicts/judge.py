"""The verdict on one recorded launch: a kernel against its golden one, an operator against its FX nodes in float64."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torchport.arithmetic.profile import Profile
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.verdicts.attribution import attribute
from torchport.numerics.verdicts.causes import CAUSES, Cause, causes_of
from torchport.numerics.verdicts.observed import tensor_of
from torchport.numerics.verdicts.operator_calls import OperatorCall, operator_call
from torchport.numerics.verdicts.operator_causes import attribute_operator
from torchport.numerics.verdicts.operator_noise import noisy_nodes
from torchport.numerics.verdicts.operator_references import spread_of
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.references import VARIANTS, Reference, reference, references
from torchport.numerics.verdicts.replay import Argument, NotReplayable, Replay
from torchport.numerics.verdicts.verdict import KernelVerdict, TensorVerdict, judge_tensor, worst_level
from torchport.triton.source import arithmetic_of

__all__ = ["judge", "replay_of"]

_EXPLAINED = 0.9
"""A profile that explains so much of a difference (of its energy) is its cause."""


def judge(call: RecordedCall, launch: Launch, profile: Profile | None = None) -> KernelVerdict:
    """The verdict on ``launch`` of ``call``. What the kernel was compiled to emulate, or else ``profile``, says which
    arithmetic is the target's: what fails a gate and that arithmetic does as well is EXPECTED.

    Raises what ``Replay`` raises where the kernel cannot be replayed, NotReplayable where something was not recorded,
    RunError for a damaged file.
    """
    declared = profile.rules() if profile is not None else {}
    if launch.kernel is None:
        own = next(filter(None, map(_rules, call.run.kernels.values())), {})  # a run has one arithmetic
        return _judge_operator(call, launch, own or declared)
    rules = _rules(call.run.kernels.get(launch.kernel, {})) or declared
    replay, storages, outputs = replay_of(call.run, launch)
    ulp = {name: float(rule["ulp"]) for name, rule in rules.get("functions", {}).items() if "ulp" in rule}
    found = references(replay, storages, outputs, ulp=ulp)
    args = {arg.name: arg for arg in launch.args}
    tensors = [_tensor(call.run, args[one.name], found[one.name]) for one in outputs]
    verdict = _verdict(launch, tensors, "golden kernel")
    if verdict.level not in ("SUSPECT", "FAIL"):
        return verdict
    got = {one.name: _after(call.run, args[one.name]) for one in outputs}
    explained = attribute(replay, storages, outputs, got, found, causes_of(rules) if rules else CAUSES)
    verdict = replace(verdict, attribution=explained.shares, residual=explained.residual)
    if rules:
        together = attribute(replay, storages, outputs, got, found, [Cause("profile", rules)])
        if dict(together.shares).get("profile", 0.0) >= _EXPLAINED:
            cause = explained.shares[0][0] if explained.shares else "the target's arithmetic"
            return replace(verdict, level="EXPECTED", cause=cause, residual=together.residual)
    return verdict


def _verdict(launch: Launch, found: Sequence[TensorVerdict], method: str) -> KernelVerdict:
    level = worst_level(one.level for one in found)
    cause = next((one.cause for one in found if one.level == level and one.cause), None)
    reasons = tuple(f"{one.node or one.argument}: {reason}" for one in found for reason in one.reasons)
    return KernelVerdict(
        launch.seq, launch.kernel, launch.operation, launch.nodes, level, cause, reasons, tuple(found), method=method
    )


def _rules(kernel: Mapping[str, Any]) -> dict[str, Any]:
    """The arithmetic that a recorded kernel was compiled for on the CPU target."""
    text = arithmetic_of(kernel.get("source") or "")
    return dict(json.loads(text).get("rules", {})) if text else {}


def replay_of(run: Run, launch: Launch) -> tuple[Replay, dict[int, torch.Tensor], list[Argument]]:
    """A launch that can be repeated, its storages before, and the arguments it writes. Raises NotReplayable."""
    kernel = run.kernels.get(launch.kernel or "")
    if kernel is None or not kernel.get("ttir"):
        raise NotReplayable("the kernel's TTIR was not kept")
    if launch.grid is None:
        raise NotReplayable("the configuration that was launched, and so its grid, is not known")
    arguments, storages, outputs = [], {}, []
    for arg in launch.args:
        kind = kernel["types"].get(arg.name, "constexpr")
        if isinstance(arg.value, str):
            raise NotReplayable(f"argument {arg.name} is neither a tensor nor a number")
        if arg.role == "scalar" or arg.storage is None:
            arguments.append(Argument(arg.name, kind, arg.value))
            continue
        one = Argument(
            arg.name, kind, None, arg.storage, getattr(torch, str(arg.dtype)), arg.shape, arg.stride, arg.offset
        )
        arguments.append(one)
        if arg.before is None:
            raise NotReplayable(f"what argument {arg.name} held before the launch was not kept")
        storages[arg.storage] = run.tensor(arg.before)
        if arg.role in ("out", "inout"):
            outputs.append(one)
    x, y, z = (*launch.grid, 1, 1)[:3]
    return Replay(kernel["ttir"], arguments, (x, y, z)), storages, outputs


def _after(run: Run, arg: Arg) -> torch.Tensor:
    value = tensor_of(run, arg)
    if value is None:
        raise NotReplayable(f"what argument {arg.name} held after the launch was not kept")
    return value


def _tensor(run: Run, arg: Arg, found: Reference) -> TensorVerdict:
    canaries = int((arg.summary or {}).get("canary", 0))
    return judge_tensor(_after(run, arg), found, arg.name, arg.node, canaries)


def _judge_operator(call: RecordedCall, launch: Launch, rules: dict[str, Any]) -> KernelVerdict:
    """The verdict on an operator of aten; what fails a gate is computed again by ``rules``."""
    golden, results = call.reference.of_launch(launch, assume=True), call.observed.left_by(launch)
    if not results or not set(results) <= set(golden):
        raise NotReplayable("nothing that it reads is known to be an FX node's value")
    called = operator_call(call.run, launch)
    found = _operator_references(call, launch, called, golden)
    tensors = []
    for node, one in results.items():
        assert one.value is not None  # golden has those only
        canaries = int((one.arg.summary or {}).get("canary", 0))
        tensors.append(judge_tensor(one.value, found[node], one.arg.name, node, canaries))
    verdict = _verdict(launch, tensors, "FX nodes in float64")
    if verdict.level not in ("SUSPECT", "FAIL"):
        return verdict
    written, wholes = _written(launch), []
    for (node, one), tensor in zip(results.items(), tensors, strict=True):
        if tensor.level not in ("SUSPECT", "FAIL"):
            continue
        if one.value is None or not one.value.dtype.is_floating_point:
            return verdict
        explained, whole = attribute_operator(called, written.index(one.arg), one.value, found[node], rules)
        if tensor.level == verdict.level and verdict.residual is None:
            verdict = replace(verdict, attribution=explained.shares, residual=explained.residual)
        wholes.append(whole)
    if min(wholes) >= _EXPLAINED:
        cause = verdict.attribution[0][0] if verdict.attribution else "the target's arithmetic"
        return replace(verdict, level="EXPECTED", cause=cause, residual=1 - min(wholes))
    return verdict


def _written(launch: Launch) -> list[Arg]:
    """What an operator wrote or made, in the order in which it returns them."""
    return [arg for arg in launch.args if arg.role in ("out", "inout") and arg.storage is not None]


def _operator_references(
    call: RecordedCall, launch: Launch, called: OperatorCall | None, golden: Mapping[str, torch.Tensor]
) -> dict[str, Reference]:
    """By node: from the operator's own sums where they are known, else from noise on what its FX nodes read."""
    seen = {
        one.arg.name: (node, one.value) for node, one in call.observed.left_by(launch).items() if one.value is not None
    }
    exact = {node: golden[node].reshape(value.shape) for node, value in seen.values()}
    native = {node: exact[node].to(value.dtype) for node, value in seen.values()}
    places = [seen.get(arg.name, (None, None))[0] for arg in _written(launch)]
    known = None if called is None else spread_of(called)
    if known is None:
        noise = [noisy_nodes(call, launch, seed) for seed in range(VARIANTS)]
        return {
            node: reference(one, native[node], [variant[node].reshape(one.shape) for variant in noise])
            for node, one in exact.items()
        }
    return {
        node: known.reference(index, exact[node], native[node].dtype)
        for index, node in enumerate(places)
        if node is not None
    }
