"""Lowers prints to calls of the runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, func, llvm

from torchport_passes.ir.build import as_integer, byte_width, is_pointer, storage_type
from torchport_passes.ir.constants import Constants, declare
from torchport_passes.ir.ops import function_of, int_attribute, matching, text_attribute
from torchport_passes.ir.program_memory import create_buffer
from torchport_passes.ir.types import Module, Op, Type, Value

__all__ = ["LowerPrint"]

_PRINT = "torchport_print"


@dataclass(frozen=True)
class LowerPrint:
    """Replace every print by ``torchport_print(prefix, what, values, x, y, z)``.

    Takes ``tp.print`` (one tensor in a buffer, as ``buffers`` leaves it) and ``tt.print`` (one scalar, or the prefix
    only); leaves neither. ``what`` is the address of constant i64 numbers: kind, bytes of an element, whether in
    hexadecimal, position among several operands or -1, rank, sizes (``Printed`` in torchport's runtime). ``x``, ``y``,
    ``z`` are the program ids, as ``tt.get_program_id``: this pass runs before ``lower-kernel``.
    """

    name: ClassVar[str] = "lower-print"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.print", "tt.print"})

    def apply(self, module: Module) -> None:
        prints = matching(module, ("tp.print", "tt.print").__contains__)
        if not prints:
            return
        with module.context, ir.Location.unknown():
            constants = Constants(module, "print")
            pointer, i32 = ir.Type.parse("!llvm.ptr"), ir.IntegerType.get_signless(32)
            declare(module, _PRINT, [pointer, pointer, pointer, i32, i32, i32], [])
            for op in prints:
                with ir.InsertionPoint(op):
                    _call(op, constants)
                op.erase()


def _call(op: Op, constants: Constants) -> None:
    i32 = ir.IntegerType.get_signless(32)
    operand = int_attribute(op, "operand")
    if len(op.operands) == 0:
        what = [0, 0, 0, -1, 0]
        values = llvm.ZeroOp(ir.Type.parse("!llvm.ptr")).result
    else:
        values, element, shape = _values(op)
        as_bits = ir.BoolAttr(op.attributes["hex"]).value
        what = [ord(_kind(op, element)), byte_width(storage_type(element)), as_bits, operand, len(shape), *shape]
    ids = [
        ir.Operation.create("tt.get_program_id", [i32], [], {"axis": ir.IntegerAttr.get(i32, axis)}).results[0]
        for axis in range(3)
    ]
    prefix = constants.text(text_attribute(op, "prefix"))
    func.CallOp([], _PRINT, [prefix, constants.numbers([int(n) for n in what]), values, *ids])


def _values(op: Op) -> tuple[Value, Type, list[int]]:
    """The address of what is printed, its element type and shape."""
    value = op.operands[0]
    if op.name == "tp.print":
        type_ = ir.RankedTensorType(ir.TypeAttr(ir.ArrayAttr(op.attributes["operand_types"])[0]).value)
        return value, type_.element_type, list(type_.shape)
    element = value.type
    memory = create_buffer(function_of(op).regions[0].blocks[0], 1, storage_type(element))
    if is_pointer(element):
        value = as_integer(value)
    elif str(element) == "i1":
        value = arith.ExtUIOp(storage_type(element), value).result
    llvm.StoreOp(value, memory, alignment=byte_width(storage_type(element)))
    return memory, element, []


def _kind(op: Op, element: Type) -> str:
    if is_pointer(element):
        return "p"
    if isinstance(element, ir.FloatType):
        return "f"
    # the bit of a boolean is not a sign
    return "i" if ir.BoolAttr(op.attributes["signed"]).value and str(element) != "i1" else "u"
