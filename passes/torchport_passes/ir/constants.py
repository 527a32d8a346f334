"""Adds constant data and external functions to a module."""

from __future__ import annotations

from collections.abc import Sequence

from mlir import ir
from mlir.dialects import func, llvm

from torchport_passes.ir.ops import text_attribute
from torchport_passes.ir.types import Module, Type, Value

__all__ = ["Constants", "declare"]


class Constants:
    """Read-only globals of a module, each added once. ``prefix``: of their names, one for each pass."""

    def __init__(self, module: Module, prefix: str) -> None:
        self.module = module
        self.prefix = prefix
        self.names: dict[bytes, str] = {}

    def text(self, text: str) -> Value:
        """The address of a C string, at the current insertion point."""
        return self._address(text.encode() + b"\0", 1)

    def numbers(self, values: Sequence[int]) -> Value:
        """The address of i64 numbers, at the current insertion point."""
        return self._address(b"".join(value.to_bytes(8, "little", signed=True) for value in values), 8)

    def _address(self, data: bytes, alignment: int) -> Value:
        if data not in self.names:
            name = f"{self.prefix}.{len(self.names)}"
            type_ = ir.Type.parse(f"!llvm.array<{len(data)} x i8>")
            integer = ir.IntegerType.get_signless
            with ir.InsertionPoint.at_block_begin(self.module.body):
                ir.Operation.create(
                    "llvm.mlir.global", [], [],
                    {"sym_name": ir.StringAttr.get(name), "global_type": ir.TypeAttr.get(type_),
                     "linkage": ir.Attribute.parse("#llvm.linkage<internal>"), "constant": ir.UnitAttr.get(),
                     "value": ir.StringAttr.get(data), "addr_space": ir.IntegerAttr.get(integer(32), 0),
                     "alignment": ir.IntegerAttr.get(integer(64), alignment)},
                    regions=1,
                )  # fmt: skip
            self.names[data] = name
        return llvm.AddressOfOp(ir.Type.parse("!llvm.ptr"), self.names[data]).result


def declare(module: Module, name: str, operands: list[Type], results: list[Type]) -> None:
    """Declare an external function, unless the module has it already."""
    for op in module.body.operations:
        if "sym_name" in op.operation.attributes and text_attribute(op.operation, "sym_name") == name:
            return
    with ir.InsertionPoint.at_block_begin(module.body):
        func.FuncOp(name, (operands, results), visibility="private")
