"""A module as plain data."""

from __future__ import annotations

from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport.listing import Block as Listed
from torchport.listing import Listing, Operation
from torchport_passes.ir.types import Attribute, Block, Module, Op, Value

__all__ = ["listing_of"]

_PROPERTIES = ("axis", "reverse", "atomic_rmw_op", "bin_op", "value")
"""Attributes that some operations keep as properties, which the bindings do not list."""


def listing_of(module: Module, *, fused: bool = True, lanes: int = 0) -> Listing:
    """The one public kernel of ``module``. Raises UnsupportedOperation if there is none, or more than one block."""
    for view in module.body.operations:
        function = view.operation
        if not function.name.endswith(".func") or not function.regions[0].blocks:
            continue
        if "sym_visibility" in function.attributes:
            visibility = ir.StringAttr(function.attributes["sym_visibility"]).value
            if visibility != "public":
                continue
        if len(function.regions[0].blocks) != 1:
            raise UnsupportedOperation(function.name, "a kernel of several blocks is not listed")
        reader = _Reader()
        name = ir.StringAttr(function.attributes["sym_name"]).value
        return Listing(name, reader.block(function.regions[0].blocks[0]), len(reader.numbers), fused, lanes)
    raise UnsupportedOperation("func.func", "the module has no public kernel")


class _Reader:
    """Numbers values in the order of their definition."""

    def __init__(self) -> None:
        self.numbers: dict[Value, int] = {}

    def block(self, block: Block) -> Listed:
        arguments = tuple(self.number(one) for one in block.arguments)
        types = tuple(str(one.type) for one in block.arguments)
        return Listed(arguments, types, tuple(self.operation(view.operation) for view in block.operations))

    def operation(self, op: Op) -> Operation:
        operands = tuple(self.number(one) for one in op.operands)
        results = tuple(self.number(one) for one in op.results)
        attributes = {name: _plain(op.attributes[name]) for name in op.attributes}
        for name in _PROPERTIES:
            if name not in attributes and name in op.attributes:
                attributes[name] = _plain(op.attributes[name])
        return Operation(
            op.name,
            operands,
            results,
            tuple(str(one.type) for one in op.results),
            tuple(str(one.type) for one in op.operands),
            attributes,
            tuple(tuple(self.block(block) for block in region.blocks) for region in op.regions),
        )

    def number(self, value: Value) -> int:
        return self.numbers.setdefault(value, len(self.numbers))


def _plain(attribute: Attribute) -> Any:
    """As a number, a boolean, text or a list of numbers."""
    if isinstance(attribute, (ir.BoolAttr, ir.IntegerAttr, ir.FloatAttr, ir.StringAttr)):
        return attribute.value
    if isinstance(attribute, ir.DenseElementsAttr):
        element = ir.ShapedType(attribute.type).element_type
        if attribute.is_splat:
            return _plain(attribute.get_splat_value())
        kind = ir.DenseFPElementsAttr if isinstance(element, ir.FloatType) else ir.DenseIntElementsAttr
        return list(kind(attribute))
    if isinstance(attribute, (ir.DenseI32ArrayAttr, ir.DenseI64ArrayAttr, ir.DenseBoolArrayAttr)):
        return list(attribute)
    if isinstance(attribute, ir.TypeAttr):
        return str(attribute.value)
    return str(attribute)
