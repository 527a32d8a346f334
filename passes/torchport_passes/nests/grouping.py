"""Decides which anchors of a block share a loop nest, and in which order nests and other operations run."""

from __future__ import annotations

from collections.abc import Callable

from mlir import ir

from torchport_passes.analysis.disjoint import disjoint
from torchport_passes.ir.ops import int_attribute, is_inside, is_tensor, owner_of, space_of, squeezed
from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.traits import ANCHORS, ENDS_DEFERRAL, ORDERED, WRITES
from torchport_passes.ir.types import Block, Op, Value
from torchport_passes.nests.costs import Costs
from torchport_passes.nests.nest import BlockView, Nest, Read, inner_operations, may_share_root, same_lanes

__all__ = ["Grouping"]

_CHEAP = 0.9  # below the cost of a load: such values are computed again inside control flow


class Grouping:
    """Reads a block in program order and divides it into items: nests, and the operations between them.

    ``form_inner``: forms the nests of a block inside one of this block's operations.
    """

    def __init__(self, view: BlockView, memory: ProgramMemory, form_inner: Callable[[Block], None]) -> None:
        self.items: list[Nest | Op] = []
        self._view = view
        self._memory = memory
        self._form_inner = form_inner
        self._costs = Costs({})
        self._open: Nest | None = None
        self._deferred: list[Op] = []  # scalar stores that wait, so that the nests around them can be one

    def run(self) -> list[Nest | Op]:
        """The items in order, the block's terminator last."""
        for op in self._view.operations[:-1]:
            self._visit(op)
        self._flush()
        self.items.append(self._view.terminator)
        return self.items

    def _visit(self, op: Op) -> None:
        """Look at the next operation of the block. Pure operations need nothing: nests copy them."""
        if self._deferred and self._ends_deferral(op):
            self._flush()
        if op.name in ANCHORS and space_of(op):
            self._keep_operands_of_write(op)
            self._add(op)
        elif op.name == "tt.load" and space_of(op):
            if self._open is not None and (self._depends(op, self._open) or self._reads_what_is_written(op)):
                self._close()  # so that there is a place between what the load needs and later writes
        elif len(op.regions) > 0 and op.name not in ("tt.reduce", "tp.scan"):
            self._control_flow(op)
        elif op.name.startswith("tp.") and op.name not in ("tp.read", "tp.buffer", "tp.check"):
            self._close()
            self.items.append(op)
        elif not any(is_tensor(v) for v in (*op.operands, *op.results)) and _has_effect(op):
            self._scalar_effect(op)

    def _flush(self) -> None:
        """End the open nest, and let the deferred stores follow it."""
        self._close()
        self.items += self._deferred
        self._deferred = []

    def _close(self) -> None:
        """End the open nest."""
        if self._open is not None:
            self.items.append(self._open)
            self._open = None

    def _ends_deferral(self, op: Op) -> bool:
        """Whether a deferred store has to happen before ``op``, which may read it or write the same memory."""
        if op.name == "tt.store":
            return bool(space_of(op)) and any(may_share_root(op, d) for d in self._deferred)
        return op.name in ENDS_DEFERRAL or (len(op.regions) > 0 and op.name != "tt.reduce")

    def _scalar_effect(self, op: Op) -> None:
        """Put off a store; another operation goes before the open nest if it may, else after it."""
        if op.name == "tt.store":
            self._deferred.append(op)
            return
        if self._open is not None:
            reads_only = op.name in ("tt.load", "tt.assert", "llvm.intr.assume")
            overwritten = op.name == "tt.load" and self._writes_what_is_read(op)
            if not reads_only or overwritten or self._depends(op, self._open):
                self._close()
        self.items.append(op)

    def _reads_what_is_written(self, op: Op) -> bool:
        """Whether ``op``, or a load that it is computed from, reads memory with a root that the open nest writes."""
        return any(self._writes_what_is_read(read.load) for read in self._view.reads(op))

    def _writes_what_is_read(self, load: Op) -> bool:
        """Whether the open nest writes memory with the root of a load."""
        anchors = [] if self._open is None else self._open.anchors
        return any(anchor.name in WRITES and may_share_root(anchor, load) for anchor in anchors)

    def _control_flow(self, op: Op) -> None:
        """Form nests in the blocks of ``op``. Tensors from outside that are costly or loaded get buffers before it."""
        inside = dict.fromkeys(inner_operations(op))  # a set in program order, which is the order of the buffers
        outer: dict[Value, Op] = {}
        for inner in inside:
            for value in inner.operands:
                owner = owner_of(value)
                if owner is not None and owner not in inside and is_tensor(value):
                    outer[value] = owner
        for value, owner in outer.items():
            if owner.block == self._view.block and owner.name != "tp.read" and self._costs.of(value) > _CHEAP:
                self._keep_before(value, op)
        self._close()
        for region in op.regions:
            for block in region.blocks:
                self._form_inner(block)
        self.items.append(op)

    def _keep_before(self, value: Value, op: Op) -> None:
        """Give a tensor a buffer before ``op``, for its uses by ``op`` and inside it."""
        point = ir.InsertionPoint(op)
        buffer = self._memory.buffer(value.type)
        write = self._memory.write(value, buffer, point)
        read = self._memory.read(value.type, buffer, point)
        position = self._view.position
        position[write] = position[owner_of(read)] = position[op]
        for use in list(value.uses):
            user = use.owner.operation
            if is_inside(user, op):
                user.operands[use.operand_number] = read
        self._add(write)

    def _keep_operands_of_write(self, op: Op) -> None:
        """Give a write's operands buffers if they read other lanes of the memory it writes: all of it comes first."""
        if op.name not in WRITES:
            return
        place = self._view.position[op]
        for value in dict.fromkeys(op.operands):
            owner = owner_of(value)
            if owner is None or owner.block != self._view.block or not is_tensor(value) or owner.name == "tp.read":
                continue
            if any(_lanes_differ(op, read) for read in self._view.reads(owner)):
                self._keep_before(value, op)
                self._view.position[op] = place  # an operation's hash changes with its operands

    def _add(self, op: Op) -> None:
        """Put an anchor into the open nest, or open another one for it."""
        shape = squeezed(space_of(op))
        axis = _reduced_axis(op) if op.name == "tt.reduce" else None
        nest = self._open
        if nest is not None and (
            nest.shape != shape
            or (axis is not None and nest.axis not in (None, axis))
            or self._depends(op, nest)
            or self._clashes(op, nest)
        ):
            self._close()
            nest = None
        if nest is None:
            nest = self._open = Nest(shape)
        nest.anchors.append(op)
        if axis is not None:
            nest.axis = axis
        nest.reads.extend(self._view.reads(op))

    def _depends(self, op: Op, nest: Nest) -> bool:
        """Whether ``op`` needs a result of one of the nest's reductions or atomics."""
        results = {a for a in nest.anchors if len(a.results) > 0}
        return bool(results) and any(o in results for o in self._view.slice(op))

    def _clashes(self, op: Op, nest: Nest) -> bool:
        """Whether ``op`` and the nest, run together chunk by chunk, would leave other values in memory."""
        writes = [a for a in nest.anchors if a.name in WRITES]
        if op.name in WRITES and any(_lanes_differ(op, other) for other in nest.reads):
            return True
        if op.name in WRITES and any(_lanes_differ(op, Read(other, permuted=False)) for other in writes):
            return True
        reads = self._view.reads(op) if writes else []
        return any(_lanes_differ(write, read) for write in writes for read in reads)


def _lanes_differ(write: Op, other: Read) -> bool:
    """Whether two memory operations may have the same root, but not the same address in each lane.

    Not those whose addresses are never equal, as those of the two halves of a row.
    """
    if not ((other.permuted or not same_lanes(write, other.load)) and may_share_root(write, other.load)):
        return False
    plain = write.name == "tt.store" and other.load.name in ("tt.load", "tt.store")
    return not (plain and disjoint(write.operands[0], other.load.operands[0]))


def _has_effect(op: Op) -> bool:
    return op.name in ORDERED or op.name.startswith(("func.call", "cf."))


def _reduced_axis(op: Op) -> int:
    """The reduced dimension, counted without unit dimensions; -1 if it is one itself."""
    shape = space_of(op)
    axis = int_attribute(op, "axis")
    return sum(1 for s in shape[:axis] if s != 1) if shape[axis] != 1 else -1
