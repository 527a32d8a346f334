"""Operations of a kernel that was followed on symbols: one node for each result of an element."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["CONSTANT", "LOAD", "NONE", "Ids", "Kind", "Nodes", "Symbols"]

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
        self.count += len(a)
        return np.arange(first, self.count, dtype=np.int64)

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
