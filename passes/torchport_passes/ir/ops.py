"""What the passes know about operations: which are elementwise, which only move indices, which touch memory."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from mlir import ir

__all__ = [
    "ELEMENTWISE",
    "INDEX_MAPS",
    "constant_splat",
    "element_type",
    "function_of",
    "is_elementwise",
    "is_inside",
    "is_scalar_constant",
    "is_tensor",
    "matching",
    "numel",
    "root_pointer",
    "shape_of",
    "space_of",
    "squeezed",
]

ELEMENTWISE = frozenset(
    {
        "tt.addptr", "tt.bitcast", "tt.int_to_ptr", "tt.ptr_to_int", "tt.extern_elementwise", "tt.clampf",
        "tt.mulhiui", "tt.precise_sqrt", "tt.precise_divf", "tt.fp_to_fp", "ub.poison", "tp.check",
    }
)  # fmt: skip

# Operations whose result is a re-indexed view of their operand.
INDEX_MAPS = frozenset({"tt.splat", "tt.broadcast", "tt.expand_dims", "tt.trans", "tt.reshape"})


def is_elementwise(name: str) -> bool:
    """True when lane i of the result depends on lane i of the operands only. Constants have no operands: not here."""
    return name in ELEMENTWISE or (name.startswith(("arith.", "math.")) and name != "arith.constant")


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


def root_pointer(value: Any) -> Any:
    """The value a pointer was made from by ``addptr``, ``splat`` and index maps: a function argument, most often.

    Two memory operations with different roots are taken not to overlap, as Triton's own model has it: inside one
    kernel launch, arguments that alias at different offsets are a data race on every target.
    """

    while isinstance(value.owner, (ir.Operation, ir.OpView)):
        op = value.owner.operation
        if op.name in (
            "tt.addptr",
            "tt.splat",
            "tt.broadcast",
            "tt.expand_dims",
            "tt.reshape",
            "tt.trans",
            "tt.bitcast",
        ):
            value = op.operands[0]
        else:
            break
    return value
