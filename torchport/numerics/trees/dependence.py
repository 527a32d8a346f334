"""Whether the order of a row's operations can depend on the batch: from a kernel's TTIR, for every batch at once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from torchport.errors import TorchportError
from torchport.listing import Block, Listing, Operation, element_of, shape_of
from torchport.numerics.trees.facts import FIXED, Cut, Fact, joined, moved_axes

__all__ = ["Dependence", "check_rows"]

_ARGUMENT = "argument "
_LESS = frozenset({2, 6})  # slt, ult: predicates of arith.cmpi


class Dependence(TorchportError):
    """Why a row's operations may depend on the batch, or why that is not known."""


def check_rows(listing: Listing, sizes: Collection[int], axes: Collection[int]) -> int:
    """How many elements of a program a condition on the batch switches on or off; 1 where it takes them all or none.

    ``listing``: the kernel as it was imported. ``sizes``: numbers of the arguments that change with the batch.
    ``axes``: of the grid along which programs are positions in the batch.

    Raises Dependence if a row's operations may depend on the batch. What is checked: integers that depend on it become
    no floats; loops and branches that depend on it give none; what is reduced, multiplied or scanned is not masked by
    it along that axis; what is masked by it is stored under that mask only; loads are where stores are, as far as that
    depends on how many rows there are; no atomic operations. Whether a row reads its own data only is not checked.
    """
    check = _Check(listing, frozenset(sizes), frozenset(axes))
    check.run()
    return check.lanes


class _Check:
    def __init__(self, listing: Listing, sizes: frozenset[int], axes: frozenset[int]) -> None:
        self._listing = listing
        self.lanes = 1
        self._axes = axes
        self._facts: dict[int, Fact] = {}
        self._loads: list[Fact] = []
        self._stores: list[Fact] = []
        self._guards: list[frozenset[Cut]] = []
        for position, number in enumerate(listing.body.arguments):
            key = f"{_ARGUMENT}{position}"
            sized = position in sizes
            self._facts[number] = Fact(key, size=sized, atoms=frozenset({key} if sized else ()))

    def run(self) -> None:
        self._block(self._listing.body)
        stored = frozenset(atom for one in self._stores for atom in one.atoms)
        for address in self._loads:
            if address.size and not address.atoms <= stored:
                raise Dependence("a load's address depends on how many rows there are, and not as that of the results")

    def _block(self, block: Block) -> list[Fact]:
        for op in block.operations:
            operands = [self._facts[number] for number in op.operands]
            if op.name in ("scf.yield", "scf.condition"):
                return operands
            self._operation(op, operands)
        return []

    def _operation(self, op: Operation, operands: list[Fact]) -> None:
        handler = _HANDLERS.get(op.name)
        if handler is not None:
            found = handler(self, op, operands)
        elif op.name.startswith(_ELEMENTWISE) and not op.regions:
            found = [self._elementwise(op, operands)]
        elif any(one.batch or one.needs for one in operands) or op.regions:
            raise Dependence(f"{op.name} is not understood")
        else:
            axes = frozenset(axis for type_ in op.types for axis in range(len(shape_of(type_) or ())))
            found = [replace(joined(operands, self._key(op, operands)), axes=axes) for _ in op.results]
        for number, fact in zip(op.results, found, strict=True):
            self._facts[number] = fact

    def _key(self, op: Operation, operands: list[Fact]) -> str:
        attributes = ",".join(f"{name}={value}" for name, value in sorted(op.attributes.items()) if name != "fastmath")
        inner = f"#{op.results[0]}" if op.regions and op.results else ""
        text = f"{op.name}{inner}[{attributes}]({','.join(one.key for one in operands)})"
        return hashlib.sha256(text.encode()).hexdigest()

    # elements

    def _elementwise(self, op: Operation, operands: list[Fact]) -> Fact:
        floats = [_is_float(type_) for type_ in op.operand_types]
        mixed = _is_float(op.types[0]) or any(floats)
        for fact, is_float in zip(operands, floats, strict=True):
            if mixed and not is_float and fact.batch:
                what = "how many rows there are" if fact.size else "where a row is in the batch"
                raise Dependence(f"{what} enters the values ({op.name})")
        found = joined(operands, self._key(op, operands))
        if mixed:
            return replace(found, atoms=frozenset(), terms=frozenset())
        if op.name == "arith.andi" and _is_boolean(op):
            return found  # the terms of both
        return self._linear(op, found, operands)

    def _linear(self, op: Operation, found: Fact, operands: list[Fact]) -> Fact:
        if not found.batch:
            return found
        if _is_boolean(op):
            return replace(found, terms=frozenset({Cut(found.key, found.axes)}), atoms=frozenset())
        linear = op.name in _LINEAR or (op.name == "arith.muli" and any(not one.batch for one in operands))
        return found if linear else replace(found, atoms=frozenset({found.key}))

    def _remainder(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        """``row % rows`` is the row, where ``row < rows``; ``rows`` must be an argument."""
        row, rows = operands
        if row.batch and (rows.size or row.size) and rows.key.startswith(_ARGUMENT):
            return [replace(row, needs=row.needs | {Cut(_less_key(row, rows), row.axes)})]
        return [self._elementwise(op, operands)]

    def _compare(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        found = joined(operands, self._key(op, operands))
        if not found.batch:
            return [found]
        shape = shape_of(op.types[0]) or ()
        self.lanes = max(self.lanes, math.prod(shape[axis] for axis in found.axes))
        left, right = operands
        key = _less_key(left, right) if int(op.attributes["predicate"]) in _LESS else found.key
        return [replace(found, key=key, terms=frozenset({Cut(key, found.axes)}), atoms=frozenset())]

    def _select(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        """Where all terms of the condition hold, it takes what it would take in every batch."""
        condition, found = operands[0], joined(operands, self._key(op, operands))
        needs = found.needs | condition.terms
        if _is_float(op.types[0]):
            values = joined(operands[1:])
            return [replace(found, position=values.position, size=values.size, atoms=frozenset(), terms=frozenset(),
                            needs=needs)]  # fmt: skip
        found = replace(found, terms=frozenset())
        return [self._linear(op, found, operands) if condition.batch else replace(found, needs=needs)]

    # shapes

    def _range(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        return [Fact(self._key(op, operands), axes=frozenset({0}))]

    def _same(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        return [operands[0]]

    def _expand(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        axis, rank = int(op.attributes["axis"]), len(shape_of(op.operand_types[0]) or ())
        return [moved_axes(operands[0], {old: old + (old >= axis) for old in range(rank)})]

    def _transpose(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        order = op.attributes["order"]
        return [moved_axes(operands[0], {old: new for new, old in enumerate(order)})]

    def _reshape(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        old, new = (shape_of(type_) or () for type_ in (op.operand_types[0], op.types[0]))
        if [size for size in old if size != 1] == [size for size in new if size != 1]:
            kept = [[axis for axis, size in enumerate(shape) if size != 1] for shape in (old, new)]
            return [moved_axes(operands[0], dict(zip(*kept, strict=True)))]
        every = frozenset(range(len(new)))

        def spread(axes: frozenset[int]) -> frozenset[int]:
            return every if axes else axes

        fact = operands[0]
        terms, needs = (frozenset(Cut(one.key, spread(one.axes)) for one in cuts) for cuts in (fact.terms, fact.needs))
        return [replace(fact, key=self._key(op, operands), axes=spread(fact.axes), terms=terms, needs=needs)]

    # elements that meet

    def _across(self, op: Operation, fact: Fact, axis: int) -> None:
        if any(axis in cut.axes for cut in fact.needs):
            raise Dependence(f"a mask that depends on the batch cuts terms of {op.name}")

    def _reduce(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        axis = int(op.attributes["axis"])
        for fact, type_ in zip(operands, op.operand_types, strict=True):
            self._across(op, fact, axis)
            if (fact.batch or fact.data) and not _is_float(type_):
                raise Dependence(f"integers of several rows may meet ({op.name})")
        rank = len(shape_of(op.operand_types[0]) or ())
        whole = op.name == "tt.scan"
        moved = {old: old if whole else old - (old > axis) for old in range(rank) if whole or old != axis}
        found = moved_axes(joined(operands, self._key(op, operands)), moved)
        return [found for _ in op.results]

    def _dot(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        a, b, c, *more = operands
        rank = len(shape_of(op.types[0]) or ())
        if any(one.batch or one.needs for one in more):
            raise Dependence(f"{op.name} with scales is not understood")
        self._across(op, a, rank - 1)
        self._across(op, b, rank - 2)
        outer = {axis: axis for axis in range(rank - 2)}
        rows = moved_axes(a, {**outer, rank - 2: rank - 2})
        columns = moved_axes(b, {**outer, rank - 1: rank - 1})
        return [joined((rows, columns, c), self._key(op, operands))]

    # memory

    def _address(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        return [joined(operands, self._key(op, operands))]

    def _load(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        address, mask = operands[0], operands[1] if len(operands) > 1 else FIXED
        other = operands[2] if len(operands) > 2 else FIXED
        if other.batch:
            raise Dependence("what a masked load gives depends on the batch")
        self._loads.append(address)
        guard = frozenset(cut for terms in self._guards for cut in terms)
        needs = address.needs | mask.needs | mask.terms | other.needs | guard
        data = address.data or (address.batch and not _is_float(op.types[0]))
        return [Fact(self._key(op, operands), data=data, axes=address.axes | mask.axes, needs=needs)]

    def _store(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        address, value, mask = operands[0], operands[1], operands[2] if len(operands) > 2 else FIXED
        if value.batch:
            raise Dependence("integers that depend on the batch are stored")
        self._stores.append(address)
        known = {cut.key for cut in mask.terms} | {cut.key for terms in self._guards for cut in terms}
        if not {cut.key for cut in value.needs | address.needs | mask.needs} <= known:
            raise Dependence("what is masked by the batch is stored under another mask")
        return []

    def _atomic(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        raise Dependence("atomic operations: programs meet in memory, in an order that depends on how many there are")

    # control flow

    def _for(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        [[body]] = op.regions
        bounds = operands[:3]
        moving = any(one.batch for one in bounds)
        carried = operands[3:]
        if moving and any(_is_float(type_) for type_ in op.types):
            raise Dependence("how often a loop runs that carries floats depends on the batch")
        key = f"index #{body.arguments[0]}"
        index = replace(joined(bounds), key=key, axes=frozenset(), terms=frozenset())
        self._facts[body.arguments[0]] = replace(index, atoms=frozenset({key} if moving else ()))
        for _ in range(len(carried) + 3):
            for number, fact in zip(body.arguments[1:], carried, strict=True):
                self._facts[number] = replace(fact, key=f"carried #{number}")
            passed = self._block(body)
            merged = [replace(joined((old, new)), key=old.key) for old, new in zip(carried, passed, strict=True)]
            if merged == carried:
                break
            carried = merged
        else:
            raise Dependence("a loop whose values change too much is not understood")
        return [replace(fact, key=f"loop #{number}") for number, fact in zip(op.results, carried, strict=True)]

    def _if(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        condition = operands[0]
        if condition.batch and any(_is_float(type_) for type_ in op.types):
            raise Dependence("a branch that gives floats depends on the batch")
        found: list[list[Fact]] = []
        for number, region in enumerate(op.regions):
            if not region:
                continue
            self._guards.append(condition.terms if number == 0 else frozenset())
            found.append(self._block(region[0]))
            self._guards.pop()
        branch = replace(condition, terms=frozenset())
        return [joined((*parts, branch), f"branch #{op.results[0]}") for parts in zip(*found, strict=True)]

    def _program(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        key = self._key(op, operands)
        moving = int(op.attributes["axis"]) in self._axes
        if op.name == "tt.get_num_programs":
            return [Fact(key, size=moving, atoms=frozenset({key} if moving else ()))]
        return [Fact(key, position=moving, atoms=frozenset({key} if moving else ()))]

    def _nothing(self, op: Operation, operands: list[Fact]) -> list[Fact]:
        return []


def _less_key(left: Fact, right: Fact) -> str:
    return f"{left.key} < {right.key}"


def _is_float(type_: str) -> bool:
    return element_of(type_).startswith(("f", "bf", "tf"))


def _is_boolean(op: Operation) -> bool:
    return element_of(op.types[0]) == "i1"


_ELEMENTWISE = ("arith.", "math.", "tt.fp_to_fp", "tt.extern_elementwise", "tt.clampf", "tt.precise_", "tp.extern")
_LINEAR = frozenset({"arith.addi", "arith.subi", "arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast"})
_Handler = Callable[["_Check", Operation, list[Fact]], list[Fact]]
_HANDLERS: Mapping[str, _Handler] = MappingProxyType(
    {
        "arith.cmpi": _Check._compare,
        "arith.remsi": _Check._remainder,
        "arith.remui": _Check._remainder,
        "arith.select": _Check._select,
        "tt.make_range": _Check._range,
        "tt.addptr": _Check._address,
        "tt.splat": _Check._same,
        "tt.broadcast": _Check._same,
        "tt.expand_dims": _Check._expand,
        "tt.trans": _Check._transpose,
        "tt.reshape": _Check._reshape,
        "tt.reduce": _Check._reduce,
        "tt.scan": _Check._reduce,
        "tt.dot": _Check._dot,
        "tt.load": _Check._load,
        "tt.store": _Check._store,
        "tt.atomic_rmw": _Check._atomic,
        "tt.atomic_cas": _Check._atomic,
        "tt.assert": _Check._nothing,
        "tt.return": _Check._nothing,
        "func.return": _Check._nothing,
        "scf.for": _Check._for,
        "scf.if": _Check._if,
        "tt.get_program_id": _Check._program,
        "tt.get_num_programs": _Check._program,
    }
)
