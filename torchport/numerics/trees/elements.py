"""Operations on elements and vectors: numbers for integers, nodes for floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from torchport.listing import Operation, element_of, shape_of
from torchport.numerics.trees.integers import INTEGERS, compared, wrapped
from torchport.numerics.trees.memory import NotFollowed
from torchport.numerics.trees.nodes import LARGEST, SMALLEST, Ids, Kind, Nodes, Symbols

__all__ = ["Elements", "integer", "is_float", "known"]

_FLOATS = ("f", "bf", "tf")
_BEYOND = {2: LARGEST, 4: SMALLEST}  # predicates ogt and olt of arith.cmpf
_UNE, _UNO = 13, 14
_ELEMENTWISE = (
    "arith.", "math.", "tp.extern", "tp.fp_to_fp", "tt.fp_to_fp", "tt.extern_elementwise", "tt.precise_", "tt.clampf",
    "llvm.intr.",
)  # fmt: skip
_REDUCTIONS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "or": np.bitwise_or.reduce,
        "and": np.bitwise_and.reduce,
        "add": np.add.reduce,
        "maxsi": np.max,
        "minsi": np.min,
    }
)
Op = Operation


def is_float(type_: str) -> bool:
    """Whether elements of a type are floats (``f32``, ``vector<8xbf16>``, ``f8E4M3FN``)."""
    return element_of(type_).startswith(_FLOATS)


def known(value: Any, what: str) -> Any:
    """A value of integers. Raises NotFollowed for one of floats; ``what``: what it is."""
    if isinstance(value, Symbols):
        raise NotFollowed(f"{what} depends on the values of floats")
    return value


def integer(value: Any, what: str) -> int:
    """As ``known``, of one number."""
    return int(known(value, what))


class Elements:
    """Handlers of operations: each takes an operation and the values of its operands. nodes: where nodes are added."""

    def __init__(self, nodes: Nodes, *, fused: bool) -> None:
        self.nodes = nodes
        self._fused = fused

    # elements

    def elementwise(self, op: Op, operands: list[Any]) -> Any:
        """An operation on each element: a number of integers, a node of floats."""
        exact = INTEGERS.get(op.name)
        if exact is not None and not any(isinstance(one, Symbols) for one in operands):
            return wrapped(exact(element_of(op.operand_types[0]), *operands), element_of(op.types[0]))
        if not op.name.startswith(_ELEMENTWISE) or op.regions or len(op.results) != 1:
            raise NotFollowed(f"{op.name} is not followed")
        if not is_float(op.types[0]) and not any(isinstance(one, Symbols) for one in operands):
            raise NotFollowed(f"{op.name} of integers is not followed")
        if len(operands) > 3:
            raise NotFollowed(f"{op.name} of {len(operands)} operands is not followed")
        shape = shape_of(op.types[0])
        count = shape[0] if shape else 1
        ids = [self.ids(one, type_, count) for one, type_ in zip(operands, op.operand_types, strict=True)]
        detail = str(op.attributes.get("predicate", op.attributes.get("symbol", op.attributes.get("rounding", ""))))
        source = element_of(op.operand_types[0])
        return Symbols(self.nodes.add(Kind(op.name, element_of(op.types[0]), source, detail), *ids))

    def ids(self, value: Any, type_: str, count: int) -> Ids:
        """Nodes of a value; numbers become constants."""
        if isinstance(value, Symbols):
            return value.ids if len(value.ids) == count else np.repeat(value.ids, count)
        flat = np.broadcast_to(np.asarray(value), (count,))
        element = element_of(type_)
        return np.array([self.nodes.constant(float(one), element) for one in flat.tolist()], np.int64)

    def constant(self, op: Op, operands: list[Any]) -> Any:
        """``arith.constant``."""
        value, type_ = op.attributes["value"], op.types[0]
        shape = shape_of(type_)
        if is_float(type_):
            return Symbols(self.ids(np.asarray(value, float), type_, shape[0] if shape else 1))
        if element_of(type_) == "i1":
            value = np.asarray(value).astype(bool).astype(np.int64) if isinstance(value, list) else int(bool(value))
        if shape is None:
            return wrapped(int(value), element_of(type_))
        return wrapped(np.array(np.broadcast_to(np.asarray(value, dtype=np.int64), shape)), element_of(type_))

    def select(self, op: Op, operands: list[Any]) -> Any:
        """``arith.select``: a pick, where the condition is known."""
        condition, a, b = operands
        shape = shape_of(op.types[0])
        if isinstance(condition, Symbols):
            return self._extreme(op, operands) or self.elementwise(op, operands)
        if not (isinstance(a, Symbols) or isinstance(b, Symbols)):
            if shape is None:
                return a if condition else b
            return np.where(np.asarray(condition).astype(bool), a, b)
        count = shape[0] if shape else 1
        ids = [self.ids(one, op.types[0], count) for one in (a, b)]
        on = np.broadcast_to(np.asarray(condition).astype(bool), (count,))
        found = np.empty(count, np.int64)
        for taken in (True, False):
            part = on == taken
            if part.any():
                kind = Kind("pick", element_of(op.types[0]), detail="first" if taken else "second")
                found[part] = self.nodes.add(kind, ids[0][part], ids[1][part])
        return Symbols(found)

    def _extreme(self, op: Op, operands: list[Any]) -> Symbols | None:
        """``where((a > b) | (a != a), a, b)`` is the larger one."""
        condition, a, b = operands
        if not (isinstance(a, Symbols) and isinstance(b, Symbols)):
            return None
        found = self.nodes.made_by(condition.ids)
        if found is None or found[0].name != "arith.ori":
            return None
        sides = [self.nodes.made_by(ids) for ids in found[1][:2]]
        if any(side is None or side[0].name != "arith.cmpf" for side in sides):
            return None
        for first, second in (sides, sides[::-1]):
            assert first is not None and second is not None
            kind, (x, y, _) = first
            other, (u, v, _) = second
            same = np.array_equal(x, a.ids) and np.array_equal(y, b.ids)
            is_nan = int(other.detail) in (_UNE, _UNO) and np.array_equal(u, a.ids) and np.array_equal(v, a.ids)
            if same and is_nan and int(kind.detail) in _BEYOND:
                return Symbols(self.nodes.add(Kind(_BEYOND[int(kind.detail)], kind.source), a.ids, b.ids))
        return None

    def compare(self, op: Op, operands: list[Any]) -> Any:
        """``arith.cmpi``."""
        if any(isinstance(one, Symbols) for one in operands):
            return self.elementwise(op, operands)
        return compared(int(op.attributes["predicate"]), operands[0], operands[1], element_of(op.operand_types[0]))

    def bitcast(self, op: Op, operands: list[Any]) -> Any:
        """Bits that are moved."""
        if isinstance(operands[0], Symbols) or not is_float(op.types[0]):
            return operands[0]
        raise NotFollowed("bits become a float")

    def multiply_add(self, op: Op, operands: list[Any]) -> Any:
        """``llvm.intr.fmuladd``, as the target has it."""
        if self._fused:
            shape = shape_of(op.types[0])
            count = shape[0] if shape else 1
            ids = [self.ids(one, op.types[0], count) for one in operands]
            type_ = element_of(op.types[0])
            return Symbols(self.nodes.add(Kind("math.fma", type_, type_), *ids))
        product = Operation("arith.mulf", (), (0,), op.types, op.operand_types[:2])
        total = Operation("arith.addf", (), (0,), op.types, op.operand_types[:2])
        return self.elementwise(total, [self.elementwise(product, operands[:2]), operands[2]])

    def fma(self, op: Op, operands: list[Any]) -> Any:
        """A fused multiply-add."""
        return self.elementwise(Operation("math.fma", (), (0,), op.types, op.operand_types), operands)

    # vectors

    def broadcast(self, op: Op, operands: list[Any]) -> Any:
        """A vector of one value."""
        shape = shape_of(op.types[0]) or (1,)
        value = operands[0]
        if isinstance(value, Symbols):
            return Symbols(np.broadcast_to(value.ids, shape))
        return np.broadcast_to(np.asarray(value, np.int64), shape)

    def shuffle(self, op: Op, operands: list[Any]) -> Any:
        """Lanes of two vectors."""
        lanes = np.asarray(op.attributes["mask"])
        a, b = operands
        if isinstance(a, Symbols) and isinstance(b, Symbols):
            return Symbols(np.concatenate([a.ids, b.ids])[lanes])
        if isinstance(a, Symbols) or isinstance(b, Symbols):
            raise NotFollowed("a shuffle of floats with integers")
        return np.concatenate([a, b])[lanes]

    def extract(self, op: Op, operands: list[Any]) -> Any:
        """One lane."""
        place = op.attributes["static_position"][0]
        place = integer(operands[1], "an index of a vector's element") if place < 0 else place
        if isinstance(operands[0], Symbols):
            return Symbols(operands[0].ids[place : place + 1])
        return int(operands[0][place])

    def insert(self, op: Op, operands: list[Any]) -> Any:
        """A vector with another lane."""
        place = op.attributes["static_position"][0]
        place = integer(operands[2], "an index of a vector's element") if place < 0 else place
        value, into = operands[0], operands[1]
        if isinstance(value, Symbols) or isinstance(into, Symbols):
            count = len(into.ids) if isinstance(into, Symbols) else len(into)
            result = np.array(self.ids(into, op.types[0], count))
            result[place] = self.ids(value, op.types[0], 1)[0]
            return Symbols(result)
        changed = np.array(into)
        changed[place] = value
        return changed

    def reduction(self, op: Op, operands: list[Any]) -> int:
        """Of integers, such as whether any lane of a mask is on."""
        values = np.asarray(known(operands[0], "a reduction of a vector"))
        kind = next((name for name in _REDUCTIONS if f"<{name}>" in str(op.attributes["kind"])), None)
        if kind is None or len(operands) != 1:
            raise NotFollowed(f"{op.name} is not followed")
        return int(wrapped(int(_REDUCTIONS[kind](values)), element_of(op.types[0])))
