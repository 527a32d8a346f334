"""Loop nests while they are being formed, and which memory operations may change places."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from mlir import ir

from torchport_passes.analysis.provenance import chosen_roots
from torchport_passes.ir.ops import is_tensor, owner_of, root_pointer, shape_of, squeezed
from torchport_passes.ir.traits import LOADS, WRITES
from torchport_passes.ir.types import Block, Op, Value

__all__ = [
    "BlockView",
    "Nest",
    "Read",
    "inner_operations",
    "may_overlap",
    "may_share_root",
    "memory_root",
    "same_lanes",
    "writes_in",
]


@dataclass(frozen=True)
class Read:
    """A load that an operation is computed from.

    ``load``: the operation that reads.
    ``permuted``: whether lane i depends on another lane of the load, as behind a transpose.
    """

    load: Op
    permuted: bool


@dataclass
class Nest:
    """One loop nest.

    ``shape``: its iteration space without unit dimensions.
    ``anchors``: the operations it exists for: stores, reductions, atomics, assertions, writes of buffers.
    ``axis``: the reduced dimension, counted without unit dimensions; None without reductions.
    ``closure``: the other operations that it evaluates, a set in insertion order; filled in by ``materialize``.
    ``reads``: the loads that its anchors are computed from.
    """

    shape: tuple[int, ...]
    anchors: list[Op] = field(default_factory=list)
    axis: int | None = None
    closure: dict[Op, None] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)


class BlockView:
    """A basic block before nests are formed.

    ``operations``: its operations in program order.
    ``position``: the index of each. Operations made later (writes and reads of buffers) get one where it matters.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.operations = [op.operation for op in block.operations]
        self.position = {op: i for i, op in enumerate(self.operations)}

    @property
    def terminator(self) -> Op:
        return self.operations[-1]

    def slice(self, op: Op, above: Container[str] = ()) -> dict[Op, None]:
        """All that ``op`` is computed from, down to values from outside of the block: a set in a fixed order.

        ``above``: names of operations whose own operands are left out.
        """
        slice_: dict[Op, None] = {}
        work = [op]
        while work:
            current = work.pop()
            operands = list(current.operands)
            if len(current.regions) > 0 and current.name != "tt.reduce":
                operands += [v for o in inner_operations(current) for v in o.operands]
            for value in operands:
                owner = owner_of(value)
                if owner is not None and owner not in slice_:
                    slice_[owner] = None
                    if owner.block == self.block and owner.name not in above:
                        work.append(owner)
        return slice_

    def reads(self, op: Op) -> list[Read]:
        """The loads of tensors that ``op`` is computed from, ``op`` itself included."""
        operations = [op, *self.slice(op)]
        loads = [o for o in operations if o.name in LOADS and is_tensor(o.results[0])]
        permuted = {o for t in operations if t.name == "tt.trans" for o in self.slice(t)} if loads else set()
        return [Read(load, load in permuted) for load in loads]

    def overwrites(self, write: Op, load: Op) -> bool:
        """Whether ``write``, after ``load`` in program order, may change the memory that ``load`` reads.

        The write is in this block or inside one of its operations.
        """
        return may_overlap(memory_root(write), memory_root(load)) and self._after(write, load)

    def place(self, op: Op) -> int | None:
        """The position of an operation of this block, None for other operations.

        An operation's hash changes with its operands, so operations that were changed are compared one by one.
        """
        if op in self.position:
            return self.position[op]
        if op.block != self.block:
            return None
        return next((place for other, place in self.position.items() if other == op), None)

    def _after(self, op: Op, other: Op) -> bool:
        while op not in self.position and op.block != self.block:
            op = op.parent.operation
        place, earlier = self.place(op), self.place(other)
        return (-1 if place is None else place) > (-1 if earlier is None else earlier)


def inner_operations(op: Op) -> list[Op]:
    """``op`` and everything in its regions, in program order."""
    if not len(op.regions):
        return [op]
    operations: list[Op] = []

    def collect(inner: Op) -> ir.WalkResult:
        operations.append(inner.operation)
        return ir.WalkResult.ADVANCE

    op.walk(collect, ir.WalkOrder.PRE_ORDER)
    return operations


def writes_in(item: Nest | Op) -> Iterable[Op]:
    """The operations that write memory: of a nest, or of another operation and its regions."""
    operations = item.anchors if isinstance(item, Nest) else inner_operations(item)
    return (op for op in operations if op.name in WRITES)


def memory_root(op: Op) -> Value:
    """The root pointer of a load's or write's address: mostly a kernel argument or a buffer."""
    return root_pointer(_address(op))


def may_share_root(a: Op, b: Op) -> bool:
    """Whether the addresses of two memory operations may have the same root.

    A pointer that was chosen, as by ``tl.where`` or by a branch, that a loop carries
    or that was kept in a buffer, has those of all that it may be.
    """
    first, second = memory_root(a), memory_root(b)
    return first == second or not chosen_roots(first).isdisjoint(chosen_roots(second))


def may_overlap(a: Value, b: Value) -> bool:
    """Whether two roots may point to the same memory: kernel arguments can alias, buffers cannot."""
    return a == b or not any(_is_buffer(root) for root in (a, b))


def same_lanes(a: Op, b: Op) -> bool:
    """Whether two memory operations access the same address in each lane."""
    if _address(a) != _address(b):
        return False
    if "tp.read" in (a.name, b.name) or "tp.write" in (a.name, b.name):
        shapes = [shape_of(op.results[0] if op.name == "tp.read" else op.operands[0]) or () for op in (a, b)]
        return squeezed(shapes[0]) == squeezed(shapes[1])
    return True


def _address(op: Op) -> Value:
    return op.operands[1] if op.name == "tp.write" else op.operands[0]


def _is_buffer(root: Value) -> bool:
    owner = owner_of(root)
    return owner is not None and owner.name == "tp.buffer"
