"""Rebuilds a block from its nests and the operations between them."""

from __future__ import annotations

from mlir import ir

from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import has_uses, is_tensor, numel, owner_of, shape_of
from torchport_passes.ir.types import Op, Value
from torchport_passes.nests.nest import BlockView, Nest, inner_operations

__all__ = ["NestEmission"]

_OWN_DEPTH = 1 << 30  # of the block whose nests are formed: deeper than the blocks around it


class NestEmission:
    """Emits the items of one block. ``buffers``: the buffer of each value that nests read from memory."""

    def __init__(self, view: BlockView, items: list[Nest | Op], buffers: dict[Value, Value]) -> None:
        self._view = view
        self._items = items
        self._buffers = buffers
        self._placed: set[Op] = set()  # operations that stay
        self._around: dict[Op, tuple[int, int, int]] = {}  # of outer operations: depth and number of block, position

    def run(self) -> None:
        """Emit items in order at the end of the block, scalars before their first use; erase everything else."""
        terminator = self._view.terminator
        for item in self._items:
            if isinstance(item, Nest):
                for op in [*item.closure, *item.anchors]:
                    self._place_scalars(op)
                self._placed.add(self._nest(item))
            else:
                self._place_scalars(item)
                if item != terminator:
                    item.move_before(terminator)
                self._placed.add(item)
        for op in reversed([o.operation for o in self._view.block.operations]):
            if op not in self._placed and op.name != "tp.buffer":
                op.erase()

    def _place_scalars(self, op: Op) -> None:
        """Move the scalar operations that ``op``, or an operation inside it, needs to the end of the block, once."""
        work = [(v, False) for o in inner_operations(op) for v in o.operands]
        while work:
            value, ready = work.pop()
            owner = value if ready else owner_of(value)
            if owner is None or owner in self._placed or owner.block != self._view.block:
                continue
            if owner.name == "tp.buffer" or any(is_tensor(r) for r in owner.results):
                continue
            if ready:
                owner.move_before(self._view.terminator)
                self._placed.add(owner)
            else:
                work.append((owner, True))
                work.extend((v, False) for v in owner.operands)

    def _nest(self, nest: Nest) -> Op:
        """A ``tp.nest`` with copies of the nest's operations; its results replace the scalars of its reductions."""
        scalars = _leaving(nest)
        attributes = {"shape": ir.DenseI64ArrayAttr.get(list(nest.shape))}
        if nest.axis is not None:
            attributes["axis"] = ir.IntegerAttr.get(integer_type(64), nest.axis)
        point = ir.InsertionPoint(self._view.terminator)
        types = [value.type for value, _ in scalars]
        op = ir.Operation.create("tp.nest", types, [], attributes, regions=1, ip=point)
        with ir.InsertionPoint(op.regions[0].blocks.append()):
            copies = self._copies(nest)
            ir.Operation.create("tp.yield", [], [copies[source] for _, source in scalars])
        for (value, _), result in zip(scalars, op.results, strict=True):
            value.replace_all_uses_with(result)
        return op

    def _copies(self, nest: Nest) -> dict[Value, Value]:
        """Copy the nest's operations to the current insertion point. Returns the copy of each value."""
        members = sorted([*nest.closure, *nest.anchors], key=self._order)
        copies: dict[Value, Value] = {}
        for value, buffer in self._buffers.items():
            if any(value in list(m.operands) for m in members) and owner_of(value) not in members:
                copies[value] = ir.Operation.create("tp.read", [value.type], [buffer]).results[0]
        for member in members:
            clone = member.clone()
            for i, operand in enumerate(clone.operands):
                if operand in copies:
                    clone.operands[i] = copies[operand]
            copies.update(zip(member.results, clone.results, strict=True))
        return copies

    def _order(self, op: Op) -> tuple[int, int, int, int]:
        """Program order: blocks from the outermost inwards; a write of a buffer after the value it writes."""
        place = self._view.place(op)
        if place is not None:
            return (_OWN_DEPTH, 0, place, 0)
        if op.name == "tp.write":
            return (_OWN_DEPTH, 0, self._view.place(owner_of(op.operands[0])) or 0, 1)
        if op not in self._around:
            self._number_block(op)
        return (*self._around[op], 0)

    def _number_block(self, op: Op) -> None:
        """Record the place of each operation in ``op``'s block, which is around this one."""
        depth, around = 0, op.parent.operation
        while around.name != "func.func":
            depth, around = depth + 1, around.parent.operation
        number = next(i for i, block in enumerate(op.block.region.blocks) if block == op.block)
        for i, other in enumerate(op.block.operations):
            self._around[other.operation] = (depth, number, i)


def _leaving(nest: Nest) -> list[tuple[Value, Value]]:
    """Scalars of a nest that are used outside: the value used there, and the reduction's result that it is."""
    scalars = []
    for anchor in nest.anchors:
        for result in anchor.results:
            if not is_tensor(result) and has_uses(result):
                scalars.append((result, result))
            elif numel(shape_of(result) or ()) == 1:
                readers = [u.owner.operation for u in result.uses if u.owner.operation.name == "tt.unsplat"]
                scalars += [(r.results[0], result) for r in readers]
    return scalars
