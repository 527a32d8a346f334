"""Follows the code of a lane, for all lanes of a program instance at once: they go through it together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from torchport.listing import Block, Listing, element_of, shape_of
from torchport.listing import Operation as Op
from torchport.numerics.trees.elements import is_float, known
from torchport.numerics.trees.machine import Machine, bytes_of
from torchport.numerics.trees.memory import Memory, NotFollowed
from torchport.numerics.trees.nodes import Nodes, Symbols

__all__ = ["Lanes"]

Mask = npt.NDArray[np.bool_]


class Lanes(Machine):
    """Runs program instances whose lanes are work-items, or elements of vectors.

    Every value is that of all lanes: a vector. Lanes do each operation together, so barriers need nothing; where a
    branch or a loop divides them, each part is followed with the lanes that take it, as hardware does.
    """

    def __init__(self, listing: Listing, memory: Memory, nodes: Nodes, steps: int) -> None:
        self.lanes = listing.lanes
        super().__init__(replace(listing, body=_spread(listing.body, listing.lanes)), memory, nodes, steps)
        self._on: Mask = np.ones(self.lanes, bool)

    def run(self, arguments: Sequence[Any], program: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
        """One program instance, as of ``Machine``."""
        values = [
            Symbols(np.repeat(one.ids, self.lanes)) if isinstance(one, Symbols) else self._all(one) for one in arguments
        ]
        super().run(values, program, grid)

    def _all(self, number: int) -> Any:
        """The same number in all lanes."""
        return np.full(self.lanes, number, np.int64)

    _index = _all

    def _each(self, flags: Any) -> Mask:
        """A condition of each lane."""
        return np.broadcast_to(np.asarray(flags).astype(bool), self.lanes)

    def _one(self, value: Any, what: str) -> int:
        """The number that all lanes have that are on. Raises NotFollowed."""
        found = np.unique(np.broadcast_to(np.asarray(known(value, what)), self.lanes)[self._on])
        if len(found) != 1:
            raise NotFollowed(f"{what} is another one in each lane")
        return int(found[0])

    @contextmanager
    def _only(self, on: Mask) -> Iterator[None]:
        before, self._on = self._on, on
        try:
            yield
        finally:
            self._on = before

    def _mask(self, operands: list[Any], place: int) -> Mask | None:
        """The lanes that access memory; None for all."""
        on = self._on
        if len(operands) > place:
            on = on & self._each(known(operands[place], "a mask"))
        return None if on.all() else on

    # memory

    def _load(self, op: Op, operands: list[Any]) -> Any:
        other = operands[2] if len(operands) > 2 else None
        return self._loaded(op, known(operands[0], "an address"), self._mask(operands, 1), other)

    def _loaded(self, op: Op, addresses: Any, mask: Mask | None, other: Any = None) -> Any:
        width, element = bytes_of(op.types[0]), element_of(op.types[0])
        found = self._memory.load(np.asarray(addresses), width, element, mask, other)
        return Symbols(self.ids(found, op.types[0], self.lanes)) if is_float(op.types[0]) else found

    def _store(self, op: Op, operands: list[Any]) -> None:
        self._stored(op.operand_types[1], operands[1], known(operands[0], "an address"), self._mask(operands, 2))

    def _stored(self, type_: str, value: Any, addresses: Any, mask: Mask | None) -> None:
        if is_float(type_):
            value = Symbols(self.ids(value, type_, self.lanes))
        self._memory.store(value, np.asarray(addresses), bytes_of(type_), mask)

    def _scratch(self, op: Op, operands: list[Any]) -> Any:
        """An array that all lanes share; those whose memory is used again later are apart here."""
        return self._all(self._memory.buffer(int(op.attributes["count"]), bytes_of(op.attributes["element"])))

    def _scratch_load(self, op: Op, operands: list[Any]) -> Any:
        return self._loaded(op, self._element(operands, op.types[0]), None if self._on.all() else self._on)

    def _scratch_store(self, op: Op, operands: list[Any]) -> None:
        type_ = op.operand_types[0]
        self._stored(type_, operands[0], self._element(operands[1:], type_), self._mask(operands, 3))

    def _scratch_count(self, op: Op, operands: list[Any]) -> None:
        mask = self._mask(operands, 2)
        for lane in range(self.lanes) if mask is None else np.flatnonzero(mask):
            address = np.asarray(self._element(operands, "i32"))[lane : lane + 1]
            self._memory.store(self._memory.load(address, 4, "i32") + 1, address, 4)

    def _element(self, operands: list[Any], type_: str) -> Any:
        return known(operands[0], "an address") + known(operands[1], "an index") * bytes_of(type_)

    def _atomic(self, op: Op, operands: list[Any]) -> Any:
        raise NotFollowed("atomic operations of work-groups have no order")

    # lanes

    def _lane(self, op: Op, operands: list[Any]) -> Any:
        return np.arange(self.lanes, dtype=np.int64)

    def _shuffle_lanes(self, op: Op, operands: list[Any]) -> Any:
        taken = (np.arange(self.lanes) & int(op.attributes["keep"])) | int(op.attributes["put"])
        value = operands[0]
        return Symbols(value.ids[taken]) if isinstance(value, Symbols) else np.asarray(value)[taken]

    def _program_id(self, op: Op, operands: list[Any]) -> Any:
        return self._all(super()._program_id(op, operands))

    def _programs(self, op: Op, operands: list[Any]) -> Any:
        return self._all(super()._programs(op, operands))

    # control flow

    def _for(self, op: Op, operands: list[Any]) -> Any:
        bounds = [self._one(one, "a loop's bound") for one in operands[:3]]
        return super()._for(op, [*bounds, *operands[3:]])

    def _if(self, op: Op, operands: list[Any]) -> Any:
        taken = self._on & self._each(known(operands[0], "a branch"))
        found: list[Any] = []
        for on, region in zip((taken, self._on & ~taken), op.regions, strict=False):
            if on.any() and region:
                with self._only(on):
                    values = self._block(region[0])
                found = self._merged(op, on, values, found) if found else values
        return found[0] if len(op.results) == 1 else found

    def _while(self, op: Op, operands: list[Any]) -> Any:
        [before], [after] = op.regions
        carried: Sequence[Any] = operands
        passed: list[Any] = []
        with self._only(self._on):
            while True:
                self._bind(before, carried)
                condition, *values = self._block(before)
                passed = self._merged(op, self._on, values, passed) if passed else values
                on = self._on & self._each(known(condition, "a loop's condition"))
                if not on.any():
                    return passed[0] if len(op.results) == 1 else passed
                self._on = on
                self._bind(after, passed)
                carried = self._block(after)

    def _bind(self, block: Block, values: Sequence[Any]) -> None:
        for number, value in zip(block.arguments, values, strict=True):
            self._values[number] = value

    def _merged(self, op: Op, on: Mask, values: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        """``values`` in the lanes that are ``on``, ``others`` in the rest."""
        found: list[Any] = []
        for value, other, type_ in zip(values, others, op.types, strict=True):
            if is_float(type_) or isinstance(value, Symbols) or isinstance(other, Symbols):
                ids = (self.ids(one, type_, self.lanes) for one in (value, other))
                found.append(Symbols(np.where(on, *ids)))
            else:
                found.append(np.where(on, value, other))
        return found


Lanes.handlers = MappingProxyType(
    {
        **Machine.handlers,
        "tt.load": Lanes._load,
        "tt.store": Lanes._store,
        "tp.scratch": Lanes._scratch,
        "tp.scratch_load": Lanes._scratch_load,
        "tp.scratch_store": Lanes._scratch_store,
        "tp.scratch_count": Lanes._scratch_count,
        "tp.lane": Lanes._lane,
        "tp.shuffle": Lanes._shuffle_lanes,
        "tp.barrier": Lanes._nothing,
        "tp.assert": Lanes._nothing,
        "tp.print": Lanes._nothing,
        "llvm.intr.assume": Lanes._nothing,
        "tt.atomic_rmw": Lanes._atomic,
        "tt.atomic_cas": Lanes._atomic,
        "tt.get_program_id": Lanes._program_id,
        "tt.get_num_programs": Lanes._programs,
        "scf.for": Lanes._for,
        "scf.if": Lanes._if,
        "scf.while": Lanes._while,
    }
)


def _spread(block: Block, lanes: int) -> Block:
    """The same code with a vector of all lanes in place of each scalar."""

    def wide(types: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one if shape_of(one) else f"vector<{lanes}x{one}>" for one in types)

    operations = tuple(
        replace(
            op,
            types=wide(op.types),
            operand_types=wide(op.operand_types),
            regions=tuple(tuple(_spread(inner, lanes) for inner in region) for region in op.regions),
        )
        for op in block.operations
    )
    return replace(block, argument_types=wide(block.argument_types), operations=operations)
