"""What a value of a kernel has to do with the batch: a small lattice for ``dependence``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["FIXED", "Cut", "Fact", "joined", "moved_axes"]


@dataclass(frozen=True)
class Cut:
    """A condition that depends on the batch. key: of its expression; axes: where it varies."""

    key: str
    axes: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Fact:
    """What is known of a value.

    key: its expression, without what only changes its shape; equal keys are equal values.
    position: whether it depends on which program instance it is, so on where in the batch a row is.
    size: whether it depends on how many rows there are.
    data: whether it is made of integers that were loaded for rows of the batch.
    axes: along which elements of it differ.
    atoms: keys of the parts of a linear expression that depend on the batch.
    terms: of a condition: what it is the conjunction of, as far as that depends on the batch.
    needs: conditions on the batch under which it is what it would be in every batch.
    """

    key: str = ""
    position: bool = False
    size: bool = False
    data: bool = False
    axes: frozenset[int] = frozenset()
    atoms: frozenset[str] = frozenset()
    terms: frozenset[Cut] = frozenset()
    needs: frozenset[Cut] = frozenset()

    @property
    def batch(self) -> bool:
        """Whether it depends on the batch at all."""
        return self.position or self.size


FIXED = Fact()


def joined(facts: Iterable[Fact], key: str = "") -> Fact:
    """What depends on all of ``facts``."""
    found = Fact(key)
    for one in facts:
        found = Fact(
            key,
            found.position or one.position,
            found.size or one.size,
            found.data or one.data,
            found.axes | one.axes,
            found.atoms | one.atoms,
            found.terms | one.terms,
            found.needs | one.needs,
        )
    return found


def moved_axes(fact: Fact, moved: dict[int, int]) -> Fact:
    """The same with axes renamed; axes that are not in ``moved`` are gone."""

    def renamed(axes: frozenset[int]) -> frozenset[int]:
        return frozenset(moved[axis] for axis in axes if axis in moved)

    def all_renamed(cuts: frozenset[Cut]) -> frozenset[Cut]:
        return frozenset(Cut(one.key, renamed(one.axes)) for one in cuts)

    return replace(fact, axes=renamed(fact.axes), terms=all_renamed(fact.terms), needs=all_renamed(fact.needs))
