"""Finds sorting networks in what Triton's frontend makes of ``tl.sort``, ``tl.topk`` and ``tl.bitonic_merge``."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from mlir import ir

from torchport_passes.ir.ops import DOWN, UP, constant_splat, int_attribute, matching, owner_of, shape_of
from torchport_passes.tensor.exchange import collapsed, erase_unused, exchange_of, reshaped_uses, used_only_by

__all__ = ["RecognizeSort"]

_GREATER = {("arith.cmpf", 2), ("arith.cmpi", 4), ("arith.cmpi", 8)}  # ogt, sgt, ugt
_WIDENING = ("arith.extf", "arith.extsi", "arith.extui")


@dataclass(frozen=True)
class RecognizeSort:
    """Replace compare-and-exchange steps that form whole merges by ``tp.sort``.

    Triton writes a sorting network of ``n`` elements as ``log2(n)^2 / 2`` steps, each a reduction over a block of
    ``log2(n)`` dimensions. Takes imported TTIR. Leaves ``tp.sort(x) {first, last, order}`` (see ``_lower_sort``; and
    ``unsigned``), whose operand and result are blocks of as many elements, seen as one dimension; the reshapes around
    it are taken in. A reduction over one axis of a sorted block (``tl.topk`` has them) is made one of three dimensions.
    """

    name: ClassVar[str] = "recognize-sort"

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            chains: list[list[_Step]] = []
            ends: dict[Any, list[_Step]] = {}
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
    """``result = select((x > y) != (flip ^ right), y, x)`` where y is x with neighbours exchanged.

    ``bit``: the partner's linear index differs in it. ``order``: the bit that turns the order round, UP or DOWN.
    ``members``: the operations of the step, users before what they use.
    """

    op: Any
    source: Any
    bit: int
    order: int
    unsigned: bool
    members: tuple[Any, ...]


def _step(select: Any) -> _Step | None:
    condition, partner, source = select.operands
    members = [select]
    differs = owner_of(condition)
    if differs is None or differs.name != "arith.cmpi" or _predicate(differs) != 1:
        return None
    extended, marks = (owner_of(v) for v in differs.operands)
    greater = None if extended is None or extended.name != "arith.extui" else owner_of(extended.operands[0])
    if greater is None or (greater.name, _predicate(greater)) not in _GREATER:
        return None
    if list(greater.operands) != [source, partner]:
        return None
    members += [differs, extended, greater]
    exchange = exchange_of(_through_bitcasts(partner, members))
    parity = _parity(differs.operands[1], members) if marks is not None else None
    if exchange is None or parity is None or exchange.axis not in parity[0]:
        return None
    members += exchange.members
    if _through_bitcasts(exchange.source, members) != source:
        return None
    shape = shape_of(source) or ()
    others = sorted(parity[0] - {exchange.axis})
    if len(others) > 1 or (others and parity[1]) or any(s != 2 for s in shape):
        return None
    order = len(shape) - 1 - others[0] if others else (DOWN if parity[1] else UP)
    unsigned = greater.name == "arith.cmpi" and _predicate(greater) == 8
    return _Step(select, source, len(shape) - 1 - exchange.axis, order, unsigned, tuple(members))


def _predicate(compare: Any) -> int | None:
    return int_attribute(compare, "predicate") if "predicate" in compare.attributes else None


def _through_bitcasts(value: Any, members: list[Any]) -> Any:
    while (op := owner_of(value)) is not None and op.name == "tt.bitcast":
        members.append(op)
        value = op.operands[0]
    return value


def _parity(value: Any, members: list[Any]) -> tuple[frozenset[int], int] | None:
    """Axes of two whose indices, added up with a constant, give a block of zeros and ones modulo two; None if unknown.

    ``right`` of an axis is its index; ``flip`` is that of another axis, or a constant. The operations are added to
    ``members``.
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


def _constant_parity(op: Any) -> tuple[frozenset[int], int] | None:
    attribute = constant_splat(op)
    number = None if attribute is None else int(ir.IntegerAttr(attribute).value)
    return (frozenset(), abs(number)) if number in (0, 1) else None


def _range_parity(value: Any, members: list[Any]) -> tuple[frozenset[int], int] | None:
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
    """The chain as sorts (first stage, last stage, order of the last); None when it is not made of whole merges."""
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(chain):
        stage, order = chain[at].bit + 1, chain[at].order
        merge = chain[at : at + stage]
        if [(s.bit, s.order) for s in merge] != [(bit, order) for bit in reversed(range(stage))]:
            return None
        if found and found[-1][1:] == (stage - 1, stage - 1):  # alternating, and this one is the next stage
            found[-1] = (found[-1][0], stage, order)
        else:
            found.append((stage, stage, order))
        at += stage
    return found


def _replace(chain: list[_Step]) -> list[Any]:
    """Put sorts in place of a chain; returns the operations that may be unused now, users before what they use."""
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


def _collapse_reduction(result: Any, sort: Any) -> None:
    """Where the only use of a sorted block is a reduction (of it, widened), make that one of three dimensions."""
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
