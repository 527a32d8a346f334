"""Questions about operations and values: shapes, attributes, owners, constants, index maps."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.traits import INDEX_MAPS, SAME_MEMORY
from torchport_passes.ir.types import Attribute, Block, Module, Op, Type, Value

__all__ = [
    "DOWN",
    "UP",
    "Coords",
    "behind_index_maps",
    "constant_behind",
    "constant_float",
    "constant_int",
    "constant_splat",
    "counts_along",
    "defining_op",
    "element_type",
    "function_of",
    "has_uses",
    "index_source",
    "int_attribute",
    "is_inside",
    "is_tensor",
    "matching",
    "numel",
    "operand_coords",
    "owner_of",
    "root_pointer",
    "shape_of",
    "space_of",
    "squeezed",
    "terminator_of",
    "text_attribute",
]

Coords = tuple[int | None, ...]
"""For each dimension of a tensor the dimension of the loop nest that indexes it; None for a dimension of size 1."""

UP, DOWN = -1, -2  # values of a sort's attribute ``order``, besides the number of a bit


def shape_of(value: Value) -> tuple[int, ...] | None:
    """The static shape of a tensor value, None for other values."""
    type_ = value.type
    return tuple(type_.shape) if isinstance(type_, ir.RankedTensorType) else None


def is_tensor(value: Value) -> bool:
    """Whether a value is a tensor."""
    return shape_of(value) is not None


def element_type(type_: Type) -> Type:
    """The element type of a tensor or vector type; a scalar type itself."""
    return type_.element_type if isinstance(type_, (ir.RankedTensorType, ir.VectorType)) else type_


def numel(shape: tuple[int, ...]) -> int:
    """The number of elements of a shape."""
    return prod(shape)


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without its unit dimensions."""
    return tuple(s for s in shape if s != 1)


def space_of(op: Op) -> tuple[int, ...]:
    """The iteration space of an operation without tensor results: the shape of its first tensor operand."""
    return next((s for s in (shape_of(v) for v in op.operands) if s is not None), ())


def matching(module: Module, test: Callable[[str], bool]) -> list[Op]:
    """All operations of a module, nested ones too, whose names pass ``test``: a list, so they may be changed."""
    operations: list[Op] = []
    advance = ir.WalkResult.ADVANCE

    def collect(op: Op) -> Any:
        if test(op.name):
            operations.append(op.operation)
        return advance

    module.operation.walk(collect)
    return operations


def function_of(op: Op) -> Op:
    """The ``func.func`` around an operation, or the operation itself if it is one."""
    while op.name != "func.func":
        op = op.parent.operation
    return op


def is_inside(op: Op, other: Op) -> bool:
    """Whether ``op`` is ``other`` or stands in one of its regions.

    Parents are compared one by one. A set of operations would not do: a hash changes when operands do.
    """
    while op != other:
        if op.name == "func.func":
            return False
        op = op.parent.operation
    return True


def int_attribute(op: Op, name: str) -> int:
    """The value of an integer attribute."""
    return int(ir.IntegerAttr(op.attributes[name]).value)


def text_attribute(op: Op, name: str) -> str:
    """The value of a string attribute."""
    return str(ir.StringAttr(op.attributes[name]).value)


def has_uses(value: Value) -> bool:
    """Whether anything uses a value."""
    return any(True for _ in value.uses)


def terminator_of(block: Block) -> Op:
    """The last operation of a block."""
    return list(block.operations)[-1].operation


def constant_splat(op: Op) -> Attribute | None:
    """The scalar attribute of an ``arith.constant`` that has one value in every lane, else None."""
    if op.name != "arith.constant":
        return None
    value = op.attributes["value"]
    if isinstance(value, ir.DenseElementsAttr):
        return value.get_splat_value() if value.is_splat else None
    return value


def constant_int(value: Value) -> int | None:
    """The integer that a scalar value is, None if it is no constant."""
    op = owner_of(value)
    if op is None or op.name != "arith.constant":
        return None
    attribute = op.attributes["value"]
    return int(ir.IntegerAttr(attribute).value) if isinstance(attribute, ir.IntegerAttr) else None


def constant_float(value: Value) -> float | None:
    """The number that a float is, or each element of a vector or a tensor; None if it is no constant."""
    op = owner_of(value)
    if op is not None and op.name in ("vector.broadcast", "tt.splat"):
        return constant_float(op.operands[0])
    scalar = None if op is None else constant_splat(op)
    return float(ir.FloatAttr(scalar).value) if isinstance(scalar, ir.FloatAttr) else None


def behind_index_maps(value: Value, maps: frozenset[str] = INDEX_MAPS) -> Value:
    """The value that index maps re-index: the operand of the innermost one, ``value`` itself if there is none.

    ``maps``: the operations to look through.
    """
    op = owner_of(value)
    while op is not None and op.name in maps:
        value = op.operands[0]
        op = owner_of(value)
    return value


def constant_behind(value: Value, maps: frozenset[str] = INDEX_MAPS) -> int | None:
    """The integer that every lane of a value equals, None if that is not known.

    ``maps``: the operations to look through.
    """
    return constant_int(behind_index_maps(value, maps))


def root_pointer(value: Value) -> Value:
    """The value that a pointer was made from by ``addptr``, ``splat`` and index maps: mostly a function argument.

    Memory operations with different roots are taken not to overlap, as in Triton's own model: arguments of a launch
    that alias at different offsets are a data race on every target.
    """
    return behind_index_maps(value, SAME_MEMORY)


def owner_of(value: Value) -> Op | None:
    """The operation that defines a value, None for block arguments."""
    owner = value.owner
    return owner.operation if isinstance(owner, (ir.Operation, ir.OpView)) else None


def defining_op(value: Value) -> Op:
    """The operation that defines a tensor value. Raises UnsupportedOperation for a block argument."""
    op = owner_of(value)
    if op is None:
        raise UnsupportedOperation("block argument", "a tensor crosses basic blocks")
    return op


def operand_coords(op: Op, coords: Coords) -> Coords:
    """Coordinates of an index map's operand, from those of its result."""
    source = shape_of(op.operands[0]) or ()
    if op.name == "tt.splat":
        return ()
    if op.name == "tt.expand_dims":
        axis = int_attribute(op, "axis")
        return coords[:axis] + coords[axis + 1 :]
    if op.name == "tt.broadcast":
        return tuple(None if s == 1 else c for s, c in zip(source, coords, strict=True))
    if op.name == "tt.trans":
        order = list(ir.DenseI32ArrayAttr(op.attributes["order"]))
        return tuple(coords[order.index(dimension)] for dimension in range(len(coords)))
    # a reshape that adds or drops unit dimensions only
    shape = shape_of(op.results[0]) or ()
    larger = iter([c for s, c in zip(shape, coords, strict=True) if s != 1])
    return tuple(None if s == 1 else next(larger) for s in source)


def index_source(op: Op, dim: int) -> int | None:
    """The dimension of an index map's operand that becomes ``dim`` of its result; None if it repeats along it.

    None, too, for a reshape that does more than add and drop unit dimensions.
    """
    before, after = (shape_of(value) or () for value in (op.operands[0], op.results[0]))
    if op.name == "tt.reshape" and squeezed(before) != squeezed(after):
        return None
    coords = operand_coords(op, tuple(range(len(after))))
    return coords.index(dim) if dim in coords else None


def counts_along(value: Value, dim: int) -> bool:
    """Whether elements are their own index along a dimension."""
    op = owner_of(value)
    if op is None:
        return False
    if op.name in ("arith.extsi", "arith.extui"):
        return counts_along(op.operands[0], dim)
    if op.name in INDEX_MAPS:
        source = index_source(op, dim)
        return source is not None and counts_along(op.operands[0], source)
    return op.name == "tt.make_range" and bool(ir.IntegerAttr(op.attributes["start"]).value == 0)
