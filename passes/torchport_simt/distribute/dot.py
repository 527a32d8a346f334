"""Dots of distributed tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from mlir import ir
from mlir.dialects import arith, math
from torchport_passes.analysis.contiguity import all_coords, is_contiguous
from torchport_passes.ir.build import byte_width
from torchport_passes.ir.ops import element_type, matching, operand_coords, owner_of, shape_of

from torchport_simt.distribute.build import counted_loop
from torchport_simt.distribute.index import Bits, dimensions, log2, number, value_bits
from torchport_simt.distribute.values import ONE_SOURCE, Values, behind_views

__all__ = ["dot", "moved", "share_operands"]


def dot(op: Any, values: Values, vectors: int) -> None:
    """Emit ``tt.dot`` of one type: each lane sums its elements over K.

    Operands are in local memory, or loaded where they are needed if neighbours are loaded at once. A lane's registers
    hold a tile of the result, and an element of an operand that several of them need is read once for all. If lanes
    become a vector, a result of more elements than fit into registers, which hold ``vectors`` vectors of f32, is
    computed in parts.
    """
    a, b, c = op.operands
    inner = (shape_of(a) or ())[-1]
    start = values.own(c)
    reads = [_read(values, operand, side) for side, operand in enumerate((a, b))]
    registers: list[Any] = []
    unit = 1 if values.vector else min(inner, values.distribution.unit)
    for first, end in _parts(values, c, vectors) if values.vector else [(0, len(start))]:

        def step(index: Any, totals: list[Any], first: int = first) -> list[Any]:
            values.open()
            for term in range(unit):
                k = (*number(term, log2(unit)), *value_bits(index, log2(inner // unit)))
                totals = _sums(values, op, k, reads, totals, first)
            values.close()
            return totals

        registers += counted_loop(0, inner // unit, step, start[first:end])
    values.registers[op.results[0]] = registers


def share_operands(loop: Any, values: Values) -> None:
    """Copy to local memory, before ``loop``, what dots in it read from there and what does not change in it."""
    for op in matching(loop, "tt.dot".__eq__):
        for side, operand in enumerate(list(op.operands)[:2]):
            kept = _kept(values, operand, side)
            if kept is not None and not _inside(kept, loop):
                values.shared(kept)


def moved(value: Any) -> bool:
    """Whether a tensor is nothing but an operand of dots, which see through index maps, or what is stored."""
    return all(
        (use.owner.operation.name, use.operand_number) in (("tt.dot", 0), ("tt.dot", 1), ("tt.store", 1))
        for use in value.uses
    )


def _parts(values: Values, result: Any, vectors: int) -> list[tuple[int, int]]:
    """The registers of a result that are summed up together: the first, and one behind the last, of each part.

    A part is rows of vectors. Beside it, registers have room for a row of the right operand and an element of the left
    one. Many of them are half used: that is enough to hide a multiply-add's latency. Of few, three quarters are.
    """
    shape = shape_of(result) or ()
    count = values.distribution.registers(shape)
    size = max(1, byte_width(element_type(result.type)) // 4)
    row = max(1, shape[-1] // values.distribution.count)
    most = (vectors // 2 if vectors > 16 else vectors * 3 // 4) // size
    rows = min(most // row, int((vectors - 0.5) / size - row) // row)
    if rows < 1:
        part = max(1, 1 << (vectors // 2 // size).bit_length() - 1)
        return [(first, min(first + part, count)) for first in range(0, count, part)]
    lines = -(-count // row)
    parts = -(-lines // rows)
    bounds = [lines * i // parts * row for i in range(parts + 1)]
    return list(itertools.pairwise([*bounds[:-1], count]))


def _read(values: Values, operand: Any, side: int) -> Callable[[Bits], Any]:
    """The function that gives an operand's element at an index."""
    kept = _kept(values, operand, side)
    if kept is not None:
        values.shared(kept)
    return lambda bits: values.at(operand, bits)


def _kept(values: Values, operand: Any, side: int) -> Any | None:
    """The tensor that a dot reads an operand from, in local memory; None if elements are made where they are needed.

    Index maps are seen through, but not those of a right operand whose elements a vector needs side by side.
    """
    source = behind_views(operand)
    if not values.direct:
        return source
    if values.cheap(source) or (not values.vector and values.reloads(source)):
        return None
    if not values.vector:
        return source
    if not values.reloads(source):
        return source if side == 0 else operand
    adjacent = _adjacent(operand if side == 1 else source)
    if side == 1:
        return operand if adjacent is False else None
    # The left operand's are scalars: to test a mask or to widen a float costs each of them as much as a vector.
    return source if adjacent and _costly(source) else None


def _costly(source: Any) -> bool:
    """Whether a tensor that is loaded is widened too, or has a mask."""
    op = source.owner.operation
    return op.name != "tt.load" or len(op.operands) > 1


def _adjacent(operand: Any) -> bool | None:
    """Whether elements of a tensor that is loaded, and seen through index maps, are neighbours; None if not known."""
    shape = shape_of(operand) or ()
    coords = all_coords(shape)
    if not _keeps_dimensions(operand):
        return None
    op = operand.owner.operation
    while op.name != "tt.load":
        coords = operand_coords(op, coords) if op.name in ONE_SOURCE else coords
        op = op.operands[0].owner.operation
    return is_contiguous(op.operands[0], op.results[0].type, len(shape) - 1, coords, shape[-1])


def _keeps_dimensions(value: Any, seen: set[Any] | None = None) -> bool:
    """Whether no dimensions are joined or cut by reshapes that a tensor depends on."""
    seen = set() if seen is None else seen
    op, shape = owner_of(value), shape_of(value)
    if op is None or shape is None or value in seen:
        return True
    seen.add(value)
    if op.name == "tt.reshape" and _long(shape) != _long(shape_of(op.operands[0]) or ()):
        return False
    return all(_keeps_dimensions(operand, seen) for operand in op.operands)


def _long(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size > 1]


def _inside(value: Any, loop: Any) -> bool:
    """Whether a value is defined in a loop."""
    op = value.owner.operation if isinstance(value.owner, (ir.Operation, ir.OpView)) else value.owner.owner.operation
    while op.name != "func.func":
        if op == loop.operation:
            return True
        op = op.parent.operation
    return False


def _sums(
    values: Values, op: Any, k: Bits, reads: list[Callable[[Bits], Any]], totals: list[Any], first: int
) -> list[Any]:
    """Add the terms of number ``k`` to the totals of the registers from ``first``."""
    shape = shape_of(op.operands[2]) or ()
    elements: dict[Any, Any] = {}

    def element(side: int, bits: Bits) -> Any:
        if (side, bits) not in elements:
            elements[side, bits] = reads[side](bits)
        return elements[side, bits]

    sums = []
    for register, total in enumerate(totals, first):
        *batch, row, column = dimensions(values.distribution.own(shape, register), shape)
        outer = tuple(bit for part in reversed(batch) for bit in part)
        sums.append(
            _multiply_add(element(0, (*k, *row, *outer)), element(1, (*column, *k, *outer)), total, values.fused)
        )
    return sums


def _multiply_add(x: Any, y: Any, total: Any, fused: bool) -> Any:
    if isinstance(total.type, ir.IntegerType):
        return arith.AddIOp(total, arith.MulIOp(x, y).result).result
    if not fused:
        return arith.AddFOp(arith.MulFOp(x, y).result, total).result
    return math.FmaOp(x, y, total).result
