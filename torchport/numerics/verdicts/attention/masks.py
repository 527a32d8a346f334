"""Faults of attention in its masks: what rows see."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from torchport.numerics.verdicts.attention.fault import BLOCKS, Fault, Tries, to
from torchport.numerics.verdicts.attention.reference import Attention, Results

__all__ = ["EMPTY", "MASKS"]

_BLOCKED = (*((size, size) for size in BLOCKS), (64, 32), (64, 128), (128, 32), (128, 64))
"""Blocks of rows and keys that are tried."""


def _bound(name: str, side: str, by: int) -> Fault:
    """A bound of the band that is off by one."""

    def tries(right: Attention, got: Results) -> Tries:
        bound: int | None = getattr(right, side)
        if bound is not None:
            more = "one key too many" if by > 0 else "one key too few"
            where = "after" if side == "right" else "before"
            says = f"rows see {more} {where} them: up to {bound + by} in place of {bound}"
            yield says, to(**{side: bound + by})
            for blocks in _BLOCKED if by > 0 else ():
                yield f"{says}, in blocks that are computed", to(**{side: bound + by}, blocks=_within(*blocks))

    return Fault(name, tries)


def _within(rows: int, keys: int) -> Callable[[Attention], tuple[int, int, int | None, int | None]]:
    """The blocks that a kernel computes: those with a key that a row of theirs sees."""
    return lambda one: (rows, keys, one.left, one.right)


def _unmasked(name: str, side: str, says: str) -> Fault:
    """A bound of the band that is missing: altogether, or in the blocks that are computed."""

    def tries(right: Attention, got: Results) -> Tries:
        if getattr(right, side) is None:
            return
        yield says, to(**{side: None})
        for rows, keys in _BLOCKED:
            where = f"in the same block of {max(rows, keys)} rows and keys"
            yield f"{says} {where}", to(**{side: None}, blocks=_within(rows, keys))

    return Fault(name, tries)


def _corner(right: Attention, got: Results) -> Tries:
    bounded = right.left is not None or right.right is not None
    if bounded and right.shift:
        yield "masks begin at the top left in place of ending at the bottom right", to(shift=0)
    elif bounded and right.keys != right.rows:
        says = "masks end at the bottom right in place of beginning at the top left"
        yield says, to(shift=lambda one: one.keys - one.rows)


def _mask(says: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Attention, Results], Tries]:
    def tries(right: Attention, got: Results) -> Tries:
        if right.bias is not None and right.bias.dtype == torch.bool:
            yield says, to(bias=lambda one: change(one.bias))

    return tries


def _empty(right: Attention, got: Results) -> Tries:
    if bool(right.seen(slice(None)).any(-1).all()):
        return
    yield "rows that see nothing are NaN, not 0", to(hidden=math.nan)
    least = torch.finfo(torch.float32).min
    for hidden in (-1e4, -1e6, -1e9, -1e20, -1e30, -3e38, least, torch.finfo(torch.bfloat16).min):
        yield f"rows that see nothing see all keys alike, as masks are {hidden:.3g}", to(hidden=hidden)


MASKS = (
    _bound("causal mask too wide", "right", 1),
    _bound("causal mask too narrow", "right", -1),
    _bound("window too wide", "left", 1),
    _bound("window too narrow", "left", -1),
    Fault("corner of the mask", _corner),
    _unmasked("causal mask missing", "right", "rows see keys after them"),
    _unmasked("window missing", "left", "rows see keys before their window"),
    Fault("mask missing", _mask("the mask is not applied", lambda mask: None)),
    Fault("mask inverted", _mask("rows see what they should not, and not what they should", torch.logical_not)),
)
EMPTY = Fault("rows that see nothing", _empty)
