"""Chooses the dimension of a nest that becomes vectors, the number of lanes and the order of the loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlir import ir

from torchport_passes.analysis.strides import Axis
from torchport_passes.ir.build import byte_width
from torchport_passes.ir.ops import INDEX_MAPS, Coords, element_type, shape_of
from torchport_passes.vectorize.lane_values import Lanes
from torchport_passes.vectorize.pointers import address_of, byte_stride

if TYPE_CHECKING:
    from torchport_passes.vectorize.plan import Plan

__all__ = ["choose_vector_dimension"]

_MEMORY = frozenset({"tt.load", "tt.store", "tt.atomic_rmw", "tt.atomic_cas", "tp.read", "tp.write"})
_MOST_WRAPS = 3


def _memory_uses(plan: Plan) -> list[tuple[Any, Coords]]:
    return [(op, at) for op, at in plan.uses if op.name in _MEMORY]


def _native_lanes(plan: Plan, vector_bits: int) -> int:
    """Lanes that fill one register with the widest type computed with (half types compute in f32)."""

    floats, memory = [], []
    for op, _ in plan.uses:
        for value in (*op.results, *op.operands):
            type_ = element_type(value.type)
            if isinstance(type_, ir.FloatType):
                floats.append(max(32, type_.width))
        if op.name in _MEMORY:
            value = op.results[0] if len(op.results) > 0 else op.operands[0 if op.name == "tp.write" else 1]
            memory.append(8 * byte_width(element_type(value.type)))
    bits = max(floats) if floats else max(memory, default=32)
    return max(2, vector_bits // bits)


def _stride(plan: Plan, lanes: Lanes, op: Any, at: Coords) -> tuple[int | None, int]:
    """(byte stride along the vector dimension, element bytes) of a memory operation."""
    if op.name in ("tp.read", "tp.write"):
        value = op.results[0] if op.name == "tp.read" else op.operands[0]
        bytes_ = byte_width(element_type(value.type))
        stride, scale = 0, 1
        for size, coord in zip(reversed(shape_of(value) or ()), reversed(at), strict=True):
            if coord == lanes.axis.dim:
                stride += scale * bytes_
            scale *= size
        return stride, bytes_
    value = op.results[0] if op.name == "tt.load" else op.operands[1]
    return byte_stride(lanes, address_of(lanes, op.operands[0], at)), byte_width(element_type(value.type))


def choose_vector_dimension(plan: Plan, vector_bits: int) -> None:
    """Fill in ``vec``, ``lanes``, ``loops`` and the axes: the dimension most accesses are contiguous along wins."""
    native = _native_lanes(plan, vector_bits)
    best: tuple[float, int] | None = None
    for dim in range(len(plan.shape)):
        axis = Axis(dim, min(native, plan.shape[dim]), no_wrap=True)
        lanes = Lanes(list(range(len(plan.shape))), axis, [], {})
        score = 0.0
        for op, at in _memory_uses(plan):
            stride, bytes_ = _stride(plan, lanes, op, at)
            if stride == bytes_:
                score += 2
            elif stride != 0:
                score -= 4 if len(op.results) == 0 else 3
        score -= 1 if dim == plan.axis_dim else 0
        score *= 1.0 if score < 0 else min(1.0, plan.shape[dim] / native)
        if best is None or score >= best[0]:
            best = (score, dim)
    assert best is not None
    plan.vec = best[1]
    plan.lanes = min(plan.shape[plan.vec], native * _interleave(plan))
    others = [d for d in range(len(plan.shape)) if d not in (plan.vec, plan.axis_dim)]
    inner = [] if plan.axis_dim in (None, plan.vec) else [plan.axis_dim]
    plan.loops = [*others, plan.vec, *[d for d in inner if d is not None]]
    plan.axis = Axis(plan.vec, plan.lanes)
    plan.axis_no_wrap = plan.axis
    if plan.loops[-1] == plan.vec:
        _find_wraps(plan)


def _interleave(plan: Plan) -> int:
    """Registers' worth of lanes a step: sums along the vector need several independent accumulators to hide latency."""
    if plan.axis_dim is None or plan.axis_dim != plan.vec or any(v is None for v in plan.identities.values()):
        return 1
    work = sum(
        1 for op, _ in plan.uses if op.name not in INDEX_MAPS and op.name not in ("tt.make_range", "arith.constant")
    )
    heavy = any(op.name.startswith("math.") or op.name == "tt.extern_elementwise" for op, _ in plan.uses)
    return 1 if heavy or work > 40 else (4 if work <= 14 else 2)


def _find_wraps(plan: Plan) -> None:
    """Divisions whose steps inside a chunk are all that keeps an access from being contiguous."""
    optimistic = Axis(plan.vec, plan.lanes, no_wrap=True)
    lanes = Lanes(plan.loops, plan.axis, [], {})
    hopeful = Lanes(plan.loops, optimistic, [], {})
    gained = False
    for op, at in _memory_uses(plan):
        if op.name in ("tp.read", "tp.write"):
            continue
        before, bytes_ = _stride(plan, lanes, op, at)
        after, _ = _stride(plan, hopeful, op, at)
        gained |= before != after and after in (0, bytes_)
        for value in list(op.operands)[1:]:
            if shape_of(value) is not None:
                optimistic.of(value, at)
    if gained and len(optimistic.wraps) <= _MOST_WRAPS:
        plan.wraps = list(optimistic.wraps)
        optimistic.guarded = True
        plan.axis_no_wrap = optimistic
