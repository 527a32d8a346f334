"""The second opinion on a kernel: its own source in float64 against its FX nodes in float64.

Both are computed from the same bits, and neither rounds: overflow, saturation and the order of sums are in neither. So
they agree to far less than what legal arithmetic moves results by, or the kernel is another computation.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import torch

from torchport.errors import TorchportError
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.classes import classes_of
from torchport.numerics.verdicts.graph_reference import UNKNOWN
from torchport.numerics.verdicts.limits import ELEMENT
from torchport.numerics.verdicts.measure import relative_l2
from torchport.numerics.verdicts.narrowed import narrowed_to
from torchport.numerics.verdicts.observed import tensor_of
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.numerics.verdicts.references import DECISION_SCALE, Reference, decides, least_sigma, reference_of
from torchport.numerics.verdicts.replay import view
from torchport.numerics.verdicts.ties import are_ties
from torchport.numerics.verdicts.unknown_reads import UnknownReads
from torchport.numerics.verdicts.verdict import KernelVerdict, TensorVerdict, judge_tensor

__all__ = ["NO_NODE", "second_opinion"]

NO_NODE = "it is not known to hold an FX node's value"
"""Why an output is not compared."""

_CASTS = re.compile(r"arith\.truncf|tt\.fp_to_fp")

_ROUNDED = 16.0
"""Limits beyond which errors are those of a rounding that does not belong there."""

_VARIANTS, _DECISIONS = 8, 32
"""Variants that are drawn where the two differ. Constants of a kernel are rounded, those of nodes are not, so a
decision may go another way in one element; noise of 4 sigma makes it go that way in three of eight variants or more."""


def second_opinion(
    call: RecordedCall, launch: Launch, verdict: KernelVerdict, nodes: Mapping[str, torch.Tensor],
    refused: Mapping[str, str], is_bad: Callable[[Launch], bool],
) -> KernelVerdict:  # fmt: skip
    """The verdict on a kernel, FAIL where its source is another computation than its FX nodes.

    ``nodes``: float64 values of what it left, from what it read; ``refused``: why others have none. ``is_bad``: whether
    another launch of the call is at fault by itself. Outputs that are not compared say why; if none is, the method
    does. Operators, which are judged by their nodes, are unchanged.
    """
    if launch.kernel is None or not verdict.tensors:
        return verdict
    opinion = _Opinion(call, launch, nodes, is_bad)
    held = {result.arg.name: node for node, result in call.observed.left_by(launch).items()}
    reasons = {node: refused.get(node, NO_NODE) for node in held.values() if node not in nodes}
    chained = [node for node, reason in reasons.items() if reason == UNKNOWN]
    without: dict[str, str] = {}
    opinion.chained = call.reference.inside(launch, chained, assume=True, refused=without) if chained else {}
    reasons |= without
    tensors = []
    for tensor in verdict.tensors:
        node = held.get(tensor.argument)
        if node is None or not (node in nodes or node in opinion.chained):
            tensors.append(replace(tensor, unchecked=NO_NODE if node is None else reasons[node]))
        else:
            tensors.append(opinion.on(tensor, node))
    if all(tensor.unchecked for tensor in tensors) and verdict.method == "kernel in float64":
        verdict = replace(verdict, method="kernel in float64, not its FX nodes")
    added = tuple(
        f"{new.node or new.argument}: {reason}"
        for old, new in zip(verdict.tensors, tensors, strict=True)
        for reason in new.reasons[len(old.reasons) :]
    )
    return replace(verdict.with_tensors(tensors), reasons=(*verdict.reasons, *added))


class _Opinion:
    """The comparison of one launch. ``nodes``: the float64 values of what it left; ``is_bad``: as above.

    ``chained``: values of nodes that follow only from what launches before this one read.
    """

    def __init__(
        self,
        call: RecordedCall,
        launch: Launch,
        nodes: Mapping[str, torch.Tensor],
        is_bad: Callable[[Launch], bool],
    ) -> None:
        self.call, self.launch, self.nodes, self.is_bad = call, launch, nodes, is_bad
        self.chained: dict[str, torch.Tensor] = {}
        self._unknown = UnknownReads(call, launch)

    def on(self, tensor: TensorVerdict, node: str) -> TensorVerdict:
        """The verdict on one output, compared with its node."""
        known, exact = tensor.reference, self.nodes.get(node, self.chained.get(node))
        if known is None or not isinstance(exact, torch.Tensor) or exact.numel() != known.values.numel():
            return replace(tensor, unchecked="its node has another shape")
        if exact.is_complex() or known.values.is_complex():
            return replace(tensor, unchecked="it is complex")
        exact = exact.reshape(known.values.shape)
        others = self._unknown.that_matter if node in self.nodes else self._unknown.args
        found = self._compared(tensor.argument, node, known, exact, {})
        if found is not None and others:
            writers = [self.call.observed.writer_of(arg, self.launch) for arg in others]
            if any(writer is None or self.is_bad(writer) for writer in writers):
                names = ", ".join(arg.name for arg in others)
                return replace(tensor, unchecked=f"it follows from {names}, which no FX node's value is known to be in")
            found = self._compared(tensor.argument, node, known, exact, self._unknown.moved)
            numbers = ", ".join(dict.fromkeys(str(one.seq) for one in writers if one is not None))
            with_others = f"together with launch {numbers}, whose results it reads, "
        if found is None:
            return self._rounded(tensor, known)
        reason = f"{found[0]}: {with_others if others else ''}the kernel is another computation"
        reasons, score = (*tensor.reasons, reason), max(tensor.score, found[1])
        return replace(tensor, level="FAIL", cause=None, reasons=reasons, score=score)

    def _rounded(self, tensor: TensorVerdict, known: Reference) -> TensorVerdict:
        """The verdict where the kernel's source rounds to a type that nothing around it has: that noise is none of its.

        Errors are taken without it: one of 16 bits is thousands of those of 32, far more than orders of sums move.
        """
        if tensor.is_bad or not self._narrow or not known.dtype.is_floating_point:
            return tensor
        arg = next(one for one in self.launch.args if one.name == tensor.argument)
        value = tensor_of(self.call.run, arg)
        without = self._references(0).get(tensor.argument)
        if value is None or without is None:
            return tensor
        again = judge_tensor(value, without, tensor.argument, tensor.node)
        if not again.is_bad or again.score < _ROUNDED:
            return tensor
        reason = (
            f"{again.reasons[0]}: the kernel rounds to {' and '.join(self._narrow)}, which nothing that it reads, "
            "writes or computes has"
        )
        reasons, score = (*tensor.reasons, reason), max(tensor.score, again.score)
        return replace(tensor, level="FAIL", cause=None, reasons=reasons, errors=again.errors, score=score)

    @cached_property
    def _narrow(self) -> tuple[str, ...]:
        return narrowed_to(self.call, self.launch)

    def _compared(
        self, argument: str, node: str, known: Reference, exact: torch.Tensor, moved: Mapping[str, torch.Tensor]
    ) -> tuple[str, float] | None:
        """What is wrong in an output, and by how many limits; None if nothing is. ``moved``: as of UnknownReads."""
        if known.dtype.is_floating_point:
            return self._floats(argument, known, exact.double(), moved.get(argument))
        return self._integers(argument, node, known, exact)

    def _floats(
        self, argument: str, known: Reference, exact: torch.Tensor, moved: torch.Tensor | None
    ) -> tuple[str, float] | None:
        values, stored = known.values, (classes_of(one.to(known.dtype)) for one in (known.values, exact))
        possible, wanted = classes_of(values), classes_of(exact)
        other = ((possible & wanted) == 0) & (torch.bitwise_and(*stored) == 0)
        for drawn in self._drawn(argument, known) if bool(other.any()) else ():
            assert drawn.classes is not None
            other &= (drawn.classes & wanted) == 0
        if count := int(torch.count_nonzero(other)):
            names = f"it gives {_kinds(possible[other])}, they give {_kinds(wanted[other])}"
            return f"{count} of {other.numel()} elements are of another class than its FX nodes ({names})", math.inf
        finite = torch.isfinite(values) & torch.isfinite(exact)
        zero = torch.zeros((), dtype=torch.float64)
        size, error = torch.where(finite, exact, zero), torch.where(finite, values - exact, zero)
        floor = least_sigma(size, known.dtype)
        wrong, off = error.abs() > floor, zero
        for drawn in self._drawn(argument, known) if bool(wrong.any()) else ():
            assert drawn.sigma is not None
            sigma = torch.where(torch.isfinite(drawn.sigma), drawn.sigma, floor).maximum(floor)
            off = error.abs() / (sigma if moved is None else sigma + moved)
            wrong = off > ELEMENT
            if not bool(wrong.any()):
                break
        if not bool(wrong.any()):
            return None
        largest = float(off.max())
        text = f"{int(torch.count_nonzero(wrong))} of {wrong.numel()} elements are off from its FX nodes in float64, "
        text += f"by up to {largest:.3g} sigma (limit {ELEMENT:g}; relative L2 {relative_l2(error, size):.2g})"
        return text, largest / ELEMENT

    def _integers(self, argument: str, node: str, known: Reference, exact: torch.Tensor) -> tuple[str, float] | None:
        """The same for integers and booleans: they are equal, legal rounding decides them, or they are ties."""
        wrong = known.values != exact
        for drawn in self._drawn(argument, known) if bool(wrong.any()) else ():
            for alternative in drawn.alternatives:
                wrong &= alternative != exact
        if bool(wrong.any()):
            wrong &= ~are_ties(self.call, self.launch, node, known.values, exact)
        if count := int(torch.count_nonzero(wrong)):
            return (
                f"{count} of {wrong.numel()} are not those of its FX nodes, and no legal rounding does that",
                math.inf,
            )
        return None

    def _drawn(self, argument: str, known: Reference) -> Iterator[Reference]:
        """References of an output whose noise has none of conversions, as neither side has them; the cheapest first."""
        if not _CASTS.search(str(self.call.run.kernels.get(str(self.launch.kernel), {}).get("ttir"))):
            yield known
        for decisions in (0, _DECISIONS):
            yield self._references(decisions).get(argument, known)

    @cached_property
    def _references(self) -> Callable[[int], dict[str, Reference]]:
        run, launch = self.call.run, self.launch
        return functools.cache(lambda decisions: _without_casts(run, launch, decisions))


def _without_casts(run: Run, launch: Launch, decisions: int) -> dict[str, Reference]:
    """References of a kernel's outputs by noise on all but conversions; none if it cannot be replayed so."""
    try:
        replay, storages, outputs = replay_of(run, launch)

        def drawn(seed: int, scale: float) -> dict[int, torch.Tensor]:
            return replay.run(storages, {"promote": True, "noise": {"seed": seed, "scale": scale, "casts": False}})

        exact = replay.run(storages, {"promote": True})
        noise = [drawn(seed, 1.0) for seed in range(1, _VARIANTS + 1)]
        more = [drawn(1000 + seed, DECISION_SCALE) for seed in range(decisions)] if decides(replay) else []
    except TorchportError:
        return {}
    found = {}
    for output in outputs:
        values, *others = (view(output, one[output.storage or 0]) for one in (exact, *noise, *more))
        dtype = output.dtype or values.dtype
        found[output.name] = reference_of(values, values.to(dtype), others[:_VARIANTS], others[_VARIANTS:])
    return found


def _kinds(classes: torch.Tensor) -> str:
    names = {1: "numbers", 2: "NaN", 4: "+Inf", 8: "-Inf"}
    return ", ".join(name for bit, name in names.items() if bool((classes & bit).any()))
