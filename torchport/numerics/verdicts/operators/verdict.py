"""Judges one recorded operator call against its FX nodes in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from torchport.numerics.runs.reader import Arg, Launch
from torchport.numerics.verdicts.attention.asked import Asked
from torchport.numerics.verdicts.attention.calls import asked_of_operator
from torchport.numerics.verdicts.attention.verdict import with_fault
from torchport.numerics.verdicts.attribution import EXPLAINS
from torchport.numerics.verdicts.observed import tensor_of
from torchport.numerics.verdicts.operators.calls import OperatorCall, operator_call
from torchport.numerics.verdicts.operators.causes import OperatorResult, attribute_operator
from torchport.numerics.verdicts.operators.narrow_sums import narrow_sums
from torchport.numerics.verdicts.operators.noise import noisy_nodes
from torchport.numerics.verdicts.operators.references import spread_of
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.references import VARIANTS, Reference, reference_of
from torchport.numerics.verdicts.replay import NotReplayable
from torchport.numerics.verdicts.ties import are_ties
from torchport.numerics.verdicts.verdict import KernelVerdict, TensorVerdict, judge_tensor, verdict_of

__all__ = ["judge_operator"]

_THREADS = 1024  # a machine has; a recording that says more is damaged


def judge_operator(
    call: RecordedCall, launch: Launch, rules: Mapping[str, Any], own: Mapping[str, Any]
) -> KernelVerdict:
    """The verdict on an operator of aten; if it fails a gate, it is computed again by ``rules``.

    Without ``rules`` it may be computed by ``own``, the host's, beside all known causes.
    """
    values, results = call.reference.of_launch(launch, assume=True), call.observed.left_by(launch)
    if not results or not set(results) <= set(values):
        raise NotReplayable("nothing that it reads is known to be an FX node's value")
    called = operator_call(call.run, launch)
    expected = _references(call, launch, called, values)
    tensors = []
    for node, result in results.items():
        assert result.value is not None  # others have no reference
        canaries = int((result.arg.summary or {}).get("canary", 0))
        tensor = judge_tensor(result.value, expected[node], result.arg.name, node, canaries)
        tensors.append(_without_ties(tensor, call, launch, result.value, expected[node]))
    verdict = verdict_of(launch, tensors, "FX nodes in float64")
    if not verdict.is_bad:
        return verdict
    if any((arg.dtype or "").startswith("complex") for arg in launch.args):
        raise NotReplayable("it computes with complex numbers, and how far legal rounding moves those is not known")
    asked = None if called is None else asked_of_operator(called.name, called.argument)
    if asked is not None:
        verdict = _named(verdict, call, launch, asked, expected)
        if verdict.fault is not None:
            return verdict
    written = _written(launch)
    return verdict.with_tensors(
        [
            _attributed(
                tensor, OperatorResult(called, written.index(result.arg), result.value, expected[node], rules, own)
            )
            if tensor.is_bad and result.value is not None and result.value.dtype.is_floating_point
            else tensor
            for (node, result), tensor in zip(results.items(), tensors, strict=True)
        ]
    )


def _without_ties(
    tensor: TensorVerdict, call: RecordedCall, launch: Launch, got: torch.Tensor, reference: Reference
) -> TensorVerdict:
    """The verdict on indices, EXPECTED if they name elements that are equal to those that they should name."""
    if not tensor.is_bad or got.dtype.is_floating_point or got.shape != reference.values.shape:
        return tensor
    wrong = got != reference.values
    for alternative in reference.alternatives:
        wrong &= got != alternative
    if bool((wrong & ~are_ties(call, launch, str(tensor.node), got, reference.values)).any()):
        return tensor
    return replace(tensor, level="EXPECTED", cause="equal elements", reasons=(), score=0.0)


def _attributed(tensor: TensorVerdict, result: OperatorResult) -> TensorVerdict:
    """The verdict on a result with what explains it: EXPECTED if the target's rules do."""
    found, together = attribute_operator(result)
    tensor = replace(tensor, attribution=found.shares, residual=found.residual)
    if together < EXPLAINS:
        return tensor
    cause = found.shares[0][0] if found.shares else "the target's arithmetic"
    return replace(tensor, level="EXPECTED", cause=cause, residual=1 - together)


def _named(
    verdict: KernelVerdict, call: RecordedCall, launch: Launch, asked: Asked, expected: Mapping[str, Reference]
) -> KernelVerdict:
    """The verdict with the fault of attention that explains the results, if all of them were kept."""
    values = {arg.name: tensor_of(call.run, arg) for arg in _written(launch)}
    nodes = {result.arg.name: node for node, result in call.observed.left_by(launch).items()}
    kept = {name: value for name, value in values.items() if value is not None}
    if kept.keys() != values.keys() or not set(asked.results.values()) <= kept.keys():
        return verdict
    return with_fault(verdict, asked, kept, {name: expected[node] for name, node in nodes.items() if node in expected})


def _written(launch: Launch) -> list[Arg]:
    """What an operator wrote or made, in the order in which it returns them."""
    return [arg for arg in launch.args if arg.role in ("out", "inout") and arg.storage is not None]


def _references(
    call: RecordedCall, launch: Launch, called: OperatorCall | None, values: Mapping[str, torch.Tensor]
) -> dict[str, Reference]:
    """By node: from the operator's own sums if they are known, else from noise on what its FX nodes read."""
    left = call.observed.left_by(launch)
    seen = {result.arg.name: (node, result.value) for node, result in left.items() if result.value is not None}
    values = {node: values[node].reshape(value.shape) for node, value in seen.values()}
    native = {node: values[node].to(value.dtype) for node, value in seen.values()}
    spread = None if called is None else spread_of(called)
    if spread is None:
        noise = [noisy_nodes(call, launch, seed) for seed in range(VARIANTS)]
        orders = {} if called is None else _orders(call, launch, called)
        return {
            node: reference_of(
                value,
                native[node],
                [variant[node].reshape(value.shape) for variant in noise],
                orders=[one.reshape(value.shape).to(native[node].dtype) for one in orders.get(node, ())],
            )
            for node, value in values.items()
        }
    nodes = [seen.get(arg.name, (None, None))[0] for arg in _written(launch)]
    return {
        node: spread.reference(index, values[node], native[node].dtype)
        for index, node in enumerate(nodes)
        if node is not None
    }


def _orders(call: RecordedCall, launch: Launch, called: OperatorCall) -> dict[str, list[torch.Tensor]]:
    """Results of nodes in other orders of sums, where aten's own are known, and rounded in each step."""
    threads = call.run.info.get("environment", {}).get("threads", 1)
    made = narrow_sums(called, {1, threads} if isinstance(threads, int) and 0 < threads <= _THREADS else {1})
    names = {result.arg.name: node for node, result in call.observed.left_by(launch).items()}
    written = [names.get(arg.name) for arg in _written(launch)]
    found: dict[str, list[torch.Tensor]] = {}
    for index, node in enumerate(written):
        if node is not None:
            found[node] = [results[index] for results in made if index in results]
    return found
