"""Builds loops over buffers, for the lowerings of operations on whole buffers."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith, llvm, scf

from torchport_passes.ir.build import byte_width, from_storage, gep, plain_load, storage_type, to_storage
from torchport_passes.ir.ops import int_attribute
from torchport_passes.ir.types import Op, Type, Value

__all__ = ["BufferOp", "add", "close", "constant", "end", "loop", "loop_from", "nest", "read", "times", "write"]


class BufferOp:
    """A ``tp.*`` operation from buffers to buffers.

    ``sources``, ``results``: its buffers.
    ``operand_types``, ``result_types``: the types of the tensors in them.
    """

    def __init__(self, op: Op) -> None:
        self.op = op
        types = [
            [ir.RankedTensorType(ir.TypeAttr(a).value) for a in ir.ArrayAttr(op.attributes[name])]
            for name in ("operand_types", "result_types")
        ]
        self.operand_types, self.result_types = types
        buffers = list(op.operands)
        self.sources, self.results = buffers[: len(types[0])], buffers[len(types[0]) :]

    def integer(self, name: str) -> int:
        """The value of an integer attribute."""
        return int_attribute(self.op, name)


def constant(value: int) -> Value:
    """An i64."""
    return arith.ConstantOp(ir.IntegerType.get_signless(64), value).result


def loop(count: int, step: int = 1, inits: list[Value] | None = None) -> Op:
    """``for i in range(0, count, step)`` that carries ``inits``. Its body must end with ``end``."""
    return scf.ForOp(constant(0), constant(count), constant(step), inits or [])


def loop_from(low: int | Value, high: int | Value, inits: list[Value], step: int = 1) -> Op:
    """``for i in range(low, high, step)``; bounds are integers or i64 values."""
    low, high = (constant(v) if isinstance(v, int) else v for v in (low, high))
    return scf.ForOp(low, high, constant(step), inits)


def end(values: list[Value] | None = None) -> None:
    """End the body of a loop or branch."""
    scf.YieldOp(values or [])


def nest(counts: list[int]) -> list[Op]:
    """Nested loops, the outermost first. ``close`` ends their bodies."""
    loops = [loop(counts[0])]
    for count in counts[1:]:
        with ir.InsertionPoint(loops[-1].body):
            loops.append(loop(count))
    return loops


def close(loops: list[Op]) -> None:
    """End the bodies of ``nest``."""
    for loop_ in reversed(loops):
        with ir.InsertionPoint(loop_.body):
            end()


def add(*terms: Value) -> Value:
    """The sum of i64 values."""
    total = terms[0]
    for term in terms[1:]:
        total = arith.AddIOp(total, term).result
    return total


def times(value: Value, factor: int) -> Value:
    """An i64 value times an integer."""
    return value if factor == 1 else arith.MulIOp(value, constant(factor)).result


def read(buffer: Value, index: Value, element: Type, lanes: int | None = None) -> Value:
    """The element, or ``lanes`` neighbouring elements, at a linear index."""
    storage = storage_type(element)
    bytes_ = byte_width(storage)
    type_ = storage if lanes is None else ir.VectorType.get([lanes], storage)
    return from_storage(plain_load(type_, gep(buffer, index, bytes_), bytes_), element)


def write(value: Value, buffer: Value, index: Value, element: Type) -> None:
    """Store an element, or a vector of neighbouring elements, at a linear index."""
    bytes_ = byte_width(storage_type(element))
    llvm.StoreOp(to_storage(value), gep(buffer, index, bytes_), alignment=bytes_)
