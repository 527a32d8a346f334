"""Decides which values each nest computes itself, and which pass from nest to nest in buffers."""

from __future__ import annotations

import itertools

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.ops import has_uses, is_tensor, numel, owner_of, shape_of, space_of, squeezed
from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.traits import ANCHORS, LOADS
from torchport_passes.ir.types import Op, Value
from torchport_passes.nests.costs import KEEP_ABOVE, Costs
from torchport_passes.nests.nest import BlockView, Nest, may_share_root, writes_in

__all__ = ["Materialization"]


class Materialization:
    """Fills the closures of a block's nests.

    ``buffers``: the buffer of each value that has one.
    ``items``: what grouping left; nests that only write a buffer are added to it.
    """

    def __init__(self, view: BlockView, memory: ProgramMemory, items: list[Nest | Op]) -> None:
        self.buffers: dict[Value, Value] = {}
        self._view = view
        self._memory = memory
        self._items = items
        self._costs = Costs(self.buffers)
        self._home: dict[Op, Nest] = {}  # operation -> the first nest that evaluates it
        self._writer: dict[Value, Nest] = {}  # value with a buffer -> the nest that writes it

    def run(self) -> None:
        """Collect each nest's closure; values that are costly, or whose memory is overwritten, get buffers."""
        for item in list(self._items):
            if isinstance(item, Nest):
                self._collect(item)
        for item in self._items:
            if isinstance(item, Nest):
                for anchor in [a for a in item.anchors if a.name == "tt.reduce"]:
                    self._keep_results(anchor, item)

    def _collect(self, nest: Nest) -> None:
        """The closure of a nest: everything its anchors need, down to values with buffers."""
        work = [v for a in nest.anchors for v in a.operands]
        seen: set[Value] = set()
        while work:
            value = work.pop()
            op = owner_of(value)
            if op is None or not is_tensor(value) or value in seen or value in self.buffers or op in nest.anchors:
                continue
            seen.add(value)
            if self._must_keep(op, value, nest):
                self._keep(value, nest)
                continue
            nest.closure[op] = None
            self._home.setdefault(op, nest)
            work.extend(op.operands)
        for anchor in nest.anchors:
            self._home[anchor] = nest

    def _must_keep(self, op: Op, value: Value, nest: Nest) -> bool:
        """Whether ``nest`` cannot, or had better not, compute the result ``value`` of ``op`` again."""
        if op in self._home and op.name in ANCHORS:
            return True
        if op.name in LOADS and op.block == self._view.block and self._overwritten(op, nest):
            return True
        return op in self._home and self._home[op] is not nest and self._costs.of(value) > KEEP_ABOVE

    def _overwritten(self, load: Op, nest: Nest) -> bool:
        """Whether the memory of ``load`` is written after it in program order but before ``nest`` runs."""
        for item in self._items:
            if item is nest:
                return False
            if any(self._view.overwrites(write, load) for write in writes_in(item)):
                return True
        return False

    def _keep(self, value: Value, nest: Nest) -> None:
        """Give ``value`` a buffer. The first nest that computes it writes it, else a new nest before ``nest``."""
        op = owner_of(value)
        buffer = self._memory.buffer(value.type)
        write = self._memory.write(value, buffer, ir.InsertionPoint.after(op))
        home = self._home.get(op)
        if home is not None and (_fits(value, home) or op in home.anchors):
            home.anchors.append(write)
        else:
            home = Nest(squeezed(shape_of(value) or ()), [write])
            self._items.insert(self._place(op, nest), home)
            self._fill(home)
        self.buffers[value] = buffer
        self._writer[value] = home
        self._costs.forget()

    def _fill(self, nest: Nest) -> None:
        """The closure of a nest that only writes a buffer: everything its anchors need that is not in a buffer yet."""
        work = [v for a in nest.anchors for v in a.operands]
        while work:
            value = work.pop()
            op = owner_of(value)
            if op is None or not is_tensor(value) or self._written_before(value, nest) or op in nest.closure:
                continue
            if op.name in ANCHORS:
                if op not in self._home or not self._runs_before(self._home[op], nest):
                    raise UnsupportedOperation(
                        op.name, "its result is needed before the memory it reads is overwritten"
                    )
                self._keep(value, nest)
                continue
            if op.name == "tp.read" and not self._complete(op, nest):
                raise UnsupportedOperation(op.name, "its buffer is needed before what it holds is overwritten")
            nest.closure[op] = None
            self._home[op] = nest
            work.extend(op.operands)

    def _complete(self, read: Op, nest: Nest) -> bool:
        """Whether all writes that come before ``read`` in program order have happened when ``nest`` runs."""
        later = itertools.dropwhile(lambda item: item is not nest, self._items)
        writes = [w for item in later for w in writes_in(item) if may_share_root(w, read)]
        return all(self._view.overwrites(write, read) for write in writes)

    def _written_before(self, value: Value, nest: Nest) -> bool:
        """Whether ``value`` has a buffer that is written before ``nest`` runs."""
        if value not in self._writer:
            return value in self.buffers
        return self._runs_before(self._writer[value], nest)

    def _runs_before(self, one: Nest, other: Nest) -> bool:
        return next(item for item in self._items if item is one or item is other) is one

    def _place(self, op: Op, nest: Nest) -> int:
        """The index for a nest that evaluates ``op``: before ``nest``, and before what it loads is overwritten.

        What reductions load does not count: their results are kept.
        """
        loads = [o for o in [op, *self._view.slice(op, above=ANCHORS)] if o.name in LOADS]
        for i, item in enumerate(self._items):
            if item is nest:
                return i
            if any(self._view.overwrites(write, load) for write in writes_in(item) for load in loads):
                return i
        return len(self._items) - 1

    def _keep_results(self, anchor: Op, nest: Nest) -> None:
        """Give tensor results that are used buffers; results of one element leave the nest as scalars."""
        for result in anchor.results:
            if numel(shape_of(result) or ()) == 1 or result in self.buffers:
                continue
            if has_uses(result):
                buffer = self._memory.buffer(result.type)
                nest.anchors.append(self._memory.write(result, buffer, ir.InsertionPoint.after(anchor)))
                self.buffers[result] = buffer


def _fits(value: Value, nest: Nest) -> bool:
    """Whether a value has the shape of a nest, or one that broadcasts to it."""
    shape = shape_of(value) or ()
    return squeezed(shape) == nest.shape or any(
        len(space_of(a)) == len(shape) and all(v in (1, s) for v, s in zip(shape, space_of(a), strict=True))
        for a in nest.anchors
        if squeezed(space_of(a)) == nest.shape
    )
