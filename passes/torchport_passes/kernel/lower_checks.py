"""Lowers the sanitizer's checks to calls of the runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, func, llvm

from torchport_passes.ir.build import as_integer, constant_like, is_pointer, plain_load
from torchport_passes.ir.ops import function_of, int_attribute, matching
from torchport_passes.ir.types import Module, Op, Type, Value

__all__ = ["LowerChecks"]

_ALIGNMENT = 64


@dataclass(frozen=True)
class LowerChecks:
    """Call the runtime for every ``tp.check``, and tell it which program instance runs.

    Takes IR without tensors, before ``lower-kernel``; leaves IR without checks. The kernel gets one more argument, an
    i64: the address of the launch's records. It begins with ``torchport_sanitizer_enter(launch, x, y, z)``. A check of
    n lanes is ``torchport_sanitizer_check(site, n, addresses, mask)``, which clears the mask's bytes for accesses that
    are not allowed. Addresses and mask pass through stack memory that all checks of a function share.
    """

    name: ClassVar[str] = "lower-checks"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.check"})

    def apply(self, module: Module) -> None:
        checks = matching(module, "tp.check".__eq__)
        with module.context, ir.Location.unknown():
            i32, i64, pointer = ir.IntegerType.get_signless(32), ir.IntegerType.get_signless(64), _pointer()
            functions = [f for f in module.body.operations if len(f.regions[0].blocks) > 0]
            with ir.InsertionPoint.at_block_begin(module.body):
                func.FuncOp(_CHECK, ([i32, i64, pointer, pointer], []), visibility="private")
                func.FuncOp(_ENTER, ([i64, i32, i32, i32], []), visibility="private")
            for function in functions:
                mine = [op for op in checks if function_of(op) == function.operation]
                memory = _memory(function, max((_lanes(op) for op in mine), default=0))
                for op in mine:
                    _lower(op, *memory)
                if "sym_visibility" not in function.operation.attributes:
                    _enter(function.operation)


_CHECK, _ENTER = "torchport_sanitizer_check", "torchport_sanitizer_enter"


def _pointer() -> Type:
    return ir.Type.parse("!llvm.ptr")


def _lanes(op: Op) -> int:
    type_ = op.results[0].type
    return int(type_.shape[0]) if isinstance(type_, ir.VectorType) else 1


def _memory(function: Op, lanes: int) -> tuple[Value, Value]:
    """Stack memory for the addresses and the mask of the widest check."""
    with ir.InsertionPoint.at_block_begin(function.regions[0].blocks[0]):
        byte = ir.IntegerType.get_signless(8)
        sizes = [arith.ConstantOp(ir.IntegerType.get_signless(64), n * lanes).result for n in (8, 1)]
        addresses, mask = (llvm.AllocaOp(_pointer(), size, byte, alignment=_ALIGNMENT).result for size in sizes)
    return addresses, mask


def _lower(op: Op, addresses: Value, mask: Value) -> None:
    """Replace a check; ``addresses``, ``mask``: stack memory."""
    i32, i64 = ir.IntegerType.get_signless(32), ir.IntegerType.get_signless(64)
    result = op.results[0].type
    vectorised = isinstance(result, ir.VectorType)
    byte = ir.IntegerType.get_signless(8)
    wide = ir.VectorType.get(list(result.shape), byte) if vectorised else byte
    with ir.InsertionPoint(op):
        accessed = op.operands[0]
        if not vectorised and is_pointer(accessed.type):
            accessed = as_integer(accessed)
        elif vectorised and "ptr" in str(accessed.type):
            accessed = llvm.PtrToIntOp(ir.VectorType.get(list(result.shape), i64), accessed).result
        if len(op.operands) > 1:
            active = arith.ExtUIOp(wide, op.operands[1]).result
        else:
            active = constant_like(wide, ir.IntegerAttr.get(byte, 1))
        llvm.StoreOp(accessed, addresses, alignment=8)
        llvm.StoreOp(active, mask, alignment=1)
        site = arith.ConstantOp(i32, int_attribute(op, "site")).result
        lanes = arith.ConstantOp(i64, _lanes(op)).result
        func.CallOp([], _CHECK, [site, lanes, addresses, mask])
        allowed = arith.TruncIOp(result, plain_load(wide, mask, 1)).result
    op.results[0].replace_all_uses_with(allowed)
    op.erase()


def _enter(function: Op) -> None:
    """Add the launch's argument, and report at the start which program instance runs."""
    entry = function.regions[0].blocks[0]
    i32 = ir.IntegerType.get_signless(32)
    launch = entry.add_argument(ir.IntegerType.get_signless(64), ir.Location.unknown())
    types = [argument.type for argument in entry.arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, []))
    if "arg_attrs" in function.attributes:
        attributes = list(ir.ArrayAttr(function.attributes["arg_attrs"]))
        function.attributes["arg_attrs"] = ir.ArrayAttr.get([*attributes, ir.DictAttr.get({})])
    with ir.InsertionPoint.at_block_begin(entry):
        ids = [
            ir.Operation.create("tt.get_program_id", [i32], [], {"axis": ir.IntegerAttr.get(i32, axis)}).results[0]
            for axis in range(3)
        ]
        func.CallOp([], _ENTER, [launch, *ids])
