"""Finds accesses that are contiguous along another dimension than the vectors'; squares of them are turned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torchport_passes.analysis.strides import StrideAnalysis
from torchport_passes.ir.ops import Coords, operand_coords, owner_of, shape_of
from torchport_passes.ir.traits import INDEX_MAPS, LOADS, WITHOUT_ARITHMETIC
from torchport_passes.ir.types import Op, Value
from torchport_passes.vectorize.functions import INLINE, function_of_one
from torchport_passes.vectorize.nest_info import NestInfo
from torchport_passes.vectorize.vector_dimension import Vectorization, memory_stride

__all__ = ["Turning", "find_turning", "turned_loops"]

_SIDES = (4, 8, 16)
_MOST_WORK = 40
"""Operations of a body that is emitted once for each row of a square: those of a norm, its scale and an activation."""
_SIMPLE = frozenset({"absf", "absi", "ceil", "copysign", "floor", "fma", "rint", "roundeven", "sqrt", "trunc"})
_MOST_INLINE = 2
"""``INLINE`` functions: two are an activation. 16 rows of one take 100 ms to compile."""


@dataclass(frozen=True)
class Turning:
    """Accesses of a nest that read or write columns of its tiles, whose rows are vectors.

    ``dim``: the dimension that they are contiguous along.
    ``strides``: the accesses, with the distance in bytes from lane to lane, None if that is not constant.
    ``even``: the accesses with one distance between all neighbouring lanes, be it known when the kernel runs.
    """

    dim: int
    strides: dict[tuple[Op, Coords], int | None]
    even: frozenset[tuple[Op, Coords]] = frozenset()


def find_turning(nest: NestInfo, vector: Vectorization) -> Turning | None:
    """The dimension whose squares are worth turning. None where all accesses are contiguous, or order matters."""
    dims = set(range(len(nest.shape)))
    plain = all(anchor.name == "tt.store" and dims <= set(nest.coords[anchor]) for anchor in nest.anchors)
    if not plain or nest.reduced_dim is not None or vector.wraps or vector.lanes not in _SIDES or _reads_late(nest):
        return None
    if not _is_little([op for op, _ in nest.uses if op.name not in WITHOUT_ARITHMETIC]):
        return None
    found = [Turning(dim, _rows(nest, vector, dim)) for dim in dims - {vector.dim}]
    best = max(found, key=lambda turning: len(turning.strides), default=None)
    if best is None or not best.strides:
        return None
    even = frozenset(use for use in best.strides if _is_even(use[0].operands[0], use[1], vector.dim))
    return replace(best, even=even)


def _is_little(work: list[Op]) -> bool:
    """Whether a body may be written once for each row."""
    functions = [name for name in map(function_of_one, work) if name is not None and name not in _SIMPLE]
    return len(work) <= _MOST_WORK and len(functions) <= _MOST_INLINE and INLINE.issuperset(functions)


def turned_loops(vector: Vectorization, turning: Turning) -> Vectorization:
    """The same vectors, with the loop along the other side of squares around that over vectors."""
    outer = (dim for dim in vector.loops if dim not in (vector.dim, turning.dim))
    return replace(vector, loops=(*outer, turning.dim, vector.dim))


def _is_even(value: Value, at: Coords, dim: int) -> bool:
    """Whether a value goes up by the same from lane to lane, whatever that is; addresses presume that none wraps."""
    if dim not in at or shape_of(value) is None:
        return True
    op = owner_of(value)
    if op is None:
        return False
    if op.name in INDEX_MAPS:
        return _is_even(op.operands[0], operand_coords(op, at), dim)
    if op.name in ("tt.addptr", "arith.addi", "arith.subi", "arith.extsi"):
        return all(_is_even(operand, at, dim) for operand in op.operands)
    if op.name == "arith.muli":
        parts = [(_is_even(operand, at, dim), _is_uniform(operand, at, dim)) for operand in op.operands]
        return all(even for even, _ in parts) and any(uniform for _, uniform in parts)
    return bool(op.name == "tt.make_range")


def _is_uniform(value: Value, at: Coords, dim: int) -> bool:
    """Whether a value is seen to be the same in all lanes."""
    op = owner_of(value)
    if dim not in at or shape_of(value) is None:
        return True
    return op is not None and op.name in INDEX_MAPS and _is_uniform(op.operands[0], operand_coords(op, at), dim)


def _reads_late(nest: NestInfo) -> bool:
    """Whether a load stands behind a store, whose memory it may read."""
    names = [view.operation.name for view in nest.block.operations]
    stores = [i for i, name in enumerate(names) if name == "tt.store"]
    return any(name in LOADS for name in names[stores[0] :]) if stores else True


def _rows(nest: NestInfo, vector: Vectorization, dim: int) -> dict[tuple[Op, Coords], int | None]:
    if nest.shape[dim] % vector.lanes:
        return {}
    across = StrideAnalysis(dim, vector.lanes)
    rows: dict[tuple[Op, Coords], int | None] = {}
    last = list(nest.anchors)
    for op, at in nest.uses:
        if op.name not in ("tt.load", "tt.store") or "volatile" in op.attributes:
            continue
        down, bytes_ = memory_stride(vector.strides, op, at)
        if down not in (0, bytes_) and memory_stride(across, op, at)[0] == bytes_:
            rows[op, at] = down
    while last and (last[-1], nest.coords[last[-1]]) in rows:
        last.pop()
    for anchor in last:  # a store that another one follows in the body keeps its place before it
        rows.pop((anchor, nest.coords[anchor]), None)
    return rows
