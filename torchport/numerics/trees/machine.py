"""Follows a kernel's loops, vectors and memory with numbers for integers and nodes for floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from torchport.listing import Block, Listing, element_of, shape_of
from torchport.listing import Operation as Op
from torchport.numerics.trees.elements import Elements, integer, is_float, known
from torchport.numerics.trees.memory import Memory, NotFollowed
from torchport.numerics.trees.nodes import Ids, Nodes, Symbols

__all__ = ["Machine", "bytes_of"]

_BYTES = {"!llvm.ptr": 8, "index": 8, "i1": 1}
_DYNAMIC = -(1 << 31)
_ADD = 1  # of llvm.atomicrmw


def bytes_of(type_: str) -> int:
    """Bytes of an element of a type, as MLIR prints it."""
    element = element_of(type_)
    digits = "".join(c for c in element.removeprefix("bf").lstrip("fi")[:2] if c.isdigit())
    if element.startswith("f8"):
        return 1
    return _BYTES.get(element) or max(1, int(digits) // 8)


class Machine(Elements):
    """Runs program instances of a kernel, in order.

    nodes: of all programs.
    steps: how many operations may be followed in all; NotFollowed beyond.
    """

    handlers: ClassVar[Mapping[str, Callable[[Any, Op, list[Any]], Any]]]

    def __init__(self, listing: Listing, memory: Memory, nodes: Nodes, steps: int) -> None:
        super().__init__(nodes, fused=listing.fused)
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
            handler = self.handlers.get(op.name)
            if handler is not None:
                found = handler(self, op, operands)
            elif op.name in _ENDS:
                return operands
            else:
                found = self.elementwise(op, operands)
            if len(op.results) == 1:
                values[op.results[0]] = found
            elif op.results:
                for number, value in zip(op.results, found, strict=True):
                    values[number] = value
        return []

    # memory

    def _pointer(self, op: Op, operands: list[Any]) -> Any:
        constants = op.attributes.get("rawConstantIndices", [_DYNAMIC])
        if len(constants) != 1:
            raise NotFollowed("an address in a structure")
        index = operands[1] if constants[0] == _DYNAMIC else constants[0]
        return known(operands[0], "an address") + known(index, "an address") * bytes_of(op.attributes["elem_type"])

    def _offset(self, op: Op, operands: list[Any]) -> Any:
        return known(operands[0], "an address") + known(operands[1], "an address") * op.attributes["elem_bytes"]

    def _buffer(self, op: Op, operands: list[Any]) -> Any:
        return self._memory.buffer(int(op.attributes["count"]), bytes_of(op.attributes["element"]))

    def _load(self, op: Op, operands: list[Any]) -> Any:
        shape, width = shape_of(op.types[0]), bytes_of(op.types[0])
        first = known(operands[0], "an address")
        element = element_of(op.types[0])
        if shape is None:
            mask = None
            if len(operands) > 1 and not integer(operands[1], "a mask"):
                mask = np.zeros(1, bool)
            other = operands[2] if len(operands) > 2 else None
            found = self._memory.load(np.array([first]), width, element, mask, other)
            return found if isinstance(found, Symbols) else int(np.asarray(found).reshape(-1)[0])
        return self._memory.load(_row(first, shape[0], width), width, element)

    def _masked_load(self, op: Op, operands: list[Any]) -> Any:
        pointer, mask, other = operands
        shape, width = shape_of(op.types[0]) or (1,), bytes_of(op.types[0])
        pointer = known(pointer, "an address")
        addresses = pointer if isinstance(pointer, np.ndarray) else _row(pointer, shape[0], width)
        on = np.broadcast_to(np.asarray(known(mask, "a mask")).astype(bool), shape)
        return self._memory.load(addresses, width, element_of(op.types[0]), on, other)

    def _store(self, op: Op, operands: list[Any]) -> None:
        value, pointer = operands[0], known(operands[1], "an address")
        shape, width = shape_of(op.operand_types[0]), bytes_of(op.operand_types[0])
        addresses = np.array([pointer]) if shape is None else _row(pointer, shape[0], width)
        self._memory.store(value, addresses, width)

    def _tt_store(self, op: Op, operands: list[Any]) -> None:
        if len(operands) > 2 and not integer(operands[2], "a mask"):
            return
        width = bytes_of(op.operand_types[1])
        self._memory.store(operands[1], np.array([known(operands[0], "an address")]), width)

    def _masked_store(self, op: Op, operands: list[Any]) -> None:
        value, pointer, mask = operands[0], known(operands[1], "an address"), operands[2]
        shape, width = shape_of(op.operand_types[0]) or (1,), bytes_of(op.operand_types[0])
        addresses = pointer if isinstance(pointer, np.ndarray) else _row(pointer, shape[0], width)
        on = np.broadcast_to(np.asarray(known(mask, "a mask")).astype(bool), shape)
        self._memory.store(value, addresses, width, on)

    def _atomic(self, op: Op, operands: list[Any]) -> Any:
        """A sum into memory. Programs of a kernel with atomic sums of floats run in order, one at a time."""
        pointer, value = operands[0], operands[1]
        kind, type_ = op.attributes.get("rmw", op.attributes.get("bin_op")), op.operand_types[1]
        if kind not in ("fadd", "add", _ADD) or shape_of(type_) is not None:
            raise NotFollowed("of atomic operations only sums are followed")
        zero = Symbols(self.ids(0.0, type_, 1)) if is_float(type_) else 0
        if len(operands) > 2 and not integer(operands[2], "a mask"):
            return zero
        address, width, element = np.array([known(pointer, "an address")]), bytes_of(type_), element_of(type_)
        old = self._memory.load(address, width, element)
        old = old if isinstance(old, Symbols) else int(old[0])
        name = "arith.addf" if is_float(type_) else "arith.addi"
        new = self.elementwise(Op(name, (), (0,), (type_,), (type_, type_)), [old, value])
        self._memory.store(new, address, width)
        return old

    def _intrinsic(self, op: Op, operands: list[Any]) -> None:
        if op.attributes.get("intrin") != "llvm.fake.use":
            raise NotFollowed(f"{op.attributes.get('intrin')} is not followed")

    # control flow

    def _for(self, op: Op, operands: list[Any]) -> Any:
        low, high, step = (integer(one, "a loop's bounds") for one in operands[:3])
        carried = operands[3:]
        [[body]] = op.regions
        for index in range(low, high, step):
            self._values[body.arguments[0]] = self._index(index)
            for number, value in zip(body.arguments[1:], carried, strict=True):
                self._values[number] = value
            carried = self._block(body)
        return carried[0] if len(op.results) == 1 else carried

    def _index(self, number: int) -> Any:
        """A loop's counter as a value."""
        return number

    def _if(self, op: Op, operands: list[Any]) -> Any:
        region = op.regions[0 if integer(operands[0], "a branch") else 1]
        found = self._block(region[0]) if region else []
        return found[0] if len(op.results) == 1 else found

    def _while(self, op: Op, operands: list[Any]) -> Any:
        [before], [after] = op.regions
        carried = operands
        while True:
            for number, value in zip(before.arguments, carried, strict=True):
                self._values[number] = value
            condition, *passed = self._block(before)
            if not integer(condition, "a loop's condition"):
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


def _row(first: int, count: int, width: int) -> Ids:
    return first + np.arange(count, dtype=np.int64) * width


_ENDS = frozenset({"scf.yield", "scf.condition", "func.return"})
Machine.handlers = MappingProxyType(
    {
        "arith.constant": Machine.constant,
        "arith.select": Machine.select,
        "arith.cmpi": Machine.compare,
        "arith.bitcast": Machine.bitcast,
        "tt.bitcast": Machine.bitcast,
        "llvm.intr.fmuladd": Machine.multiply_add,
        "llvm.intr.fma": Machine.fma,
        "vector.broadcast": Machine.broadcast,
        "vector.shuffle": Machine.shuffle,
        "vector.extract": Machine.extract,
        "vector.insert": Machine.insert,
        "vector.reduction": Machine.reduction,
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
