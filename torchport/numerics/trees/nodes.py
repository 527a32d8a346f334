"""Operations of a kernel that was followed on symbols: one node for each result of an element."""

from __future__ import annotations

import bisect
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["CONSTANT", "EXTREMES", "LARGEST", "LOAD", "NONE", "SMALLEST", "Ids", "Kind", "Nodes", "Symbols"]

Ids: TypeAlias = npt.NDArray[np.int64]
NONE = -1


@dataclass(frozen=True, slots=True)
class Kind:
    """What a node does.

    name: of the operation (``arith.addf``), or ``load``, ``constant``, ``pick``.
    type: of its result.
    source: of its first operand; of a conversion.
    detail: a predicate, a function's name, or whether a pick takes its first operand.
    """

    name: str
    type: str = ""
    source: str = ""
    detail: str = ""


LOAD, CONSTANT = "load", "constant"
LARGEST, SMALLEST = "largest", "smallest"
"""Triton's and Inductor's own: the first operand where it is beyond the second or is NaN, else the second."""
EXTREMES = frozenset({LARGEST, SMALLEST, "arith.maximumf", "arith.maxnumf", "arith.minimumf", "arith.minnumf"})
"""What has one result in every order, but for the signs of zeros."""


class Symbols:
    """Elements of a vector (or of a scalar: one) whose values are not known: numbers of nodes."""

    __slots__ = ("ids",)

    def __init__(self, ids: Ids) -> None:
        self.ids = ids


class Nodes:
    """All nodes, in the order of execution: operands come before what uses them.

    Of a ``load``: operands are the storage's number, the element's, and the node that it is where its mask is off
    (NONE without one). Of a ``constant``: its number in ``constants``.
    """

    def __init__(self) -> None:
        self.kinds: list[Kind] = []
        self.constants: list[float] = []
        self._numbers: dict[Hashable, int] = {}
        self._parts: list[tuple[int, Ids, Ids, Ids]] = []
        self._starts: list[int] = []
        self._constants: dict[tuple[str, bytes], int] = {}
        self.count = 0
        self._table: npt.NDArray[np.int64] | None = None

    def add(self, kind: Kind, a: Ids, b: Ids | None = None, c: Ids | None = None) -> Ids:
        """A node for each element; returns their numbers."""
        number = self._numbers.get(kind)
        if number is None:
            number = self._numbers[kind] = len(self.kinds)
            self.kinds.append(kind)
        none = np.full(len(a), NONE, np.int64) if b is None or c is None else a
        self._parts.append((number, a, none if b is None else b, none if c is None else c))
        first = self.count
        self._starts.append(first)
        self.count += len(a)
        return np.arange(first, self.count, dtype=np.int64)

    def made_by(self, ids: Ids) -> tuple[Kind, tuple[Ids, Ids, Ids]] | None:
        """What one ``add`` made of which operands, where ``ids`` are all of its nodes; else None."""
        if not len(ids):
            return None
        place = bisect.bisect_right(self._starts, int(ids[0])) - 1
        number, a, b, c = self._parts[place]
        if len(a) != len(ids) or ids[0] != self._starts[place] or ids[-1] != ids[0] + len(ids) - 1:
            return None
        return self.kinds[number], (a, b, c)

    def constant(self, value: float, type_: str) -> int:
        """The node of a constant; the same for the same bits."""
        key = type_, np.float64(value).tobytes()
        if key not in self._constants:
            self.constants.append(float(value))
            place = np.array([len(self.constants) - 1], np.int64)
            self._constants[key] = int(self.add(Kind(CONSTANT, type_), place)[0])
        return self._constants[key]

    def table(self) -> npt.NDArray[np.int64]:
        """One row a node: number of its kind, and its operands."""
        if self._table is None or len(self._table) != self.count:
            parts = [np.stack([np.full(len(a), kind, np.int64), a, b, c], axis=1) for kind, a, b, c in self._parts]
            self._table = np.concatenate(parts) if parts else np.zeros((0, 4), np.int64)
        return self._table
