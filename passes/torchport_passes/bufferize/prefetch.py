"""Computes the addresses of the rows that a load reads, in this iteration of a loop or in its next, for prefetching."""

from __future__ import annotations

from mlir import ir
from mlir.dialects import arith

from torchport_passes.ir.ops import element_type, int_attribute, owner_of, shape_of, terminator_of
from torchport_passes.ir.slices import backward_slice
from torchport_passes.ir.traits import INDEX_MAPS, is_elementwise
from torchport_passes.ir.types import Op, Value

__all__ = ["next_rows", "rows_of"]


def next_rows(value: Value, dim: int, loop: Op) -> Value | None:
    """Pointers to the rows of memory that the load behind ``value`` reads in the loop's next iteration.

    ``dim``: the dimension that a row lies along; the result has size 1 there.
    ``loop``: the ``scf.for`` around the current insertion point.

    Emits the load's address expression once more, with the next values of what the loop carries. None if there are
    several loads, or if the addresses do not change or come from memory.
    """
    body = loop.regions[0].blocks[0]
    load = _only_load(value)
    if load is None or load.block != body or len(shape_of(load.results[0]) or ()) != 2:
        return None
    step = _NextIteration(loop)
    rows = step.first_along(load.operands[0], dim)
    return rows if step.moves else None


def rows_of(load: Op, dim: int) -> Value | None:
    """Pointers to the rows of memory that ``load`` reads, at the current insertion point; None if not known.

    ``dim``: the dimension that a row lies along; the result has size 1 there.
    """
    return _Rows().first_along(load.operands[0], dim)


def _only_load(value: Value) -> Op | None:
    loads = [op for op in backward_slice(value, _elementwise_operands) if op.name == "tt.load"]
    return loads[0] if len(loads) == 1 else None


def _elementwise_operands(op: Op) -> list[Value]:
    """The tensors that an elementwise operation or index map computes its result from."""
    followed = op.name in INDEX_MAPS or is_elementwise(op.name)
    return [v for v in op.operands if shape_of(v) is not None] if followed else []


class _Rows:
    """Emits part of a tensor of pointers: those at index 0 of one dimension."""

    def first_along(self, value: Value, dim: int) -> Value | None:
        """The elements of a tensor with index 0 along ``dim``, whose size becomes 1; None if not known."""
        shape, op = shape_of(value), owner_of(value)
        if op is None or shape is None:
            return None
        operands = self._operands(op, dim)
        if operands is None or any(operand is None for operand in operands):
            return None
        type_ = ir.RankedTensorType.get([1 if i == dim else s for i, s in enumerate(shape)], element_type(value.type))
        attributes = dict(op.attributes.items())
        if op.name == "tt.make_range" and shape[dim] > 1:
            end = int_attribute(op, "start") + 1
            attributes["end"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), end)
        return ir.Operation.create(op.name, [type_], operands, attributes).results[0]

    def _operands(self, op: Op, dim: int) -> list[Value | None] | None:
        """The operands for index 0 of the result along ``dim``; None for operations that are not followed."""
        if op.name == "tt.make_range":
            return []
        if op.name == "tt.splat":
            return [self.scalar(op.operands[0])]
        if op.name == "tt.expand_dims":
            axis = int_attribute(op, "axis")
            return [self.first_along(op.operands[0], -1 if dim == axis else dim - (dim > axis))]
        if op.name == "tt.trans":
            order = list(ir.DenseI32ArrayAttr(op.attributes["order"]))
            return [self.first_along(op.operands[0], order[dim] if dim >= 0 else dim)]
        if op.name == "tt.broadcast" or is_elementwise(op.name):
            return [self.first_along(v, dim) if shape_of(v) is not None else self.scalar(v) for v in op.operands]
        return None

    def scalar(self, value: Value) -> Value | None:
        """The scalar to compute with in place of ``value``; None if not known."""
        return value


class _NextIteration(_Rows):
    """Emits the values that expressions have in the loop's next iteration.

    ``moves``: whether any expression so far depends on what the loop carries.
    """

    def __init__(self, loop: Op) -> None:
        self.loop = loop
        self.body = loop.regions[0].blocks[0]
        self.moves = False

    def scalar(self, value: Value) -> Value | None:
        """A scalar in the next iteration; None if not known."""
        op = owner_of(value)
        if op is None:
            return self.carried(value) if value.owner == self.body else value
        if op.block != self.body:
            return value
        if not op.name.startswith("arith."):
            return None
        operands = [self.scalar(v) for v in op.operands]
        if any(v is None for v in operands):
            return None
        if all(new == old for new, old in zip(operands, op.operands, strict=True)):
            return value
        return ir.Operation.create(op.name, [value.type], operands, dict(op.attributes.items())).results[0]

    def carried(self, argument: Value) -> Value | None:
        """The next value of the loop's index, or of a scalar to which each iteration adds a value from outside."""
        self.moves = True
        number = ir.BlockArgument(argument).arg_number
        if number == 0:
            return arith.AddIOp(argument, self.loop.operands[2]).result
        sum_ = owner_of(terminator_of(self.body).operands[number - 1])
        if sum_ is None or sum_.name != "arith.addi" or argument not in list(sum_.operands):
            return None
        steps = [v for v in sum_.operands if v != argument]
        if len(steps) != 1:
            return None
        step = owner_of(steps[0])
        return None if step is not None and step.block == self.body else arith.AddIOp(argument, steps[0]).result
