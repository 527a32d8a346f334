"""Where the elements of a block are in memory: as NumPy indices, and as a Triton program writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fuzzing.formats import Array


@dataclass(frozen=True)
class Number:
    """An integer of the kernel: an argument if it has a name, else written into the text."""

    value: int
    name: str | None = None

    def __str__(self) -> str:
        return self.name or str(self.value)


@dataclass(frozen=True)
class Layout:
    """Where element [i, j, ...] of program p is: at offset + p * step + i * strides[0] + j * strides[1] ...

    limits: per dimension, how many elements are inside of the mask; None: all. size: elements of the storage.
    """

    shape: tuple[int, ...]
    strides: tuple[Number, ...]
    step: Number
    offset: int
    limits: tuple[Number | None, ...]
    size: int
    block_pointer: bool = False

    def positions(self, pid: int) -> Array:
        index = np.asarray(self.offset + pid * self.step.value)
        for axis, (length, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            index = index + self._along(axis, np.arange(length)) * stride.value
        return np.broadcast_to(index, self.shape)

    def inside(self) -> Array:
        mask = np.ones(self.shape, bool)
        for axis, (length, limit) in enumerate(zip(self.shape, self.limits, strict=True)):
            if limit is not None:
                mask = mask & self._along(axis, np.arange(length) < limit.value)
        return mask

    def _along(self, axis: int, line: Array) -> Array:
        return line.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])

    def _range(self, axis: int) -> str:
        line = f"tl.arange(0, {self.shape[axis]})"
        if len(self.shape) == 1:
            return line
        return line + "[" + ", ".join(":" if a == axis else "None" for a in range(len(self.shape))) + "]"

    def address(self, base: str) -> str:
        terms = [base] + [str(self.offset)] * bool(self.offset) + [f"tl.program_id(0) * {self.step}"]
        return " + ".join(terms + [f"{self._range(a)} * {s}" for a, s in enumerate(self.strides)])

    def mask(self) -> str:
        return " & ".join(f"({self._range(a)} < {n})" for a, n in enumerate(self.limits) if n is not None)

    def pointer(self, base: str) -> str:
        """A block pointer, whose boundary check does what the mask does."""
        sizes = [str(n if n is not None else s) for n, s in zip(self.limits, self.shape, strict=True)]
        listed = [", ".join(x) for x in (sizes, map(str, self.strides), ["0"] * len(sizes), map(str, self.shape))]
        order = ", ".join(str(a) for a in reversed(range(len(self.shape))))
        start = f"{base} + {self.offset} + tl.program_id(0) * {self.step}"
        return f"tl.make_block_ptr({start}, ({listed[0]},), ({listed[1]},), ({listed[2]},), ({listed[3]},), ({order},))"

    def checked(self) -> str:
        return "(" + "".join(f"{a}, " for a, n in enumerate(self.limits) if n is not None) + ")"

    def numbers(self) -> Iterator[Number]:
        yield from (*self.strides, self.step, *(n for n in self.limits if n is not None))
