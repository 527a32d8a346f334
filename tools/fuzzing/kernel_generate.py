"""Random kernels, each from one integer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fuzzing.formats import DTYPES, INTEGERS, is_float, sample
from fuzzing.kernel_ops import ELEMENTWISE
from fuzzing.kernel_program import Environment, Input, Instruction, Layout, Number, evaluate
from fuzzing.values import Unknown

MOST = 4096
"""Elements of a block, at most: more would not reach other code, and take longer."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
KINDS = ("plain", "plain", "small", "edge", "bits", "positive")
Type = tuple[str, tuple[int, ...]]


class Generator:
    """Grows a program instruction by instruction; what the reference cannot tell is not taken."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.data = np.random.default_rng(seed)
        self.seed = seed
        self.grid = self.random.choice((1, 1, 2, 3))
        self.inputs: list[Input] = []
        self.environments: list[Environment] = [{} for _ in range(self.grid)]
        self.types: dict[int, Type] = {}
        self.next = 0
        self.count = 0
        self.main: list[Instruction] = []
        self.dtypes = self.random.sample(DTYPES, self.random.choice((2, 3, 4)))
        self.shape = self._new_shape()

    # ---- types and operands

    def _new_shape(self) -> tuple[int, ...]:
        rank = self.random.choice((1, 1, 1, 2, 2, 2, 3, 4))
        shape: list[int] = []
        for _ in range(rank):
            shape.append(self.random.choice([s for s in SIZES if s * math.prod(shape) <= MOST // 4]))
        return tuple(shape)

    def id(self) -> int:
        self.next += 1
        return self.next

    def pick(self, accept: Callable[[str, tuple[int, ...]], bool], latest: float = 0.5) -> int | None:
        """A value whose type is accepted; more often than not one of the last six."""
        found = [i for i, (dtype, shape) in self.types.items() if accept(dtype, shape)]
        if not found:
            return None
        return self.random.choice(found[-6:] if self.random.random() < latest else found)

    def number(self, value: int) -> Number:
        """The integer as text or as an argument."""
        if self.random.random() < 0.5:
            return Number(value)
        self.count += 1
        return Number(value, f"n{self.count}")

    def add(self, op: str, operands: Sequence[int] = (), results: int = 1, **attributes: Any) -> tuple[int, ...] | None:
        """Append an instruction unless the reference does not know what it gives."""
        ids = tuple(self.id() for _ in range(results))
        return self.append(Instruction(op, tuple(operands), ids, attributes))

    def append(self, instruction: Instruction) -> tuple[int, ...] | None:
        environments = [dict(e) for e in self.environments]
        inputs = {i.name: i for i in self.inputs}
        try:
            for pid, environment in enumerate(environments):
                evaluate(instruction, environment, inputs, pid)
        except Unknown:
            return None
        values = [environments[0][i] for i in instruction.results]
        if any(math.prod(v.shape) > MOST for v in values):
            return None
        self.environments = environments
        self.types |= {i: (v.dtype, v.shape) for i, v in zip(instruction.results, values, strict=True)}
        self.main.append(instruction)
        return instruction.results

    # ---- layouts

    def layout(self, dtype: str, shape: tuple[int, ...], reading: bool) -> Layout:
        """Contiguous, or with dimensions in another order, gaps, or (for loads) a stride of zero or below it."""
        order = list(range(len(shape)))
        if self.random.random() < 0.5:
            self.random.shuffle(order)
        strides = [0] * len(shape)
        extent = 1
        for axis in reversed(order):
            strides[axis] = extent
            extent *= shape[axis]
            if self.random.random() < 0.2:
                strides[axis] *= 2
                extent *= 2
            if self.random.random() < 0.2:
                extent += self.random.randrange(1, 9)
        offset = self.random.choice((0, 0, 0, 1, 3, 8))
        if reading and shape and self.random.random() < 0.15:
            strides[self.random.choice(order)] = 0
        elif shape and self.random.random() < 0.15:
            axis = self.random.choice(order)
            offset += strides[axis] * (shape[axis] - 1)
            strides[axis] = -strides[axis]
        step = 0 if reading and self.random.random() < 0.2 else extent
        limits = tuple(
            self.number(self.random.choice((0, 1, s - 1, s // 2, s, s + 3))) if self.random.random() < 0.4 else None
            for s in shape
        )
        pointer = bool(shape) and dtype != "int1" and self.random.random() < 0.15
        size = extent * self.grid + offset + 16
        return Layout(shape, tuple(map(self.number, strides)), self.number(step), offset, limits, size, pointer)

    def load(self, dtype: str, shape: tuple[int, ...], kind: str | None = None) -> int:
        """A new input and the instruction that loads it."""
        layout = self.layout(dtype, shape, True)
        storage = sample(self.data, dtype, (layout.size,), kind or self.random.choice(KINDS))
        name = f"x{len(self.inputs)}"
        self.inputs.append(Input(name, dtype, storage))
        other: Any = 0 if layout.block_pointer else self.random.choice((0, 0, 1, 2))
        other = bool(other) if dtype == "int1" else float(other) if is_float(dtype) else other
        ids = self.add("load", input=name, layout=layout, other=other)
        assert ids is not None
        return ids[0]


def splat(generator: Generator, dtype: str, shape: tuple[int, ...]) -> int | None:
    """A block of one constant."""
    values = [0, 1, 2, 3, 5]
    if is_float(dtype):
        value: Any = float(generator.random.choice((*values, 0.5, -1.0, 1e-3, math.inf, math.nan, -math.inf)))
        if dtype.startswith("fp8"):
            value = float(generator.random.choice(values))
    elif dtype == "int1":
        value = generator.random.random() < 0.5
    else:
        info = np.iinfo(INTEGERS[dtype])
        value = int(generator.random.choice((*values, info.max, info.min, max(info.min, -1))))
    ids = generator.add("full", shape=shape, dtype=dtype, value=value)
    return ids[0] if ids else None


def elementwise(generator: Generator, shape: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
    """A random elementwise operation on values that are there, or on a constant."""
    op = generator.random.choice(list(ELEMENTWISE))
    rule = ELEMENTWISE[op]

    def fits(dtype: str, found: tuple[int, ...]) -> bool:
        return dtype in rule.dtypes and (shape is None or found == shape)

    first = generator.pick(fits)
    if first is None:
        return None
    dtype, found = generator.types[first]
    operands = [first]
    while len(operands) < rule.arity:
        other = None
        if generator.random.random() < 0.8:
            other = generator.pick(lambda d, s: d == dtype and broadcasts(s, found, shape is not None))
        operands.append(other or splat(generator, dtype, found) or first)
    generator.random.shuffle(operands)
    if op == "where":
        condition = generator.pick(lambda d, s: d == "int1" and s == found)
        operands[0] = condition or operands[0]
        if condition is None:
            return None
    shapes = [generator.types[operand][1] for operand in operands]
    if not all(broadcasts(a, b, False) for a in shapes for b in shapes):  # two blocks that each fit a scalar
        return None
    return generator.add(op, operands, dtype=dtype)


def broadcasts(a: tuple[int, ...], b: tuple[int, ...], exactly: bool) -> bool:
    """Whether Triton broadcasts the two: equal ranks with ones, or a scalar."""
    if exactly or not a or not b:
        return a == b or (not exactly and (not a or not b))
    return len(a) == len(b) and all(x == y or 1 in (x, y) for x, y in zip(a, b, strict=True))
