"""Whether two launches compute the same algebra: the same payloads, from the same random ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from torchport.arithmetic.payload.field import NAN
from torchport.errors import CompilationError, TorchportError, UnsupportedOperation
from torchport.numerics.algebra.launch import AlgebraLaunch, NotProvable
from torchport.numerics.algebra.payloads import alike, drawn, shown
from torchport.numerics.verdicts.replay import NotReplayable, Replay

__all__ = [
    "NOT_PROVABLE",
    "PROVEN",
    "REFUTED",
    "SEEDS",
    "Difference",
    "Equivalence",
    "compared",
    "equivalence",
    "with_counterexample",
]

PROVEN, REFUTED, NOT_PROVABLE = "PROVEN", "REFUTED", "NOT PROVABLE"
SEEDS = 3
_REAL = 1e-6
"""A relative difference of float64 results that is no rounding error of theirs."""


@dataclass(frozen=True)
class Difference:
    """The first element that differs.

    argument: its name in the first kernel.
    index: where it is.
    a, b: what the kernels left there, as text.
    real: float64 results there, or at the element ``real_index`` where they differ most; None where they do not differ.
    """

    argument: str
    index: tuple[int, ...]
    a: str
    b: str
    real: tuple[float, float] | None = None
    real_index: tuple[int, ...] = ()


@dataclass(frozen=True)
class Equivalence:
    """The verdict.

    verdict: PROVEN, REFUTED or NOT PROVABLE.
    reason: why it is the last; a remark for others.
    elements: that were written and agree, of all seeds together.
    """

    verdict: str
    reason: str = ""
    elements: int = 0
    difference: Difference | None = None


def equivalence(
    a: AlgebraLaunch, b: AlgebraLaunch, seeds: int = SEEDS, *, order: bool = False, rows: bool = False
) -> Equivalence:
    """Compare what two launches leave in the storages that they share by number.

    Both get ``a``'s integers and infinities, and the same payloads. Float types may differ, sizes may not.

    ``order``: ask for the same operations in the same order: the same bits. ``rows``: sizes may differ; the shorter of
    two storages is the beginning of the longer one, and their beginnings are compared.
    """
    for number in sorted(a.storages.keys() | b.storages.keys()):
        ours, theirs = a.storages.get(number), b.storages.get(number)
        if ours is None or theirs is None or (ours.numel() != theirs.numel() and not rows):
            return Equivalence(NOT_PROVABLE, f"tensor {number} is not of one size in both launches")
        if ours.dtype != theirs.dtype and not (ours.is_floating_point() and theirs.is_floating_point()):
            return Equivalence(NOT_PROVABLE, f"tensor {number} is {ours.dtype} and {theirs.dtype}")
    elements = 0
    note = ""
    for seed in range(seeds):
        longest = {number: max(one, b.storages[number], key=len) for number, one in a.storages.items()} if rows else {}
        whole = drawn({**a.storages, **longest}, seed)
        befores = [{number: whole[number][: len(one)] for number, one in launch.storages.items()} for launch in (a, b)]
        try:
            after = [launch.run(before, order=order) for launch, before in zip((a, b), befores, strict=True)]
        except (NotProvable, NotReplayable, UnsupportedOperation, CompilationError) as error:
            return Equivalence(NOT_PROVABLE, str(error))
        shared = {number: min(len(side[number]) for side in after) for number in whole}
        before, *after = ({number: one[number][:count] for number, count in shared.items()} for one in (whole, *after))
        found = compared(a, before, *after)
        if found.verdict != PROVEN:
            return found
        elements, note = elements + found.elements, found.reason
    return Equivalence(PROVEN, note, elements)


def compared(
    launch: AlgebraLaunch,
    before: Mapping[int, torch.Tensor],
    a: Mapping[int, torch.Tensor],
    b: Mapping[int, torch.Tensor],
) -> Equivalence:
    """Compare two sets of storages after a launch; those of ``before`` are what it was given."""
    written = undefined = 0
    for number in sorted(before):
        ours, theirs = a[number], b[number]
        is_float = launch.storages[number].is_floating_point()
        same = alike(ours, theirs) if is_float else ours == theirs
        if not bool(same.all()):
            place = int((~same).nonzero()[0])
            name, index = _named(launch, number, place)
            ours_there, theirs_there = (_text(launch, number, side[place]) for side in (ours, theirs))
            return Equivalence(REFUTED, "", 0, Difference(name, index, ours_there, theirs_there))
        changed = a[number] != before[number]
        written += int(changed.sum())
        if is_float:
            undefined += int((changed & (a[number] == NAN)).sum())
    if written == 0:
        return Equivalence(NOT_PROVABLE, "nothing is written")
    if undefined == written:
        return Equivalence(NOT_PROVABLE, "all results are NaN")
    return Equivalence(PROVEN, f"{undefined} results are NaN in both" if undefined else "", written - undefined)


def _text(launch: AlgebraLaunch, number: int, value: torch.Tensor) -> str:
    is_float = launch.storages[number].is_floating_point()
    return shown(int(value)) if is_float else str(value.item())


def _named(launch: AlgebraLaunch, number: int, place: int) -> tuple[str, tuple[int, ...]]:
    """The argument that an element of a storage belongs to, and where it is there; else its place in the storage."""
    for one in launch.arguments:
        if one.storage != number:
            continue
        rest, index = place - one.offset, {}
        for axis in sorted(range(len(one.shape)), key=lambda axis: -one.stride[axis]):
            step = one.stride[axis]
            index[axis] = min(rest // step, one.shape[axis] - 1) if step > 0 else 0
            rest -= index[axis] * step
        if rest == 0:
            return one.name, tuple(index[axis] for axis in range(len(one.shape)))
    return next((one.name for one in launch.arguments if one.storage == number), str(number)), (place,)


def with_counterexample(found: Equivalence, a: AlgebraLaunch, b: AlgebraLaunch) -> Equivalence:
    """A refutation with float64 results of both launches on ``a``'s numbers, where they differ."""
    difference = found.difference
    if difference is None:
        return found
    storages = {number: tensor for number, tensor in a.storages.items()}
    try:
        results = [
            Replay(one.ttir, one.arguments, one.grid).run(
                {n: storages[n].to(one.storages[n].dtype) for n in storages}, {"promote": True}
            )
            for one in (a, b)
        ]
    except TorchportError:
        return found  # no number can be shown; the refutation does not need one
    worst: tuple[float, str, tuple[int, ...], float, float] | None = None
    for number in sorted(storages):
        ours, theirs = (side[number].double() for side in results)
        off = (ours - theirs).abs() / torch.maximum(ours.abs(), theirs.abs()).clamp_min(1e-30)
        off = torch.where((ours == theirs) | (ours.isnan() & theirs.isnan()), 0.0, off.nan_to_num(math.inf, math.inf))
        if off.numel() == 0 or off.max() <= _REAL:
            continue
        place = int(off.argmax())
        name, index = _named(a, number, place)
        if worst is None or float(off[place]) > worst[0]:
            worst = float(off[place]), name, index, float(ours[place]), float(theirs[place])
    if worst is None:
        return found
    _, name, index, ours_there, theirs_there = worst
    shown_there = Difference(difference.argument, difference.index, difference.a, difference.b,
                             (ours_there, theirs_there), index)  # fmt: skip
    return Equivalence(found.verdict, f"in float64 most at {name}{list(index)}", found.elements, shown_there)
