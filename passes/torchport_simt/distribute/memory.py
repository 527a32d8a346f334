"""Loads, stores and atomics of distributed tensors, and the order in which lanes see each other's writes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from mlir import ir
from mlir.dialects import arith
from torchport_passes.analysis.provenance import SourceArguments
from torchport_passes.ir.ops import element_type, is_tensor, shape_of

from torchport_simt.distribute.values import Values

__all__ = ["Access", "Order", "atomic", "load", "store"]


@dataclass(frozen=True)
class Access:
    """One memory operation.

    roots: numbers of the arguments that it may access; None for any.
    pointer: the pointer or tensor of pointers.
    reads: whether it reads memory.
    writes: whether it writes memory.
    once: whether each element belongs to one lane; it is held by several if there are more lanes than elements.
    """

    roots: tuple[int, ...] | None
    pointer: Any
    reads: bool
    writes: bool
    once: bool

    def before(self, other: Access) -> bool:
        """Whether all lanes must complete this access before any performs ``other``.

        Through one tensor of pointers, each lane accesses its own elements only, if no other lane holds them too. Two
        arguments are assumed to overlap in the same elements or not at all, as on every Triton target.
        """
        if not (self.writes or other.writes):
            return False
        if self.pointer == other.pointer and self.once:
            return False
        return self.roots is None or other.roots is None or not set(self.roots).isdisjoint(other.roots)


class Order:
    """The accesses since the last barrier for all memory, by ``lanes`` lanes."""

    def __init__(self, roots: SourceArguments, lanes: int) -> None:
        self._roots = roots
        self._lanes = lanes
        self.pending: list[Access] = []

    def access(self, op: Any) -> Access:
        """``op`` as an Access."""
        pointer = op.operands[0]
        once = prod(shape_of(pointer) or ()) >= self._lanes
        return Access(self._roots.of(pointer), pointer, op.name != "tt.store", op.name != "tt.load", once)

    def meet(self, op: Any, values: Values) -> None:
        """Emit a barrier if ``op`` must wait for accesses of other lanes."""
        access = self.access(op)
        waits = any(past.before(access) for past in self.pending)
        # A scalar atomic may release a lock: whoever acquires it must see all earlier writes.
        if waits or (op.name.startswith("tt.atomic") and not is_tensor(op.operands[0]) and self.pending):
            self.barrier(values)
        self.pending.append(access)

    def barrier(self, values: Values) -> None:
        """Emit a barrier for all memory."""
        values.barrier("all")
        self.pending.clear()

    def enter(self, ops: list[Any]) -> None:
        """Enter a loop: the accesses of its previous iteration are pending."""
        self.pending += [self.access(op) for op in ops]


def load(op: Any, values: Values) -> None:
    """Emit ``tt.load`` of a tensor or a scalar: every lane loads its elements."""
    if values.awaits_dots(op.results[0]):
        return
    operands = [values.own(operand) for operand in op.operands]
    type_ = element_type(op.results[0].type)
    attributes = dict(op.attributes.items())
    each_lane = zip(*operands, strict=True)
    loaded = [ir.Operation.create(op.name, [type_], list(operands), attributes).results[0] for operands in each_lane]
    if is_tensor(op.results[0]):
        values.registers[op.results[0]] = loaded
    else:
        values.scalars[op.results[0]] = loaded[0]


def store(op: Any, values: Values) -> None:
    """Emit ``tt.store``: the first lane that holds an element stores it."""
    if all(map(values.cheap, (op.operands[0], *list(op.operands)[2:]))) and values.rolls(op.operands[1]):
        values.roll(
            shape_of(op.operands[0]) or (),
            lambda bits: ir.Operation.create("tt.store", [], [values.at(operand, bits) for operand in op.operands]),
        )
        return
    pointer, value, *mask = (values.own(operand) for operand in op.operands)
    first = _first(op.operands[0], values)
    masks = mask[0] if mask else [None] * len(pointer)
    for p, v, m in zip(pointer, value, masks, strict=True):
        both = _and(m, first)
        ir.Operation.create("tt.store", [], [p, v] if both is None else [p, v, both])


def atomic(op: Any, values: Values, order: Order) -> None:
    """Emit ``tt.atomic_rmw`` or ``tt.atomic_cas`` in the first lane that holds an element; others get its result."""
    pointer = op.operands[0]
    shape = shape_of(pointer) or ()
    first = _first(pointer, values)
    result = op.results[0]
    type_ = element_type(result.type)
    operands = [values.own(operand) for operand in op.operands]
    masked = op.name == "tt.atomic_rmw" and len(operands) > 2
    masks = operands.pop() if masked else [None] * len(operands[0])
    # The type by name, too: later passes turn narrow floats into integers, which must not change what is added.
    attributes = {**dict(op.attributes.items()), "element": ir.TypeAttr.get(type_)}
    old = []
    for *each, mask in zip(*operands, masks, strict=True):
        both = _and(mask, first)
        arguments = [*each] if both is None else [*each, both]
        attributes["masked"] = ir.BoolAttr.get(both is not None)
        old.append(ir.Operation.create(op.name, [type_], arguments, attributes).results[0])
    if first is None:
        values.registers[result] = old
        return
    used = any(True for _ in result.uses)
    if used or not is_tensor(result):
        scratch = values.allocate(prod(shape), type_)
        values.write(scratch, values.distribution.own(shape, 0), old[0], first)
        order.barrier(values)
        old = [values.read(scratch, values.distribution.own(shape, 0))]
    if is_tensor(result):
        values.registers[result] = old
    else:
        values.scalars[result] = old[0]


def _first(pointer: Any, values: Values) -> Any | None:
    shape = shape_of(pointer)
    return values.distribution.is_first(shape if shape is not None else ())


def _and(a: Any | None, b: Any | None) -> Any | None:
    if a is None or b is None:
        return a if b is None else b
    return arith.AndIOp(a, b).result
