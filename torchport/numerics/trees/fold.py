"""Folds the nodes that an element was computed from into a tree, in which what repeats is written once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from torchport.numerics.trees.follow import Followed
from torchport.numerics.trees.memory import NotFollowed
from torchport.numerics.trees.nodes import CONSTANT, EXTREMES, LOAD, NONE, Ids, Kind
from torchport.numerics.trees.tree import Apply, Constant, Load, Meet, Node, Pairs, Run, Step, Tree
from torchport.numerics.trees.values import needed

__all__ = ["signatures", "tree_of"]

_SUMS = EXTREMES | {"arith.addf"}
_MOST_PLACES = 4096
_Key: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Folded:
    """A sub-tree: its shape without places (a number), and the places of its loads."""

    shape: int
    places: Step


def tree_of(followed: Followed, node: int) -> Tree:
    """The tree of one node. Raises NotFollowed for one that is too irregular to be written down."""
    try:
        return _Folding(followed, masks=True).tree(node)
    except _MaskedAndNot:
        return _Folding(followed, masks=False).tree(node)


def signatures(followed: Followed, roots: Ids) -> list[tuple[str, Step]]:
    """Of each root: equal for the same operations in the same order on loads that are equally far from each other.

    Within each storage places count from the root's first load of it. What is masked is the constant that it is there.
    Raises NotFollowed.
    """
    folding = _Folding(followed, masks=False)
    folding.fold(roots)
    return [folding.signature(root) for root in roots.tolist()]


class _MaskedAndNot(Exception):
    """One element is loaded with its mask on and off: then what is masked stays what it is there, a constant."""


class _Folding:
    def __init__(self, followed: Followed, *, masks: bool) -> None:
        self._followed = followed
        self._masks = masks
        self._keys: list[_Key] = []
        self._numbers: dict[Hashable, int] = {}
        self._folded: dict[int, _Folded] = {}
        self._loads: dict[int, tuple[int, ...]] = {}
        self._described: dict[int, str] = {}
        self._off_loads: dict[tuple[int, int], float] = {}
        self._on_loads: set[tuple[int, int]] = set()
        self._off_terms: dict[tuple[int, Step], float | None] = {}
        self._on_terms: set[tuple[int, Step]] = set()

    def fold(self, roots: Ids) -> None:
        """Fold the nodes that ``roots`` need, operands first."""
        nodes = self._followed.nodes
        table, kinds = nodes.table(), nodes.kinds
        wanted = needed(nodes, roots)
        for node, (kind, *operands) in zip(wanted.tolist(), table[wanted].tolist(), strict=True):
            self._folded[node] = self._fold(kinds[kind], [one for one in operands if one != NONE])

    def signature(self, root: int) -> tuple[str, Step]:
        folded = self._folded[root]
        first: dict[int, int] = {}
        storages = self._storages(folded.shape)
        relative = tuple(
            place - first.setdefault(storage, place) for storage, place in zip(storages, folded.places, strict=True)
        )
        return self._description(folded.shape), relative

    def _storages(self, shape: int) -> tuple[int, ...]:
        """Of the loads of a shape, in order."""
        known = self._loads.get(shape)
        if known is None:
            key = self._keys[shape]
            if key[0] == LOAD:
                known = (key[1],)
            else:
                known = tuple(one for part in self._parts(key) for one in self._storages(part))
            self._loads[shape] = known
        return known

    def _description(self, shape: int) -> str:
        """A shape as a value that is the same in every folding."""
        known = self._described.get(shape)
        if known is None:
            key, parts = self._keys[shape], self._parts(self._keys[shape])
            first = 2 if key[0] == "apply" else 3
            own = key if not parts else (*key[:first], *key[first + len(parts) :])
            digest = hashlib.sha256(repr((own, [self._description(one) for one in parts])).encode())
            known = self._described[shape] = digest.hexdigest()
        return known

    def _parts(self, key: _Key) -> tuple[int, ...]:
        """Shapes that a key is made of."""
        if key[0] in (CONSTANT, LOAD):
            return ()
        if key[0] == "apply":
            return key[2:]
        return key[3:5] if key[0] == "meet" else key[3:4]

    def tree(self, root: int) -> Tree:
        self.fold(np.array([root]))
        clash = self._off_loads.keys() & self._on_loads or self._off_terms.keys() & self._on_terms
        if clash:
            raise _MaskedAndNot
        folded = self._folded[root]
        made, rest = self._node(folded.shape, folded.places)
        assert not rest
        return Tree(made, self._off_loads, self._off_terms, self._followed.arguments)

    # from nodes

    def _fold(self, kind: Kind, operands: list[int]) -> _Folded:
        if kind.name == CONSTANT:
            return self._new((CONSTANT, self._followed.nodes.constants[operands[0]], kind.type), ())
        if kind.name == LOAD:
            return self._load(kind, operands)
        folded = [self._folded[one] for one in operands]
        if kind.name == "pick":
            return self._pick(kind, folded)
        if kind.name == "math.fma":
            product = self._apply(Kind("arith.mulf", kind.type, kind.type), folded[:2])
            return self._add("arith.addf", kind.type, folded[2], product, fused=True)
        if kind.name in _SUMS:
            return self._add(kind.name, kind.type, folded[0], folded[1])
        return self._apply(kind, folded)

    def _load(self, kind: Kind, operands: list[int]) -> _Folded:
        place = (operands[0], operands[1])
        if kind.detail:
            other = self._folded[operands[2]]
            key = self._keys[other.shape]
            if key[0] != CONSTANT or not self._masks:
                return other
            if self._off_loads.setdefault(place, key[1]) != key[1]:
                raise _MaskedAndNot
        else:
            self._on_loads.add(place)
        return self._new((LOAD, operands[0], kind.type), (operands[1],))

    def _pick(self, kind: Kind, folded: list[_Folded]) -> _Folded:
        first, second = folded
        taken = kind.detail == "first"
        if not self._masks:
            return first if taken else second
        added = self._added(first, second)
        if added is not None:  # where(mask, sum + x, sum)
            if taken:
                return first
            operation, type_, term, fused = added
            self._off(term, None)
            return self._add(operation, type_, second, term, fused=fused)
        key = self._keys[second.shape]
        if key[0] != CONSTANT:
            return first if taken else second
        if taken:
            self._on_terms.add((first.shape, first.places))
        else:
            self._off(first, key[1])
        return first

    def _off(self, term: _Folded, value: float | None) -> None:
        place = term.shape, term.places
        if self._off_terms.setdefault(place, value) != value:
            raise _MaskedAndNot

    def _added(self, total: _Folded, before: _Folded) -> tuple[str, str, _Folded, bool] | None:
        """What ``total`` has more than ``before``, if it is a running sum with one term more."""
        key = self._keys[total.shape]
        if key[0] != "run":
            return None
        _, operation, type_, body, count, step, _, fused = key
        last = _Folded(body, _moved(total.places, step, count - 1))
        again = self._add(operation, type_, before, last, fused=fused)
        return (operation, type_, last, fused) if again == total and step else None

    def _apply(self, kind: Kind, folded: list[_Folded]) -> _Folded:
        key = ("apply", kind, *(one.shape for one in folded))
        return self._new(key, tuple(place for one in folded for place in one.places))

    def _new(self, key: _Key, places: Step) -> _Folded:
        if len(places) > _MOST_PLACES:
            raise NotFollowed("the tree is too irregular to be written down")
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._keys)
            self._keys.append(key)
        return _Folded(number, places)

    def _add(self, operation: str, type_: str, a: _Folded, b: _Folded, *, fused: bool = False) -> _Folded:
        found = self._joined(operation, type_, a, b, fused)
        if found is None and not fused:
            found = self._joined(operation, type_, b, a, fused)
        return found or self._new(("meet", operation, type_, a.shape, b.shape, fused), a.places + b.places)

    def _joined(self, operation: str, type_: str, a: _Folded, b: _Folded, fused: bool) -> _Folded | None:
        """``a + b`` as a longer run, or as one step more of pairs."""
        key = self._keys[a.shape]
        if key[0] == CONSTANT:
            inner = self._keys[b.shape]
            if (
                inner[0] == "run"
                and inner[1:3] == (operation, type_)
                and repr(inner[6]) == repr(key[1]) == "0.0"
                and (not inner[7])
            ):
                return b  # a sum that started from 0 is not -0, and 0 more changes nothing
            return self._new(("run", operation, type_, b.shape, 1, (0,) * len(b.places), key[1], fused), b.places)
        if key[0] == "run" and key[1] == operation and key[3] == b.shape and key[7] == fused:
            _, _, _, body, count, step, start, _ = key
            gap = tuple(y - x for x, y in zip(a.places, b.places, strict=True))
            if count == 1 or all(x == count * y for x, y in zip(gap, step, strict=True)):
                step = gap if count == 1 else step
                return self._new(("run", operation, type_, body, count + 1, step, start, fused), a.places)
        if a.shape != b.shape or fused:
            return None
        gap = tuple(y - x for x, y in zip(a.places, b.places, strict=True))
        if key[0] == "pairs" and key[1] == operation:
            return self._new(("pairs", operation, type_, key[3], (*key[4], gap)), a.places)
        if key[0] == "run" and key[1] == operation and key[4] == 2 and key[6] is None and not key[7]:
            return self._new(("pairs", operation, type_, key[3], (key[5], gap)), a.places)
        return self._new(("run", operation, type_, a.shape, 2, gap, None, False), a.places)

    # to a tree

    def _node(self, shape: int, places: Step) -> tuple[Node, Step]:
        """The tree of a shape with the first of ``places``, and the places that are left."""
        key = self._keys[shape]
        if key[0] == CONSTANT:
            return Constant(key[1], key[2], shape), places
        if key[0] == LOAD:
            return Load(key[1], places[0], key[2], shape), places[1:]
        parts = []
        for part in self._parts(key):
            made, places = self._node(part, places)
            parts.append(made)
        if key[0] == "run":
            _, operation, type_, _, count, step, start, fused = key
            return Run(operation, type_, parts[0], count, step, start, fused, shape), places
        if key[0] == "pairs":
            return Pairs(key[1], key[2], parts[0], key[4], shape), places
        if key[0] == "meet":
            return Meet(key[1], key[2], parts[0], parts[1], key[5], shape), places
        kind = key[1]
        return Apply(kind.name, kind.type, kind.source, kind.detail, tuple(parts), shape), places


def _moved(places: Step, step: Step, count: int) -> Step:
    return tuple(place + count * by for place, by in zip(places, step, strict=True))
