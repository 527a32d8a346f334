"""Computes the addresses of the rows that a load reads, in this iteration of a loop or in its next, for prefetching."""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir
from mlir.dialects import arith

from torchport_passes.ir.ops import element_type, function_of, int_attribute, owner_of, shape_of, terminator_of
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
    found = _only_load(value, dim)
    if found is None:
        return None
    load, along = found
    if load.block != body or len(shape_of(load.results[0]) or ()) != 2:
        return None
    step = _NextIteration(loop)
    rows = step.first_along(load.operands[0], along)
    return rows if step.moves else None


def rows_of(load: Op, dim: int) -> Value | None:
    """Pointers to the rows of memory that ``load`` reads, at the current insertion point; None if not known.

    ``dim``: the dimension that a row lies along; the result has size 1 there.
    """
    return _Rows().first_along(load.operands[0], dim)


def _only_load(value: Value, dim: int) -> tuple[Op, int] | None:
    """The one load behind ``value``, and its dimension that becomes ``dim`` of it; None if there are several."""
    found = []
    work, seen = [(value, dim)], set()
    while work:
        value, dim = work.pop()
        op = owner_of(value)
        if op is None or op in seen:
            continue
        seen.add(op)
        if op.name == "tt.load":
            found.append((op, dim))
        elif op.name == "tt.trans":
            work.append((op.operands[0], list(ir.DenseI32ArrayAttr(op.attributes["order"]))[dim]))
        elif op.name in INDEX_MAPS:  # of what is repeated, no rows are read that are not in a cache
            found += [(one, dim) for one in backward_slice(op.operands[0], _tensors) if one.name == "tt.load"]
        elif is_elementwise(op.name):
            work.extend((operand, dim) for operand in _tensors(op))
    return found[0] if len(found) == 1 else None


def _tensors(op: Op) -> list[Value]:
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
        if op.name == "tt.make_range" and dim >= 0 and shape[dim] > 1:
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

    After the last one that is the first iteration of the program instance that runs next: nothing else would fetch what
    that reads before it waits for it. Where a value is not known there, the one of an iteration more takes its place:
    prefetches read nothing.

    ``moves``: whether any expression so far depends on what the loop carries.
    """

    def __init__(self, loop: Op) -> None:
        self.loop = loop
        self.body = loop.regions[0].blocks[0]
        self.moves = False
        self.programs = _NextProgram(loop)
        self._last: Value | None = None

    def scalar(self, value: Value) -> Value | None:
        """A scalar in the next iteration; None if not known."""
        following = self.following(value)
        if following is None:
            return None
        first = self.programs.scalar(value)
        if first is None or first == following:
            return following
        return arith.SelectOp(self.last(), first, following).result

    def last(self) -> Value:
        """Whether this iteration is the loop's last."""
        if self._last is None:
            index, (_, bound, step) = self.body.arguments[0], list(self.loop.operands)[:3]
            left = arith.SubIOp(bound, index).result  # index + step may not be a number of its type
            self._last = arith.CmpIOp(arith.CmpIPredicate.sle, left, step).result
        return self._last

    def following(self, value: Value) -> Value | None:
        """A scalar when the loop goes on; None if not known."""
        op = owner_of(value)
        if op is None:
            return self.carried(value) if value.owner == self.body else value
        if op.block != self.body:
            return value
        return _again(op, self.following)

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


class _NextProgram:
    """Emits the values that scalars have in the loop's first iteration, in the program instance that runs next."""

    def __init__(self, loop: Op) -> None:
        self.loop = loop
        self.body = loop.regions[0].blocks[0]
        self.entry = function_of(loop).regions[0].blocks[0]
        self._ids: list[Value] = []

    def scalar(self, value: Value) -> Value | None:
        """A scalar there; None if not known."""
        op = owner_of(value)
        if op is None and value.owner == self.body:
            number = ir.BlockArgument(value).arg_number
            return self.scalar(self.loop.operands[0 if number == 0 else 2 + number])
        if op is None:
            return value if value.owner == self.entry else None
        if op.name == "tt.get_program_id":
            return self.ids()[int_attribute(op, "axis")]
        return _again(op, self.scalar)

    def ids(self) -> list[Value]:
        """Of the instance that follows in the order of the grid: the first axis turns fastest."""
        if not self._ids:
            i32 = ir.IntegerType.get_signless(32)
            zero, one = (arith.ConstantOp(i32, number).result for number in (0, 1))
            more = one
            for axis in range(3):
                attributes = {"axis": ir.IntegerAttr.get(i32, axis)}
                now, count = (
                    ir.Operation.create(name, [i32], [], attributes).results[0]
                    for name in ("tt.get_program_id", "tt.get_num_programs")
                )
                following = arith.AddIOp(now, more).result
                turned = arith.CmpIOp(arith.CmpIPredicate.eq, following, count).result
                self._ids.append(arith.SelectOp(turned, zero, following).result)
                more = arith.SelectOp(turned, one, zero).result
        return self._ids


def _again(op: Op, scalar: Callable[[Value], Value | None]) -> Value | None:
    """The result of scalar arithmetic on what ``scalar`` makes of its operands; None for anything else."""
    if not op.name.startswith("arith.") and op.name != "tt.addptr":
        return None
    operands = [scalar(v) for v in op.operands]
    if any(v is None for v in operands):
        return None
    if all(new == old for new, old in zip(operands, op.operands, strict=True)):
        return op.results[0]
    return ir.Operation.create(op.name, [op.results[0].type], operands, dict(op.attributes.items())).results[0]
