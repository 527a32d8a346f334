"""Lets buffers in local memory share space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir
from torchport_passes.ir.build import byte_width, integer_type
from torchport_passes.ir.ops import matching

__all__ = ["PackScratch"]

_LOOPS = ("scf.for", "scf.while")
_ALIGNMENT = 8


@dataclass(frozen=True)
class PackScratch:
    """Overlap ``tp.scratch`` buffers that are not live at the same time, if together they exceed ``limit`` bytes.

    Takes the output of ``distribute``. A packed buffer gets ``offset``, its first byte in one allocation whose size is
    the function's ``tp.scratch_bytes``. A barrier precedes each reuse of space. A limit of 0 is none. ``word``: bytes
    of the smallest element that the language has an array of.
    """

    name: ClassVar[str] = "pack-scratch"
    limit: int = 0
    word: int = 1

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                buffers = matching(function, "tp.scratch".__eq__)
                if self.limit and sum(_bytes(op, self.word) for op in buffers) > self.limit:
                    _pack(function, buffers, self.word)


def _bytes(op: Any, word: int) -> int:
    count = int(ir.IntegerAttr(op.attributes["count"]).value)
    size = count * max(word, byte_width(ir.TypeAttr(op.attributes["element"]).value))
    return -(-size // _ALIGNMENT) * _ALIGNMENT


@dataclass
class _Life:
    """The live range of a buffer, as numbers of operations in the order of the text.

    buffer: the ``tp.scratch`` operation.
    first: number of its first use.
    last: number of its last use.
    user: the operation that uses it first.
    size: its bytes.
    offset: its first byte, once placed.
    """

    buffer: Any
    first: int
    last: int
    user: Any
    size: int
    offset: int = 0


def _pack(function: Any, buffers: list[Any], word: int) -> None:
    order: list[Any] = []
    spans: list[tuple[Any, int, int]] = []
    _number(function.operation, order, spans)
    place = {op: i for i, op in enumerate(order)}
    lives = []
    for buffer in buffers:
        users = [use.owner.operation for use in buffer.results[0].uses]
        if not users:
            continue
        first = min(users, key=lambda op: place[op])
        last = max(place[op] for op in users)
        for _, start, end in spans:
            # Written before a loop and read in it: live until the loop ends.
            if place[first] < start and any(start <= place[op] <= end for op in users):
                last = max(last, end)
        lives.append(_Life(buffer, place[first], last, first, _bytes(buffer, word)))
    lives.sort(key=lambda life: life.first)
    total = 0
    placed: list[_Life] = []
    for life in lives:
        life.offset = _free(life, [other for other in placed if other.last >= life.first])
        end = life.offset + life.size
        before = [other for other in placed if other.last < life.first]
        reused = any(o.offset < end and life.offset < o.offset + o.size for o in before)
        if reused and not _in_loop(life.user):  # a loop has a barrier already
            attributes = {"memory": ir.StringAttr.get("scratchpad")}
            point = ir.InsertionPoint(_outermost(life.user))
            ir.Operation.create("tp.barrier", [], attributes=attributes, ip=point)
        total = max(total, end)
        placed.append(life)
        life.buffer.attributes["offset"] = ir.IntegerAttr.get(integer_type(64), life.offset)
    for buffer in buffers:
        if "offset" not in buffer.attributes:
            buffer.erase()
    function.attributes["tp.scratch_bytes"] = ir.IntegerAttr.get(integer_type(64), total)


def _free(life: _Life, living: list[_Life]) -> int:
    """The lowest offset at which a buffer overlaps none that is live at the same time."""
    size, offset = life.size, 0
    for other in sorted(living, key=lambda other: other.offset):
        if offset + size <= other.offset:
            break
        offset = max(offset, other.offset + other.size)
    return offset


def _number(op: Any, order: list[Any], spans: list[tuple[Any, int, int]]) -> None:
    """List operations in the order of the text, and each loop with the numbers of its first and last operation."""
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                start = len(order)
                order.append(inner.operation)
                _number(inner.operation, order, spans)
                if inner.operation.name in _LOOPS:
                    spans.append((inner.operation, start, len(order) - 1))


def _in_loop(op: Any) -> bool:
    while op.name != "func.func":
        if op.name in _LOOPS:
            return True
        op = op.parent.operation
    return False


def _outermost(op: Any) -> Any:
    """The operation of the function's block that contains ``op``: every lane reaches it."""
    while op.parent.operation.name != "func.func":
        op = op.parent.operation
    return op
