"""The text that is being written: operations in blocks, names, and what nobody needs left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Block", "Op", "Pointer", "Value", "Writer", "memref", "tensor"]

_NAME = re.compile(r"%\w+")


@dataclass(frozen=True)
class Value:
    """A value of the exported text.

    name: its SSA name.
    element: the type of a scalar or of each element.
    shape: of a tensor; None for a scalar.
    scalar: the scalar that every element of a tensor equals, if it is known.
    source: a smaller tensor with the same elements: element ``[d0, d1 ...]`` is the source's at ``dims``, the number of
        an index for each of its dimensions, -1 for one of a single element.
    """

    name: str
    element: str
    shape: tuple[int, ...] | None = None
    scalar: Value | None = None
    source: Value | None = None
    dims: tuple[int, ...] = ()

    @property
    def type(self) -> str:
        """Its type as MLIR spells it."""
        return self.element if self.shape is None else tensor(self.shape, self.element)


@dataclass(frozen=True)
class Pointer:
    """A pointer, or a tensor of pointers into one buffer: offsets from its start in elements, as i64.

    buffers: the numbers of the arguments that the buffer may be; several where the kernel chooses when it runs.
    offset: None for the start itself.
    shape: of a tensor; None for one pointer.
    chosen: the memref, where there are several.
    """

    buffers: frozenset[int]
    offset: Value | None = None
    shape: tuple[int, ...] | None = None
    chosen: Value | None = None


def tensor(shape: Sequence[int], element: str) -> str:
    """A tensor type."""
    return f"tensor<{'x'.join([*map(str, shape), element])}>"


def memref(shape: Sequence[int | None], element: str, layout: str = "") -> str:
    """A memref type; None is a size that is known only when the kernel runs."""
    sizes = "x".join([*("?" if n is None else str(n) for n in shape), element])
    return f"memref<{sizes}{', ' + layout if layout else ''}>"


@dataclass
class Op:
    """An operation: text and blocks in turn. ``effect``: whether it stays though nobody uses its result."""

    result: str
    parts: list[Any]
    effect: bool = False
    live: bool = True

    def uses(self) -> set[str]:
        """Names in its own text, besides its result's."""
        text = "".join(part for part in self.parts if isinstance(part, str))
        return {name for name in _NAME.findall(text) if name != self.result}


@dataclass
class Block:
    """Operations in order. ``casts``: what was made in it of other values and may be used again."""

    ops: list[Op] = field(default_factory=list)
    casts: dict[Any, Value] = field(default_factory=dict)

    def prune(self, live: set[str]) -> None:
        """Mark what is needed; ``live``: names that are used so far, by what follows."""
        for op in reversed(self.ops):
            op.live = op.effect or op.result in live or any(_acts(p) for p in op.parts if isinstance(p, Block))
            if op.live:
                live |= op.uses()
                for part in reversed(op.parts):
                    if isinstance(part, Block):
                        part.prune(live)

    def lines(self, indent: str) -> Iterator[str]:
        """The text of what is needed."""
        for op in self.ops:
            if not op.live:
                continue
            line = indent
            for part in op.parts:
                if isinstance(part, Block):
                    yield line
                    yield from part.lines(indent + "  ")
                    line = indent
                else:
                    *whole, last = part.split("\n")
                    for piece in whole:
                        yield line + piece
                        line = indent
                    line += last
            yield line


def _acts(block: Block) -> bool:
    """Whether a block holds anything that has an effect besides ending it."""
    for op in block.ops:
        if op.effect and not op.parts[0].startswith(("scf.yield", "linalg.yield", "scf.condition")):
            return True
        if any(_acts(part) for part in op.parts if isinstance(part, Block)):
            return True
    return False


class Writer:
    """Writes operations into the current block."""

    def __init__(self) -> None:
        self.block = Block()
        self._open = [self.block]
        self._count = 0
        self.declared: dict[str, str] = {}

    def declare(self, function: str, type_: str) -> None:
        """Note that a function of C's library is called."""
        self.declared[function] = type_

    def name(self, prefix: str = "v") -> str:
        """A new name."""
        self._count += 1
        return f"%{prefix}{self._count}"

    @contextmanager
    def inside(self, block: Block) -> Iterator[Block]:
        """Write into ``block``."""
        outer, self.block = self.block, block
        self._open.append(block)
        try:
            yield block
        finally:
            self.block = outer
            self._open.pop()

    def op(self, *parts: Any, effect: bool = False) -> Op:
        """Add an operation without a result."""
        added = Op("", list(parts), effect)
        self.block.ops.append(added)
        return added

    def value(self, element: str, *parts: Any, shape: tuple[int, ...] | None = None, effect: bool = False) -> Value:
        """Add an operation with a result: ``parts`` are what follows ``%name =``."""
        name = self.name()
        self.block.ops.append(Op(name, [f"{name} = {parts[0]}", *parts[1:]], effect))
        return Value(name, element, shape)

    def values(
        self, types: Sequence[tuple[str, tuple[int, ...] | None]], *parts: Any, effect: bool = False
    ) -> list[Value]:
        """Add an operation with any number of results."""
        if not types:
            self.op(*parts, effect=effect)
            return []
        if len(types) == 1:
            return [self.value(types[0][0], *parts, shape=types[0][1], effect=effect)]
        name = self.name()
        self.block.ops.append(Op(name, [f"{name}:{len(types)} = {parts[0]}", *parts[1:]], effect))
        return [Value(f"{name}#{i}", element, shape) for i, (element, shape) in enumerate(types)]

    def known(self, key: Any) -> Value | None:
        """What an open block made for ``key``."""
        return next((block.casts[key] for block in reversed(self._open) if key in block.casts), None)

    def keep(self, key: Any, value: Value) -> Value:
        """Note that this block made ``value`` for ``key``."""
        self.block.casts[key] = value
        return value

    def index(self, number: int) -> Value:
        """A constant index."""
        key = ("index", number)
        return self.known(key) or self.keep(key, self.value("index", f"arith.constant {number} : index"))

    def constant(self, text: str, element: str) -> Value:
        """A scalar constant of another type; ``text`` as MLIR spells it."""
        key = (element, text)
        return self.known(key) or self.keep(key, self.value(element, f"arith.constant {text} : {element}"))

    def zero(self, element: str) -> Value:
        """0 of a type."""
        return self.constant("false" if element == "i1" else "0" if element.startswith("i") else "0.0", element)
