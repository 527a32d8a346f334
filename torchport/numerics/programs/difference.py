"""What differs between two runs: one difference, and all of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["KINDS", "Condition", "Difference", "Programs", "unified"]

KINDS = {
    "kernel": "source of a kernel of the user's",
    "operator": "source of a custom operator",
    "graph": "the graph",
    "results": "what is returned",
    "precision": "the type that an operation computes in",
    "weight": "a weight or a buffer",
    "input": "an input",
}
"""Kinds of differences, in the order in which they are shown."""


@dataclass(frozen=True)
class Difference:
    """One difference between two programs, or in what they were given.

    kind: one of KINDS
    name: of the kernel, the operator, the weight or the input; the place in the model of a part of the graph
    summary: in one line
    diff: lines of a unified diff, from A to B
    places: the user's source lines
    """

    kind: str
    name: str
    summary: str
    diff: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Condition:
    """What one run was recorded under, and the other: it explains legal differences and decides nothing."""

    what: str
    a: str
    b: str

    @property
    def differs(self) -> bool:
        return self.a != self.b


@dataclass
class Programs:
    """How two runs differ as programs.

    differences: in the order of KINDS, then of the model
    conditions: what the runs were recorded under, including what is equal
    notes: what is no difference
    unknown: why it could not be told whether the graphs compute the same
    unseen: how many calls of graphs there were of which it was not recorded what they were given
    shared: whether the runs have anything in common
    """

    differences: list[Difference] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unseen: int = 0
    shared: bool = True

    @property
    def same(self) -> bool:
        """Whether A and B are one program that was given the same data."""
        return not self.differences

    @property
    def headline(self) -> str:
        """The answer in one line."""
        if self.same and self.unknown:
            return f"Whether A and B are the same program is not known: {self.unknown[0]}."
        if self.same:
            calls = "1 later call is" if self.unseen == 1 else f"{self.unseen} later calls are"
            known = f", as far as they were recorded: {calls} not" if self.unseen else ""
            return f"Same program, same weights, same inputs{known}."
        kinds = {one.kind for one in self.differences}
        data = kinds & {"weight", "input"}
        if data == kinds:
            names = [name for kind, name in (("weight", "weights"), ("input", "inputs")) if kind in kinds]
            return f"The runs were given other {' and '.join(names)}: B - A is not an error."
        also = " and were given other data" if data else ""
        return f"A and B are different programs{also}: what follows compares two different computations."


def unified(a: Sequence[str], b: Sequence[str]) -> tuple[str, ...]:
    """A unified diff of lines, without its head."""
    return tuple(line.rstrip("\n") for line in difflib.unified_diff(list(a), list(b), "A", "B", lineterm="", n=3))[2:]
