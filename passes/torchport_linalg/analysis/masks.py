"""Masks as intervals: for each dimension the lanes from ``lows`` to ``highs`` are active, where ``when`` holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlir import ir

from torchport_linalg.analysis.forms import Form, Forms, owner, shape_of
from torchport_linalg.analysis.polynomial import ONE, ZERO, Atom, Polynomial, constant

__all__ = ["Bound", "Interval", "interval_of"]


@dataclass(frozen=True)
class Bound:
    """``value`` divided by ``by`` and rounded up; by ``-by`` and rounded down where ``by`` is negative."""

    value: Polynomial
    by: int = 1


@dataclass(frozen=True)
class Interval:
    """The active lanes of a mask.

    lows: for each dimension, bounds that the first active index reaches; each is a number of a lane.
    highs: for each dimension, bounds that the active indices stay below.
    when: booleans, each the same for all lanes, that must hold besides.
    """

    lows: tuple[tuple[Bound, ...], ...]
    highs: tuple[tuple[Bound, ...], ...]
    when: tuple[Atom, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every lane is active."""
        return not any(self.lows) and not any(self.highs) and not self.when

    def merged(self, other: Interval) -> Interval:
        """The lanes active in both."""
        return Interval(
            tuple((*a, *b) for a, b in zip(self.lows, other.lows, strict=True)),
            tuple((*a, *b) for a, b in zip(self.highs, other.highs, strict=True)),
            (*self.when, *(atom for atom in other.when if atom not in self.when)),
        )


def whole(rank: int) -> Interval:
    """All lanes of a tensor of ``rank`` dimensions."""
    return Interval(((),) * rank, ((),) * rank)


def interval_of(mask: Any, forms: Forms) -> Interval | str:
    """The interval of a mask, or why it has none, in words. ``mask``: a tensor of booleans."""
    rank, op = len(shape_of(mask)), owner(mask)
    if op is not None and op.name == "arith.constant" and _always(op):
        return whole(rank)
    if forms.same(mask):
        return replace(whole(rank), when=(forms.atom(mask),))
    if op is None:
        return "a loop or a branch carries the mask"
    if op.name == "arith.andi":
        left, right = (interval_of(operand, forms) for operand in op.operands)
        if isinstance(left, str) or isinstance(right, str):
            return left if isinstance(left, str) else str(right)
        return left.merged(right)
    if op.name in ("tt.expand_dims", "tt.broadcast", "tt.trans", "tt.reshape"):
        return _moved(op, forms)
    if op.name == "arith.cmpi":
        return _compared(op, forms, rank)
    return f"the mask is a result of {op.name}, no comparison of an index with a bound"


def _always(op: Any) -> bool:
    dense = ir.DenseElementsAttr(op.attributes["value"])
    return bool(dense.is_splat) and bool(int(ir.IntegerAttr(dense.get_splat_value()).value))


def _moved(op: Any, forms: Forms) -> Interval | str:
    inner = interval_of(op.operands[0], forms)
    if isinstance(inner, str):
        return inner
    source, shape = shape_of(op.operands[0]), shape_of(op.results[0])
    if op.name == "tt.expand_dims":
        axis = int(ir.IntegerAttr(op.attributes["axis"]).value)
        order = [d if d < axis else d - 1 for d in range(len(shape))]
        order[axis] = -1
    elif op.name == "tt.trans":
        order = list(ir.DenseI32ArrayAttr(op.attributes["order"]))
    elif op.name == "tt.broadcast":
        order = list(range(len(shape)))
    else:
        if [n for n in source if n > 1] != [n for n in shape if n > 1]:
            return "the mask is reshaped"
        kept = iter([d for d, n in enumerate(source) if n > 1])
        order = [next(kept) if n > 1 else -1 for n in shape]
    lows = tuple(inner.lows[d] if d >= 0 else () for d in order)
    highs = tuple(inner.highs[d] if d >= 0 else () for d in order)
    return Interval(lows, highs, inner.when)


def _compared(op: Any, forms: Forms, rank: int) -> Interval | str:
    left, right = forms.of(op.operands[0]), forms.of(op.operands[1])
    if left is None or right is None:
        return "the mask compares values that are no affine functions of the lane"
    strides = [a - b for a, b in zip(left.strides, right.strides, strict=True)]
    moving = [d for d, stride in enumerate(strides) if stride != ZERO]
    if len(moving) != 1:
        return "the mask compares indices along several dimensions"
    axis = moving[0]
    step = strides[axis].known
    if step is None:
        return "the mask's index has a stride that is known only when it runs"
    bounds = _bounds(_predicate(op), Form(left.start - right.start), step)
    if isinstance(bounds, str):
        return bounds
    lows, highs = bounds
    before, after = ((),) * axis, ((),) * (rank - axis - 1)
    return Interval((*before, lows, *after), (*before, highs, *after))


_PREDICATES = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")


def _predicate(op: Any) -> str:
    return _PREDICATES[int(ir.IntegerAttr(op.attributes["predicate"]).value)]


def _bounds(predicate: str, form: Form, step: int) -> tuple[tuple[Bound, ...], tuple[Bound, ...]] | str:
    """Bounds of ``index`` where ``start + step * index`` compares with 0."""
    start = form.start
    if predicate == "eq" and abs(step) == 1:
        lane = start * constant(-step)
        return (Bound(lane),), (Bound(lane + ONE),)
    if predicate not in ("slt", "sle", "sgt", "sge"):
        return f"the mask is a comparison {predicate}, whose lanes are no interval"
    if predicate in ("sgt", "sge"):
        start, step = start * constant(-1), -step
    if predicate in ("sle", "sge"):
        start = start - ONE
    # now start + step * index < 0
    if step > 0:
        return (), (Bound(start * constant(-1), step),)
    return (_first(start, -step),), ()


def _first(start: Polynomial, step: int) -> Bound:
    """The first index with ``start < step * index``: ``start / step`` rounded down, and one."""
    return Bound(start + ONE, 1) if step == 1 else Bound(start + constant(step), -step)
