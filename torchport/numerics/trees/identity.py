"""Numbers for nodes: equal for the same operations in the same order on the same loads, in one launch or in several."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping

import numpy as np

from torchport.numerics.trees.follow import Followed
from torchport.numerics.trees.nodes import CONSTANT, EXTREMES, LARGEST, LOAD, NONE, Ids, Kind
from torchport.numerics.trees.values import needed

__all__ = ["Identities"]

_COMMUTE = frozenset({"arith.addf", "arith.mulf"})


class Identities:
    """Gives numbers; those of one object are comparable."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._zero = self._number((CONSTANT, "f32", "0.0"))
        self._never_negative_zero: set[int] = set()
        self._extremes: dict[int, tuple[Kind, int]] = {}
        self._neutral: dict[int, str] = {}

    def _number(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def of(self, followed: Followed, roots: Ids, place_of: Mapping[int, Ids]) -> list[int]:
        """The numbers of ``roots``. ``place_of``: by storage, what counts as the place of each of its elements.

        What is masked counts as what is there instead. a + b and b + a are the same, and so are 0 + s and s, where s
        is a sum that started from 0, and so is not -0. The largest and the smallest of the same values are the same in
        every order, but for the sign of a zero.
        """
        nodes = followed.nodes
        table, kinds, wanted = nodes.table(), nodes.kinds, needed(nodes, roots)
        found = np.full(nodes.count + 1, NONE, np.int64)
        for node, (number, *operands) in zip(wanted.tolist(), table[wanted].tolist(), strict=True):
            kind = kinds[number]
            if kind.name == CONSTANT:
                value = repr(nodes.constants[operands[0]])
                found[node] = self._number((CONSTANT, kind.type, value))
                self._neutral[int(found[node])] = value
            elif kind.name == LOAD and kind.detail:
                found[node] = found[operands[2]]
            elif kind.name == LOAD:
                storage, place = operands[:2]
                at = int(place_of[storage][place]) if storage in place_of else place
                found[node] = self._number((LOAD, kind.type, storage, at))
            elif kind.name == "pick":
                found[node] = found[operands[0 if kind.detail == "first" else 1]]
            else:
                used = [int(found[one]) for one in operands if one != NONE]
                found[node] = self._operation(kind, sorted(used) if kind.name in _COMMUTE else used)
        return [int(found[root]) for root in roots.tolist()]

    def _operation(self, kind: Kind, used: list[int]) -> int:
        if kind.name in EXTREMES:
            return self._extreme(kind, used)
        if kind.name != "arith.addf":
            return self._number((kind, *used))
        zeros = self._zero in used
        if zeros:
            other = used[0] if used[1] == self._zero else used[1]
            if other in self._never_negative_zero:
                return other
        number = self._number((kind, *used))
        if zeros or self._never_negative_zero.intersection(used):
            self._never_negative_zero.add(number)
        return number

    def _extreme(self, kind: Kind, used: list[int]) -> int:
        """Of the same values, without neutral ones: a sum of a random number for each."""
        largest = kind.name in (LARGEST, "arith.maximumf", "arith.maxnumf")
        neutral = {"-inf" if largest else "inf", *(["nan"] if kind.name in ("arith.maxnumf", "arith.minnumf") else [])}
        kept = [one for one in used if self._neutral.get(one) not in neutral]
        if not kept:
            return next((one for one in used if self._neutral[one] != "nan"), used[0])
        if len(kept) == 1:
            return kept[0]
        total = 0
        for one in kept:
            inner = self._extremes.get(one)
            total += inner[1] if inner is not None and inner[0] == kind else _random(one)
        total %= 1 << 128
        number = self._number((kind, total))
        self._extremes[number] = kind, total
        return number


def _random(number: int) -> int:
    return int.from_bytes(hashlib.sha256(number.to_bytes(8, "little")).digest()[:16], "little")
