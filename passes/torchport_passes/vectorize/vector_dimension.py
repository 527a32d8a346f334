"""Chooses the dimension of a loop nest that becomes vectors, the number of lanes and the order of the loops."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from mlir import ir

from torchport_passes.analysis.addresses import address_of, byte_stride
from torchport_passes.analysis.masks import Masks
from torchport_passes.analysis.strides import NOT_ABOVE, NOT_BELOW, StrideAnalysis
from torchport_passes.ir.build import byte_width
from torchport_passes.ir.ops import Coords, element_type, shape_of
from torchport_passes.ir.traits import MEMORY_ACCESSES, WITHOUT_ARITHMETIC
from torchport_passes.ir.types import Op, Value
from torchport_passes.vectorize.nest_info import NestInfo

__all__ = ["NO_DIMENSION", "Vectorization", "choose_vector_dimension", "memory_stride"]

_MOST_WRAPS = 3
_MOST_SIGNS = 2


NO_DIMENSION = -1
"""The vector dimension of a nest without dimensions. It cannot be None, as coordinates hold None for sizes of 1."""


@dataclass(frozen=True)
class Vectorization:
    """The dimension of a nest that becomes vectors, and the order of its loops.

    ``dim``: the vector dimension.
    ``lanes``: elements of a vector.
    ``loops``: dimensions from the outermost loop inwards.
    ``strides``: how values change from lane to lane.
    ``strides_no_wrap``: the same where no division of ``wraps`` steps inside a vector, and no sign changes.
    ``wraps``: divisions and signs to guard (``StrideAnalysis.wraps``): accesses are contiguous if none steps inside a
    vector.
    """

    dim: int
    lanes: int
    loops: tuple[int, ...]
    strides: StrideAnalysis
    strides_no_wrap: StrideAnalysis
    wraps: tuple[tuple[Value, Coords, int], ...] = ()


def _memory_uses(nest: NestInfo) -> list[tuple[Op, Coords]]:
    return [(op, at) for op, at in nest.uses if op.name in MEMORY_ACCESSES]


def _native_lanes(nest: NestInfo, vector_bits: int) -> int:
    """Lanes that fill one register with the widest type used in arithmetic, which for 16-bit floats is f32."""
    floats, memory = [], []
    for op, _ in nest.uses:
        for value in (*op.results, *op.operands):
            type_ = element_type(value.type)
            if isinstance(type_, ir.FloatType):
                floats.append(max(32, type_.width))
        if op.name in MEMORY_ACCESSES:
            value = op.results[0] if len(op.results) > 0 else op.operands[0 if op.name == "tp.write" else 1]
            memory.append(8 * byte_width(element_type(value.type)))
    bits = max(floats) if floats else max(memory, default=32)
    return max(2, vector_bits // bits)


def memory_stride(strides: StrideAnalysis, op: Op, at: Coords) -> tuple[int | None, int]:
    """A memory operation's stride along the vector dimension, None if not constant, and an element's size, in bytes."""
    if op.name in ("tp.read", "tp.write"):
        value = op.results[0] if op.name == "tp.read" else op.operands[0]
        bytes_ = byte_width(element_type(value.type))
        stride, scale = 0, 1
        for size, coord in zip(reversed(shape_of(value) or ()), reversed(at), strict=True):
            if coord == strides.dim:
                stride += scale * bytes_
            scale *= size
        return stride, bytes_
    value = op.results[0] if op.name == "tt.load" else op.operands[1]
    return byte_stride(strides, address_of(Masks(), op.operands[0], at)), byte_width(element_type(value.type))


def choose_vector_dimension(nest: NestInfo, vector_bits: int, registers: int = 1) -> Vectorization:
    """Vectorise the dimension along which most accesses are contiguous; at least ``registers`` of lanes in a step."""
    if not nest.shape:
        strides = StrideAnalysis(NO_DIMENSION, 1)
        return Vectorization(NO_DIMENSION, 1, (), strides, strides)
    native = _native_lanes(nest, vector_bits)
    dims = range(len(nest.shape))
    dim = max(dims, key=lambda candidate: (_score(nest, candidate, native), candidate))
    lanes = min(nest.shape[dim], native * max(registers, _interleave(nest, dim)))
    inner = nest.reduced_dim if nest.reduced_dim != dim else None
    loops = (*(d for d in dims if d not in (dim, inner)), dim, *(() if inner is None else (inner,)))
    strides = StrideAnalysis(dim, lanes)
    strides_no_wrap = _find_wraps(nest, strides) if loops[-1] == dim else None
    if strides_no_wrap is None:
        return Vectorization(dim, lanes, loops, strides, strides)
    return Vectorization(dim, lanes, loops, strides, strides_no_wrap, tuple(strides_no_wrap.wraps))


def _score(nest: NestInfo, dim: int, native: int) -> float:
    """How well a dimension suits vectors: contiguous accesses count for it, gathers and scatters against it."""
    strides = StrideAnalysis(dim, min(native, nest.shape[dim]), no_wrap=True)
    score = 0.0
    for op, at in _memory_uses(nest):
        stride, bytes_ = memory_stride(strides, op, at)
        if stride == bytes_:
            score += 2
        elif stride == -bytes_ and bytes_ > 1:  # a shuffle more
            score += 1
        elif stride != 0:
            score -= 4 if len(op.results) == 0 else 3
    score -= 1 if dim == nest.reduced_dim else 0
    return score * (1.0 if score < 0 else min(1.0, nest.shape[dim] / native))


def _interleave(nest: NestInfo, dim: int) -> int:
    """Registers of lanes in a step.

    Sums along the vector need several independent accumulators to hide latency. sin and cos branch where an argument
    is large: one branch for two registers.
    """
    if nest.reduced_dim is None and any(op.name in ("math.sin", "math.cos") for op, _ in nest.uses):
        return 2
    if nest.reduced_dim != dim or any(identity is None for identity in nest.identities.values()):
        return 1
    work = sum(1 for op, _ in nest.uses if op.name not in WITHOUT_ARITHMETIC)
    heavy = any(op.name.startswith("math.") or op.name == "tt.extern_elementwise" for op, _ in nest.uses)
    return 1 if heavy or work > 40 else (4 if work <= 14 else 2)


def _find_wraps(nest: NestInfo, strides: StrideAnalysis) -> StrideAnalysis | None:
    """The strides if no division steps inside a vector, and no sign changes; None if that makes no access contiguous.

    Its ``wraps`` are the divisions and signs to guard. Signs are tried until an access is contiguous: a reflected index
    goes up in the middle of a row, where what is inside of the outer of two absolute values is negative.
    """
    first = _assuming(nest, strides, ())
    if first is not None or not any(op.name == "math.absi" for op, _ in nest.uses):
        return first
    for signs in itertools.product((NOT_BELOW, NOT_ABOVE), repeat=_MOST_SIGNS):
        found = _assuming(nest, strides, signs)
        if found is not None:
            return found
    return None


def _assuming(nest: NestInfo, strides: StrideAnalysis, signs: tuple[int, ...]) -> StrideAnalysis | None:
    """``_find_wraps`` for given signs."""
    optimistic = StrideAnalysis(strides.dim, strides.lanes, no_wrap=True, signs=signs)
    gained = False
    for op, at in _memory_uses(nest):
        if op.name in ("tp.read", "tp.write"):
            continue
        before, bytes_ = memory_stride(strides, op, at)
        after, _ = memory_stride(optimistic, op, at)
        gained |= before != after and after in (0, bytes_)
        for value in list(op.operands)[1:]:
            if shape_of(value) is not None:
                optimistic.of(value, at)
    if not gained or len(optimistic.wraps) > _MOST_WRAPS:
        return None
    optimistic.guarded = True
    return optimistic
