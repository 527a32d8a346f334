"""Mutants of launches: whether float64 sees them, and whether payloads do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from equivalence_bench.mutants import Mutant, mutants
from torchport.errors import TorchportError
from torchport.numerics.algebra.equivalence import NOT_PROVABLE, Equivalence, equivalence
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.verdicts.replay import Replay

__all__ = ["Judged", "chosen", "judged"]

_CHANGED = 1e-9
"""A relative difference of float64 results that their rounding does not make."""


@dataclass(frozen=True)
class Judged:
    """A mutant: whether its float64 results differ on the recorded numbers, and what payloads say of it."""

    name: str
    mutant: Mutant
    changed: bool
    found: Equivalence


def chosen(launches: Sequence[tuple[str, AlgebraLaunch]], seed: int) -> Iterator[tuple[str, AlgebraLaunch, Mutant]]:
    """Mutants in a random order in which kinds take turns, so that rare ones come too."""
    chance = random.Random(seed)
    kinds: dict[str, list[tuple[str, AlgebraLaunch, Mutant]]] = {}
    for name, launch in launches:
        for mutant in mutants(launch.ttir):
            kinds.setdefault(mutant.kind, []).append((name, launch, mutant))
    for group in kinds.values():
        chance.shuffle(group)
    while any(kinds.values()):
        for kind in sorted(kinds):
            if kinds[kind]:
                yield kinds[kind].pop()


def judged(name: str, launch: AlgebraLaunch, mutant: Mutant) -> Judged | None:
    """None for a mutant that cannot be compiled, or that float64 cannot judge."""
    other = replace(launch, ttir=mutant.ttir)
    try:
        changed = _differs(_real(launch), _real(other))
    except (TorchportError, RuntimeError):
        return None
    found = equivalence(launch, other, 1)
    return (
        None
        if found.verdict == NOT_PROVABLE and "cannot read" in found.reason
        else Judged(name, mutant, changed, found)
    )


def _real(launch: AlgebraLaunch) -> dict[int, torch.Tensor]:
    return Replay(launch.ttir, launch.arguments, launch.grid).run(launch.storages, {"promote": True})


def _differs(a: dict[int, torch.Tensor], b: dict[int, torch.Tensor]) -> bool:
    for number, ours in a.items():
        x, y = ours.double(), b[number].double()
        same = (x == y) | (x.isnan() & y.isnan())
        size = torch.maximum(x.abs(), y.abs())
        near = (x - y).abs() <= _CHANGED * size
        if bool((~same & ~(near & x.isfinite() & y.isfinite())).any()):
            return True
    return False
