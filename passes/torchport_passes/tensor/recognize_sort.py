"""Recognises sorting networks, which Triton's frontend writes for ``tl.sort``, ``tl.topk`` and ``tl.bitonic_merge``."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from mlir import ir

from torchport_passes.ir.ops import DOWN, UP, constant_splat, int_attribute, matching, owner_of, shape_of
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.tensor.exchange import collapsed, erase_unused, exchange_of, reshaped_uses, used_only_by

__all__ = ["RecognizeSort"]

_NE, _SGT, _UGT, _OGT = 1, 4, 8, 2  # predicates
_GREATER = {("arith.cmpf", _OGT), ("arith.cmpi", _SGT), ("arith.cmpi", _UGT)}
_WIDENING = ("arith.extf", "arith.extsi", "arith.extui")


@dataclass(frozen=True)
class RecognizeSort:
    """Replace compare-and-exchange steps that form whole merges by ``tp.sort``.

    Triton writes a sorting network of ``n`` elements as ``log2(n)^2 / 2`` steps, each a reduction over a block of
    ``log2(n)`` dimensions. Takes imported TTIR. Leaves ``tp.sort(x) {first, last, order, unsigned}`` (``loops.sort``
    says what they mean), which sorts its operand as one dimension, and replaces the reshapes around it as well. A
    reduction over one axis of a sorted block, as in ``tl.topk``, becomes one of three dimensions.
    """

    name: ClassVar[str] = "recognize-sort"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            chains: list[list[_Step]] = []
            ends: dict[Value, list[_Step]] = {}
            for op in matching(module, "arith.select".__eq__):
                step = _step(op)
                if step is None:
                    continue
                chain = ends.pop(step.source, None)
                if chain is None or not used_only_by(step.source, step.members):
                    chain = []
                    chains.append(chain)
                chain.append(step)
                ends[op.results[0]] = chain
            dead = [op for chain in chains for op in reversed(_replace(chain))]
            # steps share indices: each goes after the last operation that uses it
            erase_unused(list(reversed(dict.fromkeys(dead))))


@dataclass(frozen=True)
class _Step:
    """``select((x > y) != (flip ^ right), y, x)``, where y is x with neighbours exchanged.

    ``op``: the selection.
    ``source``: x.
    ``bit``: the bit in which the linear indices of neighbours differ.
    ``order``: the bit of the index that reverses the order, or UP or DOWN.
    ``unsigned``: whether the elements are compared as unsigned integers.
    ``members``: the operations of the step, users before what they use.
    """

    op: Op
    source: Value
    bit: int
    order: int
    unsigned: bool
    members: tuple[Op, ...]


def _step(select: Op) -> _Step | None:
    """The compare-and-exchange step that a selection ends, None if it ends none."""
    condition, partner, source = select.operands
    comparison = _comparison(condition, source, partner)
    if comparison is None:
        return None
    differs, extended, greater = comparison
    members = [select, differs, extended, greater]
    exchange = exchange_of(_through_bitcasts(partner, members))
    parity = _parity(differs.operands[1], members)
    if exchange is None or parity is None or exchange.axis not in parity[0]:
        return None
    members += exchange.members
    if _through_bitcasts(exchange.source, members) != source:
        return None
    shape = shape_of(source) or ()
    order = _order(len(shape), parity[0] - {exchange.axis}, parity[1])
    if order is None or any(size != 2 for size in shape):
        return None
    unsigned = greater.name == "arith.cmpi" and _predicate(greater) == _UGT
    return _Step(select, source, len(shape) - 1 - exchange.axis, order, unsigned, tuple(members))


def _comparison(condition: Value, source: Value, partner: Value) -> tuple[Op, Op, Op] | None:
    """The operations of ``extui(source > partner) != marks``, the last one first; None for another condition."""
    differs = owner_of(condition)
    if differs is None or differs.name != "arith.cmpi" or _predicate(differs) != _NE:
        return None
    extended = owner_of(differs.operands[0])
    greater = None if extended is None or extended.name != "arith.extui" else owner_of(extended.operands[0])
    if greater is None or (greater.name, _predicate(greater)) not in _GREATER:
        return None
    return (differs, extended, greater) if list(greater.operands) == [source, partner] else None


def _order(rank: int, axes: frozenset[int], constant: int) -> int | None:
    """The order of a step whose marks add the indices along ``axes`` and a constant; None if there is no such order."""
    if not axes:
        return DOWN if constant else UP
    return rank - 1 - min(axes) if len(axes) == 1 and not constant else None


def _predicate(compare: Op) -> int | None:
    return int_attribute(compare, "predicate") if "predicate" in compare.attributes else None


def _through_bitcasts(value: Value, members: list[Op]) -> Value:
    while (op := owner_of(value)) is not None and op.name == "tt.bitcast":
        members.append(op)
        value = op.operands[0]
    return value


def _parity(value: Value, members: list[Op]) -> tuple[frozenset[int], int] | None:
    """The axes of two whose indices, added to a constant modulo two, give a block of zeros and ones; None if unknown.

    ``right`` is the index along the exchanged axis; ``flip`` is the index along another axis, or a constant. The
    operations are added to ``members``.
    """
    op = owner_of(value)
    if op is None:
        return None
    members.append(op)
    if op.name == "arith.constant":
        return _constant_parity(op)
    if op.name in ("tt.broadcast", "tt.splat", "arith.extui"):
        return _parity(op.operands[0], members)
    if op.name == "arith.xori":
        a, b = (_parity(v, members) for v in op.operands)
        return None if a is None or b is None else (a[0] ^ b[0], a[1] ^ b[1])
    return _range_parity(value, members)


def _constant_parity(op: Op) -> tuple[frozenset[int], int] | None:
    attribute = constant_splat(op)
    number = None if attribute is None else int(ir.IntegerAttr(attribute).value)
    return (frozenset(), abs(number)) if number in (0, 1) else None


def _range_parity(value: Value, members: list[Op]) -> tuple[frozenset[int], int] | None:
    """The index along the one axis of two, where ``value`` is a reshaped ``tt.make_range``."""
    shape, op = shape_of(value) or (), owner_of(value)
    while op is not None and op.name in ("tt.reshape", "tt.expand_dims"):
        op = owner_of(op.operands[0])
        if op is not None:
            members.append(op)
    if op is None or op.name != "tt.make_range" or prod(shape) != 2:
        return None
    starts_at_0 = int_attribute(op, "start") == 0
    return (frozenset({shape.index(2)}), 0) if starts_at_0 else None


def _sorts(chain: list[_Step]) -> list[tuple[int, int, int]] | None:
    """The chain as sorts (first stage, last stage, order of the last); None if it does not consist of whole merges."""
    sorts: list[tuple[int, int, int]] = []
    at = 0
    while at < len(chain):
        stage, order = chain[at].bit + 1, chain[at].order
        merge = chain[at : at + stage]
        if [(s.bit, s.order) for s in merge] != [(bit, order) for bit in reversed(range(stage))]:
            return None
        if sorts and sorts[-1][1:] == (stage - 1, stage - 1):  # alternating, and this is the next stage
            sorts[-1] = (sorts[-1][0], stage, order)
        else:
            sorts.append((stage, stage, order))
        at += stage
    return sorts


def _replace(chain: list[_Step]) -> list[Op]:
    """Replace a chain by sorts. Returns the operations that may be unused now, users before what they use."""
    sorts = _sorts(chain)
    if sorts is None:
        return []
    source, result = chain[0].op.operands[2], chain[-1].op.results[0]  # the chain before may have been replaced
    reshape = owner_of(source)
    if reshape is not None and reshape.name == "tt.reshape":
        source = reshape.operands[0]
    else:
        reshape = None
    type_, reshapes = reshaped_uses(result)
    i64 = ir.IntegerType.get_signless(64)
    value = source
    for first, last, order in sorts:
        numbers = {"first": first, "last": last, "order": order}
        attributes: dict[str, Any] = {name: ir.IntegerAttr.get(i64, number) for name, number in numbers.items()}
        if chain[0].unsigned:
            attributes["unsigned"] = ir.UnitAttr.get()
        sort = ir.Operation.create("tp.sort", [type_], [value], attributes, ip=ir.InsertionPoint(chain[-1].op))
        value = sort.results[0]
    if not reshapes:
        _collapse_reduction(result, sort)
    for old in [r.results[0] for r in reshapes] or [result]:
        old.replace_all_uses_with(value)
    dead = [member for step in reversed(chain) for member in step.members]
    return [*reshapes, *dead, *([reshape] if reshape is not None else [])]


def _collapse_reduction(result: Value, sort: Op) -> None:
    """If the only use of a sorted block is a reduction, possibly of wider elements, give that three dimensions."""
    users = [use.owner.operation for use in result.uses]
    casts = users if len(users) == 1 and users[0].name in _WIDENING else []
    if casts:
        users = [use.owner.operation for use in casts[0].results[0].uses]
    if len(users) != 1 or users[0].name != "tt.reduce" or len(users[0].operands) != 1:
        return
    reduce = users[0]
    if shape_of(reduce.results[0]) is None:
        return
    shape = collapsed(shape_of(result) or (), int_attribute(reduce, "axis"))
    point = ir.InsertionPoint(reduce)
    sort.results[0].set_type(ir.RankedTensorType.get(list(shape), result.type.element_type))
    value = sort.results[0]
    if casts:
        wide = ir.RankedTensorType.get(list(shape), reduce.operands[0].type.element_type)
        value = ir.Operation.create(casts[0].name, [wide], [value], ip=point).results[0]
    axis = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), 1)
    type_ = ir.RankedTensorType.get([shape[0], shape[2]], value.type.element_type)
    new = ir.Operation.create("tt.reduce", [type_], [value], {"axis": axis}, regions=1, ip=point)
    reduce.regions[0].blocks[0].append_to(new.regions[0])
    back = ir.Operation.create("tt.reshape", [reduce.results[0].type], [new.results[0]], ip=point)
    reduce.results[0].replace_all_uses_with(back.results[0])
    erase_unused([reduce, *casts])
