"""The tree of a result: what is added to what, with what repeats written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Apply", "Constant", "Load", "Meet", "Node", "Pairs", "Run", "Step", "Tree", "leaves", "places", "terms"]

Step: TypeAlias = tuple[int, ...]
"""By how many elements the loads of a copy are further on, in the order in which they stand in the body.

The ``shape`` of a node is a number: equal for nodes of one tree that differ in the places of their loads only.
"""


@dataclass(frozen=True)
class Load:
    """An element of a storage, as it was before the launch."""

    storage: int
    place: int
    type: str
    shape: int = field(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class Constant:
    """A number."""

    value: float
    type: str
    shape: int = field(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class Apply:
    """Any operation that is no sum. name, type, source, detail: as of ``nodes.Kind``."""

    name: str
    type: str
    source: str
    detail: str
    operands: tuple[Node, ...]
    shape: int = field(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class Run:
    """A running sum: ((start + b0) + b1) + b2 ..., where b1 is ``body`` with its loads ``step`` further on.

    operation: what adds, ``arith.addf``; or takes the largest.
    start: None if b0 itself is the first partial sum.
    fused: whether each term is a product that is added without being rounded (fused multiply-add).
    """

    operation: str
    type: str
    body: Node
    count: int
    step: Step
    start: float | None = None
    fused: bool = False
    shape: int = field(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class Pairs:
    """Copies of ``body`` that meet in pairs: first those ``steps[0]`` apart, then their sums ``steps[1]`` apart ...

    There are 2 to the number of steps of them: the lanes of a vector, mostly.
    """

    operation: str
    type: str
    body: Node
    steps: tuple[Step, ...]
    shape: int = field(default=-1, compare=False, repr=False)


@dataclass(frozen=True)
class Meet:
    """Two different sums that are added. fused: ``right`` is a product that is added without being rounded."""

    operation: str
    type: str
    left: Node
    right: Node
    fused: bool = False
    shape: int = field(default=-1, compare=False, repr=False)


Node: TypeAlias = Load | Constant | Apply | Run | Pairs | Meet


@dataclass(frozen=True)
class Tree:
    """How one element is computed.

    off_loads: of masked loads, by storage and place, the number that is there instead.
    off_terms: of whole terms that a mask replaces, by the shape of the term and the places of its loads: the number
        that is there instead; None for a term that is left out.
    names: of the storages.
    """

    root: Node
    off_loads: Mapping[tuple[int, int], float] = field(default_factory=dict)
    off_terms: Mapping[tuple[int, Step], float | None] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)


def children(node: Node) -> tuple[Node, ...]:
    """What a node is made of."""
    if isinstance(node, Apply):
        return node.operands
    if isinstance(node, Meet):
        return node.left, node.right
    return (node.body,) if isinstance(node, (Run, Pairs)) else ()


def leaves(node: Node) -> list[Load]:
    """The loads that are written in a node, left to right; those of repeated bodies once."""
    if isinstance(node, Load):
        return [node]
    return [leaf for child in children(node) for leaf in leaves(child)]


def places(node: Node) -> Step:
    """Where these loads are."""
    return tuple(leaf.place for leaf in leaves(node))


def terms(node: Node) -> int:
    """How many terms are summed up, those that are masked among them; 1 for what is no sum."""
    if isinstance(node, Run):
        return node.count * terms(node.body)
    if isinstance(node, Pairs):
        return terms(node.body) << len(node.steps)
    return terms(node.left) + terms(node.right) if isinstance(node, Meet) else 1
