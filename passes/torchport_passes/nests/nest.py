"""Nests while they are being formed, and what decides which memory operations may change places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torchport_passes.ir.ops import is_tensor, owner_of, root_pointer, shape_of, squeezed
from torchport_passes.ir.traits import LOADS, WRITES

__all__ = [
    "BlockView",
    "Nest",
    "Read",
    "inner_operations",
    "may_overlap",
    "memory_root",
    "same_lanes",
    "writes_in",
]


@dataclass(frozen=True)
class Read:
    """A load that something is computed from; ``permuted``: not lane from lane, as where a transpose is between."""

    load: Any
    permuted: bool


@dataclass
class Nest:
    """One loop nest: the anchors it exists for and, once values are kept, all it evaluates for them."""

    shape: tuple[int, ...]  # without unit dimensions
    anchors: list[Any] = field(default_factory=list)
    axis: int | None = None  # reduced dimension, counted without unit dimensions
    closure: dict[Any, None] = field(default_factory=dict)  # operations evaluated in the nest, a set in insertion order
    reads: list[Read] = field(default_factory=list)


class BlockView:
    """A basic block as it was before nests are formed: its operations and their places in program order.

    Operations made later (writes and reads of buffers) get a place when it matters.
    """

    def __init__(self, block: Any) -> None:
        self.block = block
        self.operations = [op.operation for op in block.operations]
        self.position = {op: i for i, op in enumerate(self.operations)}

    @property
    def terminator(self) -> Any:
        return self.operations[-1]

    def slice(self, op: Any) -> dict[Any, None]:
        """Everything in this block that ``op`` is computed from, a set in a fixed order."""
        found: dict[Any, None] = {}
        work = [op]
        while work:
            current = work.pop()
            operands = list(current.operands)
            if len(current.regions) > 0 and current.name != "tt.reduce":
                operands += [v for o in inner_operations(current) for v in o.operands]
            for value in operands:
                owner = owner_of(value)
                if owner is not None and owner not in found:
                    found[owner] = None
                    if owner.block == self.block:
                        work.append(owner)
        return found

    def reads(self, op: Any) -> list[Read]:
        """The loads of tensors that ``op`` is computed from, itself included."""
        operations = [op, *self.slice(op)]
        loads = [o for o in operations if o.name in LOADS and is_tensor(o.results[0])]
        turned = {o for t in operations if t.name == "tt.trans" for o in self.slice(t)} if loads else set()
        return [Read(load, load in turned) for load in loads]

    def overwrites(self, write: Any, load: Any) -> bool:
        """Whether ``write`` (of this block or inside one of its operations) may change what ``load`` would read later.

        A write that stands before the load changes nothing for it.
        """
        return may_overlap(memory_root(write), memory_root(load)) and self._after(write, load)

    def place(self, op: Any) -> int | None:
        """The place of an operation of this block.

        An operation's hash changes with its operands: one that was changed since is found by comparing.
        """
        if op in self.position:
            return self.position[op]
        if op.block != self.block:
            return None
        return next((place for other, place in self.position.items() if other == op), None)

    def _after(self, op: Any, other: Any) -> bool:
        while op not in self.position and op.block != self.block:
            op = op.parent.operation
        place, earlier = self.place(op), self.place(other)
        return (-1 if place is None else place) > (-1 if earlier is None else earlier)


def inner_operations(op: Any) -> list[Any]:
    """``op`` and everything in its regions, in program order."""
    found = [op]
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                found += inner_operations(inner.operation)
    return found


def writes_in(item: Any) -> Iterable[Any]:
    """The operations of a nest, or of a plain operation with all it holds, that write memory."""
    operations = item.anchors if isinstance(item, Nest) else inner_operations(item)
    return (op for op in operations if op.name in WRITES)


def memory_root(op: Any) -> Any:
    """What the address of a load or write was made from: a kernel argument or a buffer, mostly."""
    return root_pointer(_address(op))


def may_overlap(a: Any, b: Any) -> bool:
    """Whether memory behind two roots can be the same: kernel arguments can alias, buffers are their own."""
    return a == b or not any(_is_buffer(root) for root in (a, b))


def same_lanes(a: Any, b: Any) -> bool:
    """Whether two memory operations touch, lane by lane, the same addresses."""
    if _address(a) != _address(b):
        return False
    if "tp.read" in (a.name, b.name) or "tp.write" in (a.name, b.name):
        shapes = [shape_of(op.results[0] if op.name == "tp.read" else op.operands[0]) or () for op in (a, b)]
        return squeezed(shapes[0]) == squeezed(shapes[1])
    return True


def _address(op: Any) -> Any:
    return op.operands[1] if op.name == "tp.write" else op.operands[0]


def _is_buffer(root: Any) -> bool:
    owner = owner_of(root)
    return owner is not None and owner.name == "tp.buffer"
