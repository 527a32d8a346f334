"""What each nest computes itself, and which values are kept in buffers instead."""

from __future__ import annotations

from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.ops import has_uses, is_tensor, numel, owner_of, shape_of, space_of, squeezed
from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.traits import ANCHORS, LOADS
from torchport_passes.nests.costs import KEEP_ABOVE, Costs
from torchport_passes.nests.nest import BlockView, Nest, writes_in

__all__ = ["Keeping"]


class Keeping:
    """Fills the closures of a block's nests; ``kept`` maps each value that got a buffer to it.

    ``items``: what grouping left. Nests that only keep a value are added to it.
    """

    def __init__(self, view: BlockView, memory: ProgramMemory, items: list[Any]) -> None:
        self.kept: dict[Any, Any] = {}
        self._view = view
        self._memory = memory
        self._items = items
        self._costs = Costs(self.kept)
        self._home: dict[Any, Nest] = {}  # operation -> the first nest that evaluates it
        self._writer: dict[Any, Nest] = {}  # kept value -> the nest that writes its buffer

    def run(self) -> None:
        """Collect each nest's closure; keep values that are costly, or whose memory changes in between."""
        for item in list(self._items):
            if isinstance(item, Nest):
                self._collect(item)
        for item in self._items:
            if isinstance(item, Nest):
                for anchor in [a for a in item.anchors if a.name == "tt.reduce"]:
                    self._keep_results(anchor, item)

    def _collect(self, nest: Nest) -> None:
        work = [v for a in nest.anchors for v in a.operands]
        seen: set[Any] = set()
        while work:
            value = work.pop()
            op = owner_of(value)
            if op is None or not is_tensor(value) or value in seen or value in self.kept or op in nest.anchors:
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

    def _must_keep(self, op: Any, value: Any, nest: Nest) -> bool:
        if op in self._home and op.name in ANCHORS:
            return True
        if op.name in LOADS and op.block == self._view.block and self._overwritten(op, nest):
            return True
        return op in self._home and self._home[op] is not nest and self._costs.of(value) > KEEP_ABOVE

    def _overwritten(self, load: Any, nest: Nest) -> bool:
        """Whether the memory of ``load`` is written after it in program order but before ``nest`` runs."""
        for item in self._items:
            if item is nest:
                return False
            if any(self._view.overwrites(write, load) for write in writes_in(item)):
                return True
        return False

    def _keep(self, value: Any, nest: Nest) -> None:
        """Give ``value`` a buffer, written by the first nest that computes it or by its own before it is lost."""
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
        self.kept[value] = buffer
        self._writer[value] = home
        self._costs.forget()

    def _fill(self, nest: Nest) -> None:
        """The closure of a nest made late: everything its anchors need that no nest before it has kept."""
        work = [v for a in nest.anchors for v in a.operands]
        while work:
            value = work.pop()
            op = owner_of(value)
            if op is None or not is_tensor(value) or self._written_before(value, nest) or op in nest.closure:
                continue
            if op.name in ANCHORS:
                raise UnsupportedOperation(op.name, "its result is needed before the memory it reads is overwritten")
            nest.closure[op] = None
            self._home[op] = nest
            work.extend(op.operands)

    def _written_before(self, value: Any, nest: Nest) -> bool:
        """Whether ``value`` is kept in a buffer that is written before ``nest`` runs."""
        if value not in self._writer:
            return value in self.kept
        return next(item for item in self._items if item is nest or item is self._writer[value]) is not nest

    def _place(self, op: Any, nest: Nest) -> int:
        """Where a nest that evaluates ``op`` can stand: before the first item that overwrites what it loads."""
        loads = [o for o in [op, *self._view.slice(op)] if o.name in LOADS]
        for i, item in enumerate(self._items):
            if item is nest:
                return i
            if any(self._view.overwrites(write, load) for write in writes_in(item) for load in loads):
                return i
        return len(self._items) - 1

    def _keep_results(self, anchor: Any, nest: Nest) -> None:
        """Tensor results that other nests use go through buffers; one-element ones leave the nest as scalars."""
        for result in anchor.results:
            if numel(shape_of(result) or ()) == 1 or result in self.kept:
                continue
            if has_uses(result):
                buffer = self._memory.buffer(result.type)
                nest.anchors.append(self._memory.write(result, buffer, ir.InsertionPoint.after(anchor)))
                self.kept[result] = buffer


def _fits(value: Any, nest: Nest) -> bool:
    """Whether a nest computes a value of this shape: its own, or its own broadcast from one index in a dimension."""
    shape = shape_of(value) or ()
    return squeezed(shape) == nest.shape or any(
        len(space_of(a)) == len(shape) and all(v in (1, s) for v, s in zip(shape, space_of(a), strict=True))
        for a in nest.anchors
        if squeezed(space_of(a)) == nest.shape
    )
