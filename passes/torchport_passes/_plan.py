"""Decides how a nest becomes loops: vectorised dimension, loop order, bounds that masks give, what can be cut off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlir import ir

from torchport_passes._address import address_of, byte_stride
from torchport_passes._axis import Axis, Coords, operand_coords, owner_of
from torchport_passes._combine import identities
from torchport_passes._emit import byte_width
from torchport_passes._lanes import Lanes
from torchport_passes._ops import (
    INDEX_MAPS,
    constant_splat,
    element_type,
    is_scalar_constant,
    numel,
    shape_of,
    squeezed,
)

__all__ = ["Bound", "Plan", "plan_function"]

_MEMORY = frozenset({"tt.load", "tt.store", "tt.atomic_rmw", "tt.atomic_cas", "tp.read", "tp.write"})
_ANCHORS = frozenset({"tt.store", "tt.atomic_rmw", "tt.atomic_cas", "tt.assert", "tt.print", "tp.write", "tt.reduce"})
_SLT, _ULT = 2, 6
_MOST_WRAPS = 3


@dataclass
class Bound:
    """Lanes of a dimension are active below ``limit - first``: the comparisons ``index < limit`` that say so."""

    key: tuple[Any, ...]
    comparisons: list[tuple[Any, Coords]]
    constant: int | None  # the number of active lanes, when it is known
    unsigned: bool = False


@dataclass
class Plan:
    """Everything the emitter needs to know about one ``tp.nest``."""

    op: Any
    block: Any
    shape: tuple[int, ...]
    anchors: list[Any]
    coords: dict[Any, Coords]
    uses: dict[tuple[Any, Coords], None]  # every operation of the nest with the coordinates it is evaluated at
    axis_dim: int | None
    vec: int = -1
    lanes: int = 1
    loops: list[int] = field(default_factory=list)
    axis: Axis = field(default_factory=lambda: Axis(-1, 1))
    axis_no_wrap: Axis = field(default_factory=lambda: Axis(-1, 1))
    wraps: list[tuple[Any, Coords, int]] = field(default_factory=list)
    identities: dict[Any, list[Any] | None] = field(default_factory=dict)
    bound: Bound | None = None
    trim: bool = False
    outer: dict[int, Bound] = field(default_factory=dict)

    def result_coords(self, reduce: Any) -> Coords:
        """Coordinates of a reduction's result: those of its operand without the reduced dimension."""
        axis = _axis_position(reduce)
        coords = self.coords[reduce]
        return coords[:axis] + coords[axis + 1 :]

    def after_reduction(self, anchor: Any) -> bool:
        """Whether an anchor uses a result of one of this nest's reductions."""
        work, seen = list(anchor.operands), set()
        while work:
            op = owner_of(work.pop())
            if op is None or op in seen or op.block != self.block:
                continue
            if op.name == "tt.reduce":
                return True
            seen.add(op)
            work.extend(op.operands)
        return False

    def loads_before(self, anchor: Any) -> list[tuple[Any, Coords]]:
        """Loads of the nest that stand before ``anchor``, with their coordinates."""
        before: dict[Any, None] = {}
        for view in self.block.operations:
            if view.operation == anchor:
                break
            before[view.operation] = None
        return [(op, coords) for op, coords in self.uses if op.name in ("tt.load", "tp.read") and op in before]


def _axis_position(reduce: Any) -> int:
    return int(ir.IntegerAttr(reduce.attributes["axis"]).value)


def plan_function(function: Any, vector_bits: int) -> list[Plan]:
    """Plans for every ``tp.nest`` of a function, in order; what is cut off is decided over all of them together."""
    plans: list[Plan] = []
    readers: list[Any] = []

    def visit(op: Any) -> None:
        if op.name == "tp.nest":
            plans.append(_plan(op, vector_bits))
            return
        if op.name.startswith("tp.") and op.name not in ("tp.buffer",):
            readers.append(op)
        for region in op.regions:
            for block in region.blocks:
                for inner in block.operations:
                    visit(inner.operation)

    visit(function)
    _decide_trimming(plans, readers)
    return plans


def _plan(op: Any, vector_bits: int) -> Plan:
    block = op.regions[0].blocks[0]
    shape = tuple(ir.DenseI64ArrayAttr(op.attributes["shape"]))
    axis = int(ir.IntegerAttr(op.attributes["axis"]).value) if "axis" in op.attributes else None
    operations = [o.operation for o in block.operations]
    anchors = [o for o in operations if o.name in _ANCHORS]
    coords = _anchor_coords(anchors, shape)
    plan = Plan(op, block, shape, anchors, coords, _uses(anchors, coords, block), axis)
    for anchor in anchors:
        if anchor.name == "tt.reduce":
            plan.identities[anchor] = identities(anchor)
    if shape:
        _choose_vector_dimension(plan, vector_bits)
        _find_bounds(plan)
    return plan


def _space(anchor: Any) -> tuple[int, ...]:
    return next((s for s in (shape_of(v) for v in anchor.operands) if s is not None), ())


def _anchor_coords(anchors: list[Any], shape: tuple[int, ...]) -> dict[Any, Coords]:
    coords: dict[Any, Coords] = {}
    full = [s for s in (_space(a) for a in anchors) if squeezed(s) == shape]
    for anchor in anchors:
        producer = owner_of(anchor.operands[0]) if anchor.name == "tp.write" else None
        space = _space(anchor)
        if producer is not None and producer.name == "tt.reduce" and producer in coords:
            axis = _axis_position(producer)
            coords[anchor] = coords[producer][:axis] + coords[producer][axis + 1 :]
            continue
        if squeezed(space) == shape:
            dims = iter(range(len(shape)))
            coords[anchor] = tuple(next(dims) if s != 1 else None for s in space)
        else:  # a smaller value kept by this nest: dimensions match by position
            whole = next(f for f in full if len(f) == len(space))
            dims = iter(range(len(shape)))
            all_coords = [next(dims) if s != 1 else None for s in whole]
            coords[anchor] = tuple(None if s == 1 else c for s, c in zip(space, all_coords, strict=True))
    return coords


def _uses(anchors: list[Any], coords: dict[Any, Coords], block: Any) -> dict[tuple[Any, Coords], None]:
    uses: dict[tuple[Any, Coords], None] = {}
    work = [(a, coords[a]) for a in reversed(anchors)]
    while work:
        op, at = work.pop()
        if (op, at) in uses:
            continue
        uses[op, at] = None
        inner = operand_coords(op, at) if op.name in INDEX_MAPS else at
        if op.name == "tt.reduce" and at != coords.get(op):
            inner = coords[op]
        for value in op.operands:
            producer = owner_of(value)
            if producer is not None and producer.block == block and shape_of(value) is not None:
                work.append((producer, coords[producer] if producer.name == "tt.reduce" else inner))
    return uses


# ---- vector dimension


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


def _choose_vector_dimension(plan: Plan, vector_bits: int) -> None:
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
        plan.axis_no_wrap = optimistic


# ---- bounds


def _find_bounds(plan: Plan) -> None:
    for dim in range(len(plan.shape)):
        bounds = _bounds_of(plan, dim)
        if dim != plan.vec:
            for bound in bounds:
                free = dim != plan.axis_dim and not any(a.name == "tp.write" for a in plan.anchors)
                if free and _unobservable(plan, bound):
                    plan.outer[dim] = bound
                    break
            continue
        if any(v is None for v in plan.identities.values()):
            continue  # a peeled reduction starts from whole chunks
        cut = [b for b in bounds if _unobservable(plan, b)]
        if cut or bounds:
            plan.bound = (cut or bounds)[0]
            plan.trim = bool(cut)


def _bounds_of(plan: Plan, dim: int) -> list[Bound]:
    """Comparisons ``x < limit`` where ``x`` goes up by one along the whole of ``dim`` and the limit does not change."""

    whole = Axis(dim, plan.shape[dim])
    found: dict[tuple[Any, ...], Bound] = {}
    for op, at in plan.uses:
        if op.name != "arith.cmpi" or dim not in at:
            continue
        predicate = int(ir.IntegerAttr(op.attributes["predicate"]).value)
        if predicate not in (_SLT, _ULT):
            continue
        if whole.of(op.operands[0], at).stride != 1 or not whole.of(op.operands[1], at).uniform:
            continue
        terms = _first_index(op.operands[0], at, dim)
        limit = _scalar_of(op.operands[1])
        if terms is None or limit is None:
            continue
        offset, scalars = terms
        constant = is_scalar_constant(limit)
        active = None if constant is None or scalars else constant - offset
        key = (offset, tuple(scalars), constant if constant is not None else limit, predicate)
        bound = found.setdefault(key, Bound(key, [], active, predicate == _ULT))
        bound.comparisons.append((op, at))
    return list(found.values())


def _scalar_of(value: Any) -> Any | None:
    """The scalar a tensor is a splat of."""
    op = owner_of(value)
    while op is not None and op.name in ("tt.splat", "tt.broadcast", "tt.expand_dims"):
        value = op.operands[0]
        op = owner_of(value)
    return value if shape_of(value) is None else None


def _first_index(value: Any, at: Coords, dim: int) -> tuple[int, list[Any]] | None:
    """Lane 0 of a unit-stride value as (constant, scalars to add), None when it has another form."""

    op = owner_of(value)
    if shape_of(value) is None:
        constant = is_scalar_constant(value)
        return (constant, []) if constant is not None else (0, [value])
    if op is None:
        return None
    if op.name in INDEX_MAPS:
        return _first_index(op.operands[0], operand_coords(op, at), dim)
    if op.name == "tt.make_range":
        return (int(ir.IntegerAttr(op.attributes["start"]).value), []) if at[0] in (dim, None) else None
    if op.name == "arith.addi":
        a, b = (_first_index(v, at, dim) for v in op.operands)
        return None if a is None or b is None else (a[0] + b[0], [*a[1], *b[1]])
    return None


def _unobservable(plan: Plan, bound: Bound) -> bool:
    """Whether lanes beyond the bound change nothing; buffers written there are judged later, with their readers."""
    lanes = Lanes(plan.loops, plan.axis, [], dict.fromkeys(bound.comparisons, False))
    for anchor in plan.anchors:
        at = plan.coords[anchor]
        if anchor.name == "tp.write":
            continue
        if anchor.name == "tt.reduce":
            neutral = plan.identities[anchor]
            if neutral is None or not all(
                _is_constant(lanes, v, at, i) for v, i in zip(anchor.operands, neutral, strict=True)
            ):
                return False
        elif anchor.name == "tt.assert":
            if lanes.known(anchor.operands[0], at) is not True:
                return False
        else:
            count = 2 if anchor.name in ("tt.store", "tt.atomic_rmw") else 3
            if len(anchor.operands) <= count or lanes.known(anchor.operands[count], at) is not False:
                return False
    return True


def _is_constant(lanes: Lanes, value: Any, at: Coords, wanted: Any) -> bool:
    """Whether a value is known to equal a constant under the masks assumed."""

    value, at = lanes.resolve(value, at)
    op = owner_of(value)
    if op is None:
        return False
    if op.name == "tt.load" and len(op.operands) > 1 and lanes.known(op.operands[1], at) is False:
        if len(op.operands) > 2:
            return _is_constant(lanes, op.operands[2], at, wanted)
        return _number(wanted) == 0
    if op.name == "arith.extf" or op.name == "arith.extsi":
        return (
            _is_constant(lanes, op.operands[0], at, wanted)
            if _number(wanted) in (0, float("inf"), -float("inf"))
            else False
        )
    attribute = constant_splat(op)
    assert wanted is None or isinstance(wanted, ir.Attribute)
    return attribute is not None and bool(_number(attribute) == _number(wanted))


def _number(attribute: Any) -> int | float:
    if isinstance(attribute, ir.BoolAttr):
        return int(ir.BoolAttr(attribute).value)
    if isinstance(attribute, ir.IntegerAttr):
        return int(ir.IntegerAttr(attribute).value)
    return float(ir.FloatAttr(attribute).value)


def _decide_trimming(plans: list[Plan], readers: list[Any]) -> None:
    """A nest that fills buffers is cut at its bound only if every reader of them is cut at the same bound."""
    written: dict[Any, list[Plan]] = {}
    read: dict[Any, list[Plan]] = {}
    for plan in plans:
        for op, _ in plan.uses:
            if op.name == "tp.write" and plan.vec in plan.coords[op]:
                written.setdefault(op.operands[1], []).append(plan)
            elif op.name == "tp.read":
                read.setdefault(op.operands[0], []).append(plan)
    others = {v for op in readers for v in op.operands}
    changed = True
    while changed:
        changed = False
        for buffer, writers in written.items():
            for plan in writers:
                if not plan.trim or plan.bound is None:
                    continue
                key = (plan.bound.key, plan.shape[plan.vec])
                same = all(
                    r.trim and r.bound is not None and (r.bound.key, r.shape[r.vec]) == key
                    for r in read.get(buffer, [])
                )
                if buffer in others or not same or numel(plan.shape) != plan.shape[plan.vec]:
                    plan.trim = False
                    changed = True
