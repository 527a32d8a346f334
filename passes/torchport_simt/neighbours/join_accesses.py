"""Makes one access of those that a lane has to neighbours in memory."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mlir import ir
from torchport_passes.ir.ops import owner_of

from torchport_simt.distribute.build import clean_up, remove_unused
from torchport_simt.neighbours.places import Place, Places

__all__ = ["JoinAccesses"]

COUNT = 4
"""Neighbours of an access."""
_BYTES = 4
"""What each of them has."""
_ORDERED = frozenset(
    {"tp.barrier", "tt.atomic_rmw", "tt.atomic_cas", "tp.scratch_count", "tp.assert", "tt.assert", "tp.print"}
)
"""What no access is moved over."""
_LESS = frozenset({2, 5, 6, 9})
"""The predicates slt, sge, ult and uge of ``arith.cmpi``."""


@dataclass(frozen=True)
class JoinAccesses:
    """Join loads, and stores, of four 32-bit neighbours at an address that 16 divides, as ``tp.wide_load`` and others.

    Takes the code of a lane of ``lanes`` after ``distribute`` and a clean-up. Those with masks are joined if the masks
    are equal, which they are where the bound is a multiple of four. Loads between which nothing is written are joined
    at the first one, stores between which memory is not used at the last one. Accesses of scratchpad memory likewise.
    """

    name: ClassVar[str] = "join-accesses"
    lanes: int = 128

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for op in list(module.body.operations):
                if op.operation.name == "func.func" and len(op.operation.regions[0].blocks):
                    function = op.operation
                    _Joiner(Places(function, self.lanes)).run(function)
            remove_unused(module)
            clean_up(module)


@dataclass
class _Group:
    """Accesses whose places differ by less than 16 bytes, by their number, with their position in the block."""

    members: dict[int, tuple[int, Any]] = field(default_factory=dict)


class _Joiner:
    def __init__(self, places: Places) -> None:
        self.places = places
        self._defined: dict[Any, int] = {}  # where in its block each value is defined
        self._replaced: list[Any] = []

    def run(self, function: Any) -> None:
        self._region(function.regions[0])
        for op in self._replaced:  # last, as places refer to their results
            op.erase()

    def _region(self, region: Any) -> None:
        for block in region.blocks:
            self._block(block)

    def _block(self, block: Any) -> None:
        ops = [op.operation for op in block.operations]
        outer, self._defined = self._defined, {value: i for i, op in enumerate(ops) for value in op.results}
        loads: dict[Hashable, _Group] = {}
        stores: dict[Hashable, _Group] = {}
        for i, op in enumerate(ops):
            name = op.name
            if name in ("tt.load", "tp.scratch_load"):
                self._note(loads, i, op)
                if name == "tt.load":
                    stores.clear()
                continue
            if name in ("tt.store", "tp.scratch_store"):
                loads = self._joined(loads)
                key = self._note(stores, i, op)
                stores = {key: stores[key]} if key is not None else {}  # only those one after another
                if key is not None and len(stores[key].members) == COUNT:
                    self._join_stores(_in_order(stores.pop(key)), op)
                continue
            if len(op.regions) or name in _ORDERED:
                loads = self._joined(loads)
                stores.clear()
                for region in op.regions:
                    self._region(region)
        self._joined(loads)
        self._defined = outer

    def _note(self, groups: dict[Hashable, _Group], position: int, op: Any) -> Hashable | None:
        """Put an access into its group; returns the group's key, None if it has none."""
        key, number = self._key(op)
        if key is None:
            return None
        group = groups.setdefault(key, _Group())
        if number in group.members:
            group = groups[key] = _Group()
        group.members[number] = position, op
        return key

    def _key(self, op: Any) -> tuple[Hashable | None, int]:
        """What all accesses that may be joined with ``op`` have in common, and its number among them."""
        stores, scratch = op.name.endswith("store"), op.name.startswith("tp.scratch")
        type_ = op.operands[0 if scratch else 1].type if stores else op.results[0].type
        where = op.operands[(2 if stores else 1) if scratch else 0]
        masks = list(op.operands)[3 if scratch else 2 if stores else 1 :]
        if str(type_) not in ("f32", "i32") or "volatile" in op.attributes:
            return None, 0
        place, unit = self.places.of(where), 1 if scratch else _BYTES
        if self.places.zeros(place) < (COUNT * unit).bit_length() - 1 or place.offset % unit:
            return None, 0
        low = place.offset % (COUNT * unit)
        buffer = op.operands[1 if stores else 0] if scratch else None
        mask = self._mask(masks[0]) if masks else None
        key = op.name, str(type_), buffer, Place(place.terms, place.offset - low), mask, len(masks)
        return key, low // unit

    def _mask(self, mask: Any) -> Hashable:
        """A key that equal masks have; those of neighbours too, if a bound does not lie between them."""
        same: Hashable = mask
        op = owner_of(mask)
        if op is not None and op.name in ("arith.andi", "arith.ori"):
            return op.name, *(self._mask(operand) for operand in op.operands)
        if op is None or op.name != "arith.cmpi":
            return same
        predicate = ir.IntegerAttr(op.attributes["predicate"]).value
        wide = str(op.operands[0].type) != "i32"
        if predicate not in _LESS or (wide and str(op.operands[0].type) != "i64"):
            return same
        index, bound = (self.places.of(operand, wide) for operand in op.operands)
        if self.places.zeros(index) < 2 or self.places.zeros(bound) < 2 or bound.offset % COUNT:
            return same
        return predicate, Place(index.terms, index.offset - index.offset % COUNT), bound

    def _joined(self, groups: dict[Hashable, _Group]) -> dict[Hashable, _Group]:
        """Join the loads of all groups that are complete; returns no groups."""
        for group in groups.values():
            if len(group.members) == COUNT:
                self._join_loads(_in_order(group), *min(group.members.values(), key=lambda member: member[0]))
        return {}

    def _join_loads(self, members: list[Any], position: int, first: Any) -> None:
        common = 2 if members[0].name == "tp.scratch_load" else 1
        operands = list(members[0].operands)[: max(common, min(2, len(members[0].operands)))]
        if len(members[0].operands) > 2:
            operands += [member.operands[2] for member in members]
        if any(self._defined.get(operand, -1) >= position for operand in operands):
            return
        name = "tp.wide_load" if common == 1 else "tp.wide_scratch_load"
        types = [member.results[0].type for member in members]
        new = ir.Operation.create(name, types, operands, ip=ir.InsertionPoint(first))
        for member, result in zip(members, new.results, strict=True):
            self._defined[result] = position
            member.results[0].replace_all_uses_with(result)
        self._replaced += members

    def _join_stores(self, members: list[Any], last: Any) -> None:
        if members[0].name == "tt.store":
            pointer, _, *mask = members[0].operands
            operands = [pointer, *(member.operands[1] for member in members), *mask]
            name = "tp.wide_store"
        else:
            _, buffer, index, *mask = members[0].operands
            operands = [buffer, index, *(member.operands[0] for member in members), *mask]
            name = "tp.wide_scratch_store"
        ir.Operation.create(name, [], operands, ip=ir.InsertionPoint(last))
        self._replaced += members


def _in_order(group: _Group) -> list[Any]:
    return [group.members[number][1] for number in range(COUNT)]
