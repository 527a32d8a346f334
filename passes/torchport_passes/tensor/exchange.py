"""Recognises exchanges along an axis of two, which Triton writes as ``x ^ xor_sum(x, axis, keep_dims=True)``.

``tl.sort``, ``tl.topk``, ``tl.bitonic_merge`` and ``tl.flip`` consist of them, on blocks reshaped to
``2 x 2 x ... x 2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torchport_passes.ir.ops import has_uses, int_attribute, owner_of, shape_of
from torchport_passes.ir.traits import REPEATS
from torchport_passes.ir.types import Op, Type, Value

__all__ = ["Exchange", "collapsed", "erase_unused", "exchange_of", "reshaped_uses", "used_only_by"]


@dataclass(frozen=True)
class Exchange:
    """A value with the two indices along an axis exchanged.

    ``source``: the value.
    ``axis``: the axis.
    ``members``: the operations of the exchange, the last one first.
    """

    source: Value
    axis: int
    members: tuple[Op, ...]


def exchange_of(value: Value) -> Exchange | None:
    """The exchange that a value is, or None."""
    op = owner_of(value)
    if op is None or op.name != "arith.xori":
        return None
    a, b = op.operands
    return _exchange(op, a, b) or _exchange(op, b, a)


def _exchange(op: Op, source: Value, sums: Value) -> Exchange | None:
    """``source ^ sums`` as an exchange, if ``sums`` are the xor of both elements along one axis."""
    members = [op]
    while (reduce := owner_of(sums)) is not None and reduce.name in REPEATS:
        members.append(reduce)
        sums = reduce.operands[0]
    if reduce is None or reduce.name != "tt.reduce" or list(reduce.operands) != [source] or not _is_xor(reduce):
        return None
    shape = shape_of(source) or ()
    axis = int_attribute(reduce, "axis")
    # the sums are put back along the axis they were taken along
    expanded = [int_attribute(m, "axis") for m in members if m.name == "tt.expand_dims"]
    if shape[axis] != 2 or expanded != ([axis] if len(shape) > 1 else []):
        return None
    return Exchange(source, axis, (*members, reduce))


def _is_xor(reduce: Op) -> bool:
    operations = [o.operation for o in reduce.regions[0].blocks[0].operations]
    return [o.name for o in operations] == ["arith.xori", "tt.reduce.return"]


def used_only_by(value: Value, members: tuple[Op, ...]) -> bool:
    """Whether nothing but ``members`` uses a value."""
    return all(use.owner.operation in members for use in value.uses)


def reshaped_uses(value: Value) -> tuple[Type, list[Op]]:
    """The type that all uses reshape a value to, and these reshapes; else its own type, and no reshapes."""
    users = list(dict.fromkeys(use.owner.operation for use in value.uses))
    types = {str(u.results[0].type): u.results[0].type for u in users if u.name == "tt.reshape"}
    if len(types) == 1 and all(u.name == "tt.reshape" for u in users):
        return next(iter(types.values())), users
    return value.type, []


def erase_unused(operations: list[Op]) -> None:
    """Erase those of ``operations`` that nothing uses. Users come before what they use."""
    for op in operations:
        if not any(map(has_uses, op.results)):
            op.erase()


def collapsed(shape: tuple[int, ...], axis: int, count: int = 1) -> tuple[int, int, int]:
    """A shape as three dimensions: those before ``axis``, ``count`` of them from it on, and those after."""
    return prod(shape[:axis]), prod(shape[axis : axis + count]), prod(shape[axis + count :])
