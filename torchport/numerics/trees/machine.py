"""Follows a kernel's loops, vectors and memory with numbers for integers and nodes for floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from torchport.listing import Block, Listing, Operation, element_of, shape_of
from torchport.numerics.trees.integers import INTEGERS, compared, wrapped
from torchport.numerics.trees.memory import Memory, NotFollowed
from torchport.numerics.trees.nodes import LARGEST, SMALLEST, Ids, Kind, Nodes, Symbols

__all__ = ["Machine"]

_FLOATS = ("f", "bf", "tf")
_BYTES = {"!llvm.ptr": 8, "index": 8, "i1": 1}
_DYNAMIC = -(1 << 31)
_BEYOND = {2: LARGEST, 4: SMALLEST}  # predicates ogt and olt of arith.cmpf
_UNE, _UNO = 13, 14
_ADD = 1  # of llvm.atomicrmw


def is_float(type_: str) -> bool:
    """Whether elements of a type are floats (``f32``, ``vector<8xbf16>``, ``f8E4M3FN``)."""
    return element_of(type_).startswith(_FLOATS)


def _bytes(type_: str) -> int:
    element = element_of(type_)
    digits = "".join(c for c in element.removeprefix("bf").lstrip("fi")[:2] if c.isdigit())
    if element.startswith("f8"):
        return 1
    return _BYTES.get(element) or max(1, int(digits) // 8)


class Machine:
    """Runs program instances of a kernel, in order.

    nodes: of all programs.
    steps: how many operations may be followed in all; NotFollowed beyond.
    """

    def __init__(self, listing: Listing, memory: Memory, nodes: Nodes, steps: int) -> None:
        self.nodes = nodes
        self._listing = listing
        self._memory = memory
        self._left = steps
        self._values: list[Any] = [None] * listing.values
        self._program = (0, 0, 0)
        self._grid = (1, 1, 1)

    def run(self, arguments: Sequence[Any], program: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
        """One program instance. ``arguments``: addresses, integers, or Symbols of floats. Raises NotFollowed."""
        self._program, self._grid = program, grid
        kept = len(self._memory)
        for number, value in zip(self._listing.body.arguments, arguments, strict=True):
            self._values[number] = value
        self._block(self._listing.body)
        self._memory.release(kept)

    def _block(self, block: Block) -> list[Any]:
        """What the block's last operation passes on."""
        values = self._values
        self._left -= len(block.operations)
        if self._left < 0:
            raise NotFollowed("the launch has more operations than are followed")
        for op in block.operations:
            operands = [values[number] for number in op.operands]
            handler = _HANDLERS.get(op.name)
            if handler is not None:
                found = handler(self, op, operands)
            elif op.name in _ENDS:
                return operands
            else:
                found = self._elementwise(op, operands)
            if len(op.results) == 1:
                values[op.results[0]] = found
            elif op.results:
                for number, value in zip(op.results, found, strict=True):
                    values[number] = value
        return []

    # elements

    def _elementwise(self, op: Op, operands: list[Any]) -> Any:
        integer = INTEGERS.get(op.name)
        if integer is not None and not any(isinstance(one, Symbols) for one in operands):
            return wrapped(integer(element_of(op.operand_types[0]), *operands), element_of(op.types[0]))
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

    def _constant(self, op: Op, operands: list[Any]) -> Any:
        value, type_ = op.attributes["value"], op.types[0]
        shape = shape_of(type_)
        if is_float(type_):
            return Symbols(self.ids(np.asarray(value, float), type_, shape[0] if shape else 1))
        if element_of(type_) == "i1":
            value = np.asarray(value).astype(bool).astype(np.int64) if isinstance(value, list) else int(bool(value))
        if shape is None:
            return wrapped(int(value), element_of(type_))
        return wrapped(np.array(np.broadcast_to(np.asarray(value, dtype=np.int64), shape)), element_of(type_))

    def _select(self, op: Op, operands: list[Any]) -> Any:
        condition, a, b = operands
        shape = shape_of(op.types[0])
        if isinstance(condition, Symbols):
            return self._extreme(op, operands) or self._elementwise(op, operands)
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

    def _compare(self, op: Op, operands: list[Any]) -> Any:
        if any(isinstance(one, Symbols) for one in operands):
            return self._elementwise(op, operands)
        return compared(int(op.attributes["predicate"]), operands[0], operands[1], element_of(op.operand_types[0]))

    def _bitcast(self, op: Op, operands: list[Any]) -> Any:
        if isinstance(operands[0], Symbols) or not is_float(op.types[0]):
            return operands[0]
        raise NotFollowed("bits become a float")

    def _multiply_add(self, op: Op, operands: list[Any]) -> Any:
        if self._listing.fused:
            shape = shape_of(op.types[0])
            count = shape[0] if shape else 1
            ids = [self.ids(one, op.types[0], count) for one in operands]
            type_ = element_of(op.types[0])
            return Symbols(self.nodes.add(Kind("math.fma", type_, type_), *ids))
        product = Operation("arith.mulf", (), (0,), op.types, op.operand_types[:2])
        total = Operation("arith.addf", (), (0,), op.types, op.operand_types[:2])
        return self._elementwise(total, [self._elementwise(product, operands[:2]), operands[2]])

    def _fma(self, op: Op, operands: list[Any]) -> Any:
        return self._elementwise(Operation("math.fma", (), (0,), op.types, op.operand_types), operands)

    # vectors

    def _broadcast(self, op: Op, operands: list[Any]) -> Any:
        shape = shape_of(op.types[0]) or (1,)
        value = operands[0]
        if isinstance(value, Symbols):
            return Symbols(np.broadcast_to(value.ids, shape))
        return np.broadcast_to(np.asarray(value, np.int64), shape)

    def _shuffle(self, op: Op, operands: list[Any]) -> Any:
        lanes = np.asarray(op.attributes["mask"])
        a, b = operands
        if isinstance(a, Symbols) and isinstance(b, Symbols):
            return Symbols(np.concatenate([a.ids, b.ids])[lanes])
        if isinstance(a, Symbols) or isinstance(b, Symbols):
            raise NotFollowed("a shuffle of floats with integers")
        return np.concatenate([a, b])[lanes]

    def _extract(self, op: Op, operands: list[Any]) -> Any:
        place = op.attributes["static_position"][0]
        place = _number(operands[1], "an index of a vector's element") if place < 0 else place
        if isinstance(operands[0], Symbols):
            return Symbols(operands[0].ids[place : place + 1])
        return int(operands[0][place])

    def _insert(self, op: Op, operands: list[Any]) -> Any:
        place = op.attributes["static_position"][0]
        place = _number(operands[2], "an index of a vector's element") if place < 0 else place
        value, into = operands[0], operands[1]
        if isinstance(value, Symbols) or isinstance(into, Symbols):
            count = len(into.ids) if isinstance(into, Symbols) else len(into)
            result = np.array(self.ids(into, op.types[0], count))
            result[place] = self.ids(value, op.types[0], 1)[0]
            return Symbols(result)
        changed = np.array(into)
        changed[place] = value
        return changed

    def _reduction(self, op: Op, operands: list[Any]) -> int:
        """Of integers, such as whether any lane of a mask is on."""
        values = np.asarray(_known(operands[0], "a reduction of a vector"))
        kind = next((name for name in _REDUCTIONS if f"<{name}>" in str(op.attributes["kind"])), None)
        if kind is None or len(operands) != 1:
            raise NotFollowed(f"{op.name} is not followed")
        return int(wrapped(int(_REDUCTIONS[kind](values)), element_of(op.types[0])))

    # memory

    def _pointer(self, op: Op, operands: list[Any]) -> Any:
        constants = op.attributes.get("rawConstantIndices", [_DYNAMIC])
        if len(constants) != 1:
            raise NotFollowed("an address in a structure")
        index = operands[1] if constants[0] == _DYNAMIC else constants[0]
        return _known(operands[0], "an address") + _known(index, "an address") * _bytes(op.attributes["elem_type"])

    def _offset(self, op: Op, operands: list[Any]) -> Any:
        return _known(operands[0], "an address") + _known(operands[1], "an address") * op.attributes["elem_bytes"]

    def _buffer(self, op: Op, operands: list[Any]) -> Any:
        return self._memory.buffer(int(op.attributes["count"]), _bytes(op.attributes["element"]))

    def _load(self, op: Op, operands: list[Any]) -> Any:
        shape, width = shape_of(op.types[0]), _bytes(op.types[0])
        first = _known(operands[0], "an address")
        element = element_of(op.types[0])
        if shape is None:
            mask = None
            if len(operands) > 1 and not _number(operands[1], "a mask"):
                mask = np.zeros(1, bool)
            other = operands[2] if len(operands) > 2 else None
            found = self._memory.load(np.array([first]), width, element, mask, other)
            return found if isinstance(found, Symbols) else int(np.asarray(found).reshape(-1)[0])
        return self._memory.load(_row(first, shape[0], width), width, element)

    def _masked_load(self, op: Op, operands: list[Any]) -> Any:
        pointer, mask, other = operands
        shape, width = shape_of(op.types[0]) or (1,), _bytes(op.types[0])
        pointer = _known(pointer, "an address")
        addresses = pointer if isinstance(pointer, np.ndarray) else _row(pointer, shape[0], width)
        on = np.broadcast_to(np.asarray(_known(mask, "a mask")).astype(bool), shape)
        return self._memory.load(addresses, width, element_of(op.types[0]), on, other)

    def _store(self, op: Op, operands: list[Any]) -> None:
        value, pointer = operands[0], _known(operands[1], "an address")
        shape, width = shape_of(op.operand_types[0]), _bytes(op.operand_types[0])
        addresses = np.array([pointer]) if shape is None else _row(pointer, shape[0], width)
        self._memory.store(value, addresses, width)

    def _tt_store(self, op: Op, operands: list[Any]) -> None:
        if len(operands) > 2 and not _number(operands[2], "a mask"):
            return
        width = _bytes(op.operand_types[1])
        self._memory.store(operands[1], np.array([_known(operands[0], "an address")]), width)

    def _masked_store(self, op: Op, operands: list[Any]) -> None:
        value, pointer, mask = operands[0], _known(operands[1], "an address"), operands[2]
        shape, width = shape_of(op.operand_types[0]) or (1,), _bytes(op.operand_types[0])
        addresses = pointer if isinstance(pointer, np.ndarray) else _row(pointer, shape[0], width)
        on = np.broadcast_to(np.asarray(_known(mask, "a mask")).astype(bool), shape)
        self._memory.store(value, addresses, width, on)

    def _atomic(self, op: Op, operands: list[Any]) -> Any:
        """A sum into memory. Programs of a kernel with atomic sums of floats run in order, one at a time."""
        pointer, value = operands[0], operands[1]
        kind, type_ = op.attributes.get("rmw", op.attributes.get("bin_op")), op.operand_types[1]
        if kind not in ("fadd", "add", _ADD) or shape_of(type_) is not None:
            raise NotFollowed("of atomic operations only sums are followed")
        zero = Symbols(self.ids(0.0, type_, 1)) if is_float(type_) else 0
        if len(operands) > 2 and not _number(operands[2], "a mask"):
            return zero
        address, width, element = np.array([_known(pointer, "an address")]), _bytes(type_), element_of(type_)
        old = self._memory.load(address, width, element)
        old = old if isinstance(old, Symbols) else int(old[0])
        name = "arith.addf" if is_float(type_) else "arith.addi"
        new = self._elementwise(Operation(name, (), (0,), (type_,), (type_, type_)), [old, value])
        self._memory.store(new, address, width)
        return old

    def _intrinsic(self, op: Op, operands: list[Any]) -> None:
        if op.attributes.get("intrin") != "llvm.fake.use":
            raise NotFollowed(f"{op.attributes.get('intrin')} is not followed")

    # control flow

    def _for(self, op: Op, operands: list[Any]) -> Any:
        low, high, step = (_number(one, "a loop's bounds") for one in operands[:3])
        carried = operands[3:]
        [[body]] = op.regions
        for index in range(low, high, step):
            self._values[body.arguments[0]] = index
            for number, value in zip(body.arguments[1:], carried, strict=True):
                self._values[number] = value
            carried = self._block(body)
        return carried[0] if len(op.results) == 1 else carried

    def _if(self, op: Op, operands: list[Any]) -> Any:
        region = op.regions[0 if _number(operands[0], "a branch") else 1]
        found = self._block(region[0]) if region else []
        return found[0] if len(op.results) == 1 else found

    def _while(self, op: Op, operands: list[Any]) -> Any:
        [before], [after] = op.regions
        carried = operands
        while True:
            for number, value in zip(before.arguments, carried, strict=True):
                self._values[number] = value
            condition, *passed = self._block(before)
            if not _number(condition, "a loop's condition"):
                return passed[0] if len(op.results) == 1 else passed
            for number, value in zip(after.arguments, passed, strict=True):
                self._values[number] = value
            carried = self._block(after)

    def _program_id(self, op: Op, operands: list[Any]) -> int:
        return self._program[int(op.attributes["axis"])]

    def _programs(self, op: Op, operands: list[Any]) -> int:
        return self._grid[int(op.attributes["axis"])]

    def _same(self, op: Op, operands: list[Any]) -> Any:
        return operands[0]

    def _nothing(self, op: Op, operands: list[Any]) -> None:
        return None


Op = Operation


def _known(value: Any, what: str) -> Any:
    if isinstance(value, Symbols):
        raise NotFollowed(f"{what} depends on the values of floats")
    return value


def _number(value: Any, what: str) -> int:
    return int(_known(value, what))


def _row(first: int, count: int, width: int) -> Ids:
    return first + np.arange(count, dtype=np.int64) * width


_REDUCTIONS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "or": np.bitwise_or.reduce,
        "and": np.bitwise_and.reduce,
        "add": np.add.reduce,
        "maxsi": np.max,
        "minsi": np.min,
    }
)
_ENDS = frozenset({"scf.yield", "scf.condition", "func.return"})
_ELEMENTWISE = (
    "arith.", "math.", "tp.extern", "tp.fp_to_fp", "tt.fp_to_fp", "tt.extern_elementwise", "tt.precise_", "tt.clampf",
    "llvm.intr.",
)  # fmt: skip
_HANDLERS: Mapping[str, Callable[[Machine, Operation, list[Any]], Any]] = MappingProxyType(
    {
        "arith.constant": Machine._constant,
        "arith.select": Machine._select,
        "arith.cmpi": Machine._compare,
        "arith.bitcast": Machine._bitcast,
        "tt.bitcast": Machine._bitcast,
        "llvm.intr.fmuladd": Machine._multiply_add,
        "llvm.intr.fma": Machine._fma,
        "vector.broadcast": Machine._broadcast,
        "vector.shuffle": Machine._shuffle,
        "vector.extract": Machine._extract,
        "vector.insert": Machine._insert,
        "vector.reduction": Machine._reduction,
        "llvm.getelementptr": Machine._pointer,
        "tt.addptr": Machine._offset,
        "tp.buffer": Machine._buffer,
        "llvm.load": Machine._load,
        "tt.load": Machine._load,
        "llvm.intr.masked.load": Machine._masked_load,
        "llvm.intr.masked.gather": Machine._masked_load,
        "llvm.store": Machine._store,
        "tt.store": Machine._tt_store,
        "llvm.intr.masked.store": Machine._masked_store,
        "llvm.intr.masked.scatter": Machine._masked_store,
        "llvm.intr.prefetch": Machine._nothing,
        "tt.assert": Machine._nothing,
        "llvm.inttoptr": Machine._same,
        "llvm.ptrtoint": Machine._same,
        "llvm.atomicrmw": Machine._atomic,
        "tt.atomic_rmw": Machine._atomic,
        "llvm.call_intrinsic": Machine._intrinsic,
        "scf.for": Machine._for,
        "scf.if": Machine._if,
        "scf.while": Machine._while,
        "tt.get_program_id": Machine._program_id,
        "tt.get_num_programs": Machine._programs,
    }
)
