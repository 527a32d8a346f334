"""The known faults of attention: one row a fault, each a small change of the reference in float64.

Faults of the forward pass are tried in the backward pass, too, which computes the scores again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from torchport.numerics.verdicts.attention.fault import BLOCKS, Fault, Tries, to
from torchport.numerics.verdicts.attention.masks import EMPTY, MASKS
from torchport.numerics.verdicts.attention.reference import Attention, Results
from torchport.numerics.verdicts.attention.scales import FACTORS, SCALES

__all__ = ["FAULTS"]


def _stale(right: Attention, got: Results) -> Tries:
    """Sums, results or both of earlier blocks of keys are not rescaled."""
    if right.grad is not None:
        return
    for block in (one for one in BLOCKS if one < right.keys):
        for sums, result, what in ((True, True, "sums and results"), (True, False, "sums"), (False, True, "results")):
            says = f"{what} of earlier blocks of {block} keys are not rescaled when the maximum grows"
            yield says, to(stale=(block, sums, result))


def _bias(right: Attention, got: Results) -> Tries:
    if right.bias is not None and right.bias.dtype != torch.bool:
        yield "the bias is not added", to(bias=None)
        yield "the bias is scaled like the products", to(bias=lambda one: one.bias * one.scale)
        yield "the bias is added to scores in powers of two as it is", to(bias=lambda one: one.bias * math.log(2))


def _softcap(right: Attention, got: Results) -> Tries:
    if right.cap:
        yield "scores have no soft cap", to(cap=0.0)
        yield "the soft cap comes before the scale", to(cap=right.cap * right.scale)


def _sinks(right: Attention, got: Results) -> Tries:
    if right.sinks is not None:
        yield "the sinks are not in the sums", to(sinks=None)


def _slopes(right: Attention, got: Results) -> Tries:
    if right.slopes is not None:
        yield "the slopes of ALiBi are missing", to(slopes=None)
        yield "the slopes of ALiBi have the wrong sign", to(slopes=lambda one: -one.slopes)
        yield "the slopes of ALiBi lack log2(e)", to(slopes=lambda one: one.slopes * math.log(2))


def _exchanged(one: Attention) -> Attention:
    assert one.far is not None
    far = replace(one.far, query=one.query, key=one.key)
    return replace(one, query=one.far.query, key=one.far.key, far=far)


def _threshold(right: Attention, got: Results) -> Tries:
    if right.far is None:
        return
    for by in (1, -1):
        says = f"keys are far from a distance of {right.far.threshold + by} on, in place of {right.far.threshold}"
        yield says, to(far=lambda one, by=by: replace(one.far, threshold=one.far.threshold + by))
    if right.grad is None:
        yield "near and far keys are exchanged", _exchanged


def _dropout(right: Attention, got: Results) -> Tries:
    if right.kept is not None:
        yield "what dropout keeps is not divided by 1 - p", to(kept=lambda one: (one.kept > 0).double())
        yield "nothing is dropped", to(kept=None)


def _heads(right: Attention, got: Results) -> Tries:
    if right.group > 1 and right.key.shape[0] > 1:
        yield "head h has key head h % heads of keys in place of h // group", to(cyclic=True)


def _before(what: str, block: int) -> Callable[[Attention], int]:
    """Where the last block of keys or rows begins; all of a sequence of one block stay."""

    def last(one: Attention) -> int:
        count: int = getattr(one, what)
        return (count - 1) // block * block or count

    return last


def _lost(right: Attention, got: Results) -> Tries:
    if right.chunk:
        return
    for block in BLOCKS:
        last = (right.keys - 1) // block * block
        if last > 0:
            yield f"the last block of {block} keys is lost", to(last=_before("keys", block))
    if right.keys > 1:
        yield "the last key is lost", to(last=_before("keys", 1))


def _padding(right: Attention, got: Results) -> Tries:
    if right.grad is not None or right.right is not None or right.chunk or right.kept is not None:
        return
    for block in BLOCKS:
        if -right.keys % block:
            says = f"the rest of the last block of {block} keys, behind the last key, is not masked"
            yield says, to(padding=lambda one, block=block: -one.keys % block)


def _delta(right: Attention, got: Results) -> Tries:
    if right.deltas is not None:
        says = "the sum of gradient times result of each row (delta) is not taken off"
        yield says, to(deltas=lambda one: torch.zeros_like(one.deltas))


def _sums(right: Attention, got: Results) -> Tries:
    if right.sums is not None:
        for factor, bases in ((math.log(2), "natural for binary"), (1 / math.log(2), "binary for natural")):
            yield (
                f"logarithms of sums are taken in the wrong base, {bases}",
                to(sums=lambda one, factor=factor: one.sums * factor),
            )


def _straight(right: Attention, got: Results) -> Tries:
    if right.cap and right.grad is not None:
        yield "the derivative of the soft cap is missing", to(straight=True)


def _step(right: Attention, got: Results) -> Tries:
    if right.grad is not None:
        yield "the mask is not applied to the gradient of scores", to(step_unmasked=True)


def _group(right: Attention, got: Results) -> Tries:
    if right.grad is not None and right.group > 1:
        for member, which in ((right.group - 1, "last"), (0, "first")):
            says = f"gradients of keys and values are those of the {which} head of a group, not their sum"
            yield says, to(member=member)


def _rows(right: Attention, got: Results) -> Tries:
    if right.grad is None:
        return
    for block in BLOCKS:
        last = (right.rows - 1) // block * block
        if last > 0:
            says = f"gradients of keys and values lack the last block of {block} rows"
            yield says, to(last_row=_before("rows", block))


FAULTS: tuple[Fault, ...] = (
    *SCALES,
    Fault("rescale", _stale),
    *MASKS,
    Fault("bias", _bias),
    Fault("soft cap", _softcap),
    Fault("sink missing", _sinks),
    Fault("ALiBi", _slopes),
    Fault("near and far", _threshold),
    Fault("dropout", _dropout),
    Fault("heads of keys", _heads, among_heads=True),
    Fault("last block of keys", _lost),
    Fault("keys behind the last", _padding),
    EMPTY,
    Fault("delta missing", _delta),
    Fault("base of the sums", _sums),
    *FACTORS,
    Fault("derivative of the soft cap", _straight),
    Fault("mask of the gradient", _step),
    Fault("sum over the group", _group),
    Fault("last block of rows", _rows),
)
"""Every known fault. One whose results are those of a right attention is none."""
