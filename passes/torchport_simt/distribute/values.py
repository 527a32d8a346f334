"""Tracks where each tensor's elements are during distribution, and reads single elements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from mlir import ir
from mlir.dialects import arith
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.elementwise import elementwise
from torchport_passes.ir.ops import constant_splat, element_type, is_tensor, owner_of, shape_of
from torchport_passes.ir.traits import is_elementwise

from torchport.errors import UnsupportedOperation
from torchport_simt.distribute.build import counted_loop
from torchport_simt.distribute.index import Bits, ElementDistribution, dimensions, log2, value_bits

__all__ = ["ONE_SOURCE", "Scratch", "Values", "behind_views"]

ONE_SOURCE = frozenset({"tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.trans"})
"""Index maps of one tensor."""
_ROLLED = 8
"""Vectors from which a loop goes over them, where it may: drivers take long to compile thousands of accesses."""


@dataclass(frozen=True)
class Scratch:
    """A tensor in local memory. ``place`` maps an element's index to its position in ``buffer``."""

    buffer: Any
    element: Any
    place: Callable[[Bits], Bits]


def _same(bits: Bits) -> Bits:
    return bits


class Values:
    """The values of a kernel that is being distributed, and what represents them in the code of a lane.

    A tensor is in registers (those of ``ElementDistribution.own``), in local memory, or recomputed at each use.
    Recomputed are index maps, arithmetic on constants, ranges and scalars only, and, for an element of another lane,
    loads from memory that the kernel does not write.

    ``vector``: lanes will be joined to one that computes with vectors. ``direct``: dots load operands where they need
    them, as neighbours are loaded at once.
    """

    def __init__(
        self,
        distribution: ElementDistribution,
        entry: Any,
        constant_memory: Callable[[Any], bool],
        vector: bool = False,
        fused: bool = True,
    ) -> None:
        self.distribution = distribution
        self.fused = fused
        self.vector = vector
        self.direct = vector or distribution.unit > 1
        self.entry = entry
        self.constant_memory = constant_memory
        self.scalars: dict[Any, Any] = {}
        self.registers: dict[Any, list[Any]] = {}
        self.loops = 0
        self._cheap: dict[Any, bool] = {}
        self._scopes: list[tuple[dict[Any, Any], dict[Any, Scratch]]] = [({}, {})]

    def open(self) -> None:
        """Enter a block: values computed in it are forgotten at ``close``."""
        self._scopes.append(({}, {}))

    def close(self) -> None:
        """Leave a block."""
        self._scopes.pop()

    def at(self, value: Any, bits: Bits = ()) -> Any:
        """The scalar ``value``, or a tensor's element at an index, emitted if it is not available yet."""
        if not is_tensor(value):
            return self.scalars.get(value, value)
        register = self.distribution.register_of(bits)
        if register is not None and value in self.registers:
            return self.registers[value][register]
        for memo, _ in self._scopes:
            if (value, bits) in memo:
                return memo[value, bits]
        element = self._element(value, bits)
        self._scopes[-1][0][value, bits] = element
        return element

    def own(self, value: Any) -> list[Any]:
        """The elements of a tensor that a lane holds, one per register. A scalar is one element."""
        if value in self.registers:
            return self.registers[value]
        shape = shape_of(value)
        if shape is None:
            return [self.at(value)]
        return [self.at(value, self.distribution.own(shape, k)) for k in range(self.distribution.registers(shape))]

    def put(self, value: Any, scratch: Scratch) -> None:
        """Note that a tensor is in local memory."""
        self._scopes[-1][1][value] = scratch

    def find(self, value: Any) -> Scratch | None:
        """A tensor's place in local memory, if it has one."""
        return next((places[value] for _, places in self._scopes if value in places), None)

    def shared(self, value: Any) -> Scratch:
        """A tensor in local memory, copied there if necessary. Every lane must reach this point."""
        if (scratch := self.find(value)) is not None:
            return scratch
        shape = shape_of(value) or ()
        if self.rolls(value):
            copy = self.allocate(prod(shape), element_type(value.type))
            self.roll(shape, lambda bits: self.write(copy, bits, self.at(value, bits)))
            self.put(value, copy)
            return copy
        registers = self.own(value)
        scratch = self.allocate(prod(shape), element_type(value.type))
        first = self.distribution.is_first(shape)
        for k, element in enumerate(registers):
            self.write(scratch, self.distribution.own(shape, k), element, first)
        self.barrier()
        self.put(value, scratch)
        return scratch

    def rolls(self, value: Any) -> bool:
        """Whether a loop may go over the vectors of a tensor: none is in a register, or can be moved from there.

        What the tensor is a view of is moved to local memory now.
        """
        if not self.vector or value in self.registers or self.distribution.registers(_shape(value)) < _ROLLED:
            return False
        source = behind_views(value)
        if not (self.cheap(source) or self.reloads(source)):
            if source is value:
                return False
            self.shared(source)
        return True

    def roll(self, shape: tuple[int, ...], body: Callable[[Bits], None]) -> None:
        """Emit ``body`` for the index of each vector of a tensor, in a loop."""
        width, total = self.distribution.width, log2(prod(shape))
        lanes = value_bits(self.distribution.lane, width)

        def step(index: Any, carried: list[Any]) -> list[Any]:
            self.open()
            body((*lanes, *value_bits(index, total - width)))
            self.close()
            return []

        counted_loop(0, 1 << (total - width), step)

    def awaits_dots(self, value: Any) -> bool:
        """Whether a tensor is loaded for dots only, which load it themselves or copy it to local memory in a loop."""
        return self.direct and self.reloads(value) and _only_multiplied(value)

    def allocate(self, count: int, element: Any, place: Callable[[Bits], Bits] = _same) -> Scratch:
        """Allocate local memory for ``count`` elements; in a loop, after a barrier for the last iteration's readers."""
        attributes = {"count": ir.IntegerAttr.get(integer_type(64), count), "element": ir.TypeAttr.get(element)}
        buffer = ir.Operation.create(
            "tp.scratch", [ir.Type.parse("!llvm.ptr")], attributes=attributes, ip=ir.InsertionPoint(self.entry)
        ).results[0]
        if self.loops:
            self.barrier()
        return Scratch(buffer, element, place)

    def write(self, scratch: Scratch, bits: Bits, value: Any, mask: Any | None = None) -> None:
        """Store one element to local memory, in the lanes where ``mask`` is set."""
        operands = [value, scratch.buffer, self.distribution.value(scratch.place(bits))]
        ir.Operation.create("tp.scratch_store", [], operands + ([] if mask is None else [mask]))

    def read(self, scratch: Scratch, bits: Bits) -> Any:
        """Load one element from local memory."""
        operands = [scratch.buffer, self.distribution.value(scratch.place(bits))]
        return ir.Operation.create("tp.scratch_load", [scratch.element], operands).results[0]

    @staticmethod
    def barrier(memory: str = "scratchpad") -> None:
        """Wait for all lanes; their writes to ``memory`` (``scratchpad`` or ``all``) are visible afterwards."""
        ir.Operation.create("tp.barrier", [], attributes={"memory": ir.StringAttr.get(memory)})

    def cheap(self, value: Any) -> bool:
        """Whether a tensor is recomputed at each use: it depends on constants, ranges and scalars only."""
        if not is_tensor(value):
            return True
        if value not in self._cheap:
            self._cheap[value] = self._is_cheap(value)
        return self._cheap[value]

    def _is_cheap(self, value: Any) -> bool:
        if value in self.registers or not isinstance(value.owner, (ir.Operation, ir.OpView)):
            return False
        op = value.owner.operation
        if op.name in ("arith.constant", "tt.make_range"):
            return True
        plain = is_elementwise(op.name) and not op.name.startswith(("math.", "tt.extern", "tt.precise"))
        return (plain or op.name in _VIEWS) and all(self.cheap(operand) for operand in op.operands)

    def reloads(self, value: Any) -> bool:
        """Whether each element may be loaded where it is needed, of memory that the kernel does not write.

        Widening it comes free with the load.
        """
        op = value.owner.operation if isinstance(value.owner, (ir.Operation, ir.OpView)) else None
        if op is not None and op.name == "arith.extf":
            return self.reloads(op.operands[0])
        return (
            op is not None
            and op.name == "tt.load"
            and "volatile" not in op.attributes
            and self.constant_memory(op.operands[0])
            and all(self.cheap(operand) for operand in op.operands)
        )

    def _element(self, value: Any, bits: Bits) -> Any:
        if (scratch := self.find(value)) is not None:
            return self.read(scratch, bits)
        op = value.owner.operation if isinstance(value.owner, (ir.Operation, ir.OpView)) else None
        if op is not None and op.name in _VIEWS:
            return _VIEWS[op.name](self, op, value, bits)
        if op is not None and op.name == "tt.make_range":
            start = arith.ConstantOp(integer_type(32), ir.IntegerAttr(op.attributes["start"]).value).result
            return arith.AddIOp(self.distribution.value(bits), start).result
        if op is not None and op.name == "arith.constant":
            splat = constant_splat(op)
            if splat is None:
                raise UnsupportedOperation(op.name, "a constant whose elements differ")
            return arith.ConstantOp(element_type(value.type), splat).result
        if op is not None and (self.cheap(value) or self.reloads(value)):
            operands = [self.at(operand, bits) for operand in op.operands]
            if op.name == "tt.load":
                return ir.Operation.create(op.name, [element_type(value.type)], operands).results[0]
            return elementwise(op, operands, element_type(value.type))
        return self.read(self.shared(value), bits)


def behind_views(value: Any) -> Any:
    """The tensor whose elements, in another order or repeated, a tensor's are."""
    op = owner_of(value)
    while op is not None and op.name in ONE_SOURCE:
        value = op.operands[0]
        op = owner_of(value)
    return value


def _only_multiplied(value: Any) -> bool:
    """Whether a tensor is nothing but an operand of dots, seen through index maps and widened."""
    users = [(use.owner.operation, use.operand_number) for use in value.uses]
    return bool(users) and all(
        (op.name == "tt.dot" and number < 2)
        or ((op.name in ONE_SOURCE or op.name == "arith.extf") and _only_multiplied(op.results[0]))
        for op, number in users
    )


def _shape(value: Any) -> tuple[int, ...]:
    return shape_of(value) or ()


def _same_index(values: Values, op: Any, value: Any, bits: Bits) -> Any:
    """reshape, expand_dims: the row-major index is the same."""
    return values.at(op.operands[0], bits)


def _splat(values: Values, op: Any, value: Any, bits: Bits) -> Any:
    return values.at(op.operands[0])


def _broadcast(values: Values, op: Any, value: Any, bits: Bits) -> Any:
    source = _shape(op.operands[0])
    parts = dimensions(bits, _shape(value))
    source_parts = [part if size > 1 else () for part, size in zip(parts, source, strict=True)]
    return values.at(op.operands[0], tuple(bit for part in reversed(source_parts) for bit in part))


def _trans(values: Values, op: Any, value: Any, bits: Bits) -> Any:
    order = list(ir.DenseI32ArrayAttr(op.attributes["order"]))
    parts = dimensions(bits, _shape(value))
    source = [parts[order.index(i)] for i in range(len(order))]
    return values.at(op.operands[0], tuple(bit for part in reversed(source) for bit in part))


def _join(values: Values, op: Any, value: Any, bits: Bits) -> Any:
    return _choose(values, bits[0], op.operands[0], op.operands[1], bits[1:])


def _cat(values: Values, op: Any, value: Any, bits: Bits) -> Any:
    return _choose(values, bits[-1], op.operands[0], op.operands[1], bits[:-1])


def _split(values: Values, op: Any, value: Any, bits: Bits) -> Any:
    part = next(i for i, result in enumerate(op.results) if result == value)
    return values.at(op.operands[0], (part, *bits))


def _flip(values: Values, op: Any, value: Any, bits: Bits) -> Any:
    """``dims = (outer, n, inner)``: the element at the other end of the middle dimension."""
    _, middle, inner = (log2(size) for size in ir.DenseI64ArrayAttr(op.attributes["dims"]))
    flipped: Bits = ()
    if middle:
        ones = arith.ConstantOp(integer_type(32), (1 << middle) - 1).result
        flipped = value_bits(arith.XOrIOp(values.distribution.value(bits[inner : inner + middle]), ones).result, middle)
    return values.at(op.operands[0], (*bits[:inner], *flipped, *bits[inner + middle :]))


def _unsplat(values: Values, op: Any, value: Any, bits: Bits) -> Any:
    return values.at(op.operands[0], (0,) * log2(prod(_shape(op.operands[0]))))


def _choose(values: Values, bit: Any, zero: Any, one: Any, bits: Bits) -> Any:
    if not isinstance(bit, tuple):
        return values.at(one if bit else zero, bits)
    low, high = values.at(zero, bits), values.at(one, bits)
    condition = arith.TruncIOp(integer_type(1), values.distribution.value((bit,))).result
    if str(low.type) == "!llvm.ptr":
        return ir.Operation.create("arith.select", [low.type], [condition, high, low]).results[0]
    return arith.SelectOp(condition, high, low).result


_VIEWS: dict[str, Callable[[Values, Any, Any, Bits], Any]] = {
    "tt.reshape": _same_index, "tt.expand_dims": _same_index, "tt.splat": _splat, "tt.broadcast": _broadcast,
    "tt.trans": _trans, "tt.join": _join, "tt.cat": _cat, "tt.split": _split, "tt.unsplat": _unsplat,
    "tp.flip": _flip,
}  # fmt: skip
