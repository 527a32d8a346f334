"""What the passes know about operations: which are elementwise, which only move indices, which touch memory."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.traits import INDEX_MAPS, SAME_MEMORY

__all__ = [
    "DOWN",
    "UP",
    "Coords",
    "behind_index_maps",
    "constant_splat",
    "defining_op",
    "element_type",
    "function_of",
    "is_inside",
    "is_scalar_constant",
    "is_tensor",
    "matching",
    "numel",
    "operand_coords",
    "owner_of",
    "root_pointer",
    "shape_of",
    "space_of",
    "squeezed",
]

# For each dimension of a tensor: the dimension of the loop nest that indexes it, or None where its only index is 0.
Coords = tuple[int | None, ...]

UP, DOWN = -1, -2  # values of the attribute ``order`` of a sort, besides the number of a bit


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The static shape of a tensor value, None for anything else."""

    type_ = value.type
    if isinstance(type_, ir.RankedTensorType):
        return tuple(type_.shape)
    return None


def is_tensor(value: Any) -> bool:
    return shape_of(value) is not None


def element_type(type_: Any) -> Any:
    """The element of a tensor or vector type; a scalar type itself."""

    return type_.element_type if isinstance(type_, (ir.RankedTensorType, ir.VectorType)) else type_


def numel(shape: tuple[int, ...]) -> int:
    return prod(shape)


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without its unit dimensions."""
    return tuple(s for s in shape if s != 1)


def space_of(op: Any) -> tuple[int, ...]:
    """The iteration space of an operation without tensor results: the shape of its first tensor operand."""
    return next((s for s in (shape_of(v) for v in op.operands) if s is not None), ())


def matching(module: Any, test: Callable[[str], bool]) -> list[Any]:
    """All operations of a module, nested ones too, whose names pass ``test``: a list, so rewriting is safe."""
    found: list[Any] = []

    def collect(op: Any) -> Any:
        if test(op.name):
            found.append(op.operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(collect)
    return found


def function_of(op: Any) -> Any:
    """The ``func.func`` that an operation is, or stands in."""
    while op.name != "func.func":
        op = op.parent.operation
    return op


def is_inside(op: Any, other: Any) -> bool:
    """Whether ``op`` is ``other`` or stands in one of its regions.

    Asked of the parents: an operation's hash changes with its operands, so a set would lose those that are changed.
    """
    while op != other:
        if op.name == "func.func":
            return False
        op = op.parent.operation
    return True


def constant_splat(op: Any) -> Any | None:
    """The scalar attribute of an ``arith.constant`` that holds one value in every lane, else None."""

    if op.name != "arith.constant":
        return None
    value = op.attributes["value"]
    if isinstance(value, ir.DenseElementsAttr):
        return value.get_splat_value() if value.is_splat else None
    return value


def is_scalar_constant(value: Any) -> int | None:
    """The integer a scalar value is known to be, else None."""

    op = value.owner
    if not isinstance(op, (ir.Operation, ir.OpView)) or op.operation.name != "arith.constant":
        return None
    attribute = op.operation.attributes["value"]
    return int(ir.IntegerAttr(attribute).value) if isinstance(attribute, ir.IntegerAttr) else None


def behind_index_maps(value: Any, maps: frozenset[str] = INDEX_MAPS) -> Any:
    """The value that index maps re-index: ``value`` itself, or the operand of the innermost one. ``maps``: which."""
    op = owner_of(value)
    while op is not None and op.name in maps:
        value = op.operands[0]
        op = owner_of(value)
    return value


def root_pointer(value: Any) -> Any:
    """The value a pointer was made from by ``addptr``, ``splat`` and index maps: a function argument, most often.

    Two memory operations with different roots are taken not to overlap, as Triton's own model has it: inside one
    kernel launch, arguments that alias at different offsets are a data race on every target.
    """
    return behind_index_maps(value, SAME_MEMORY)


def owner_of(value: Any) -> Any | None:
    """The operation that defines a value, None for block arguments."""

    owner = value.owner
    return owner.operation if isinstance(owner, (ir.Operation, ir.OpView)) else None


def defining_op(value: Any) -> Any:
    """The operation that defines a tensor value. Raises UnsupportedOperation for a block argument."""
    op = owner_of(value)
    if op is None:
        raise UnsupportedOperation("block argument", "a tensor crosses basic blocks")
    return op


def operand_coords(op: Any, coords: Coords) -> Coords:
    """Coordinates of the operand of an index map, from those of its result."""

    source = shape_of(op.operands[0]) or ()
    if op.name == "tt.splat":
        return ()
    if op.name == "tt.expand_dims":
        axis = int(ir.IntegerAttr(op.attributes["axis"]).value)
        return coords[:axis] + coords[axis + 1 :]
    if op.name == "tt.broadcast":
        return tuple(None if s == 1 else c for s, c in zip(source, coords, strict=True))
    if op.name == "tt.trans":
        order = list(ir.DenseI32ArrayAttr(op.attributes["order"]))
        result: list[int | None] = [None] * len(coords)
        for i, dimension in enumerate(order):
            result[dimension] = coords[i]
        return tuple(result)
    # a reshape that adds or drops unit dimensions only
    shape = shape_of(op.results[0]) or ()
    kept = iter([c for s, c in zip(shape, coords, strict=True) if s != 1])
    return tuple(None if s == 1 else next(kept) for s in source)
