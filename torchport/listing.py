"""A kernel's IR as plain data, for what reads it without a compiler."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

__all__ = ["Block", "Listing", "Lists", "Operation", "element_of", "shape_of"]

_SHAPED = re.compile(r"(?:tensor|vector)<((?:\d+x)*)(.+)>$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """arguments: numbers of its values. argument_types: as MLIR prints them."""

    arguments: tuple[int, ...]
    argument_types: tuple[str, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. operands, results: numbers of values. types: of the results, as MLIR prints them.

    operand_types: of the operands. attributes: numbers, booleans, text, or lists of numbers (a constant's elements).
    """

    name: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    types: tuple[str, ...]
    operand_types: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple[tuple[Block, ...], ...] = ()

    def all(self) -> Iterator[Operation]:
        """It, and all operations inside it."""
        yield self
        for region in self.regions:
            for block in region:
                for operation in block.operations:
                    yield from operation.all()


@dataclass(frozen=True)
class Listing:
    """One kernel.

    name: of its function.
    body: its first block; the arguments are the kernel's.
    values: how many numbers there are.
    fused: whether ``llvm.intr.fmuladd`` rounds once on the target.
    lanes: of a lane's code, how many of them a program instance has, which go through it together; 0: of a whole one's.
    """

    name: str
    body: Block
    values: int
    fused: bool = True
    lanes: int = 0

    def all(self) -> Iterator[Operation]:
        """All operations."""
        for operation in self.body.operations:
            yield from operation.all()


@runtime_checkable
class Lists(Protocol):
    """A ``torchport.plugin.Compiler`` that can show what it makes of a kernel."""

    listing: Callable[..., Listing]
    """``listing(ttir, stage, arithmetic="")``.

    ``ttir``: as Triton prints it. ``stage``: ``tensors`` (as it was imported) or ``vectors`` (scalars, vectors, loops
    and memory, or the code of one lane; the order of every operation is that of the machine code, functions of ``math``
    are still called so).
    ``arithmetic``: as of the CPU's option. Raises UnsupportedOperation and CompilationError.
    """


@lru_cache(maxsize=4096)
def shape_of(type_: str) -> tuple[int, ...] | None:
    """Sizes of a tensor or vector; None for a scalar."""
    found = _SHAPED.match(type_)
    return tuple(int(size) for size in found[1].split("x")[:-1]) if found else None


@lru_cache(maxsize=4096)
def element_of(type_: str) -> str:
    """The type of a tensor's or vector's elements; of a scalar, its own."""
    found = _SHAPED.match(type_)
    return found[2].partition(", #")[0] if found else type_
