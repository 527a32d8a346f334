"""Random programs of loads, stores, atomics, transposes, reductions, loops and branches against NumPy.

A program instance runs in order: whatever is fused, kept or recomputed, memory ends as if each statement had run alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from kernel_text import kernel_from

R, C = 8, 16
SIZE = R * C + 1

HEAD = """def kernel(A, B, n, R: tl.constexpr, C: tl.constexpr):
    r = tl.arange(0, R)[:, None]
    c = tl.arange(0, C)[None, :]
    z = r * C + c"""

# places in memory: every lane's is different, so that stores do not collide
PLACES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "r * C + c": lambda r, c: r * C + c,
    "c * R + r": lambda r, c: c * R + r,
    "R * C - 1 - (r * C + c)": lambda r, c: R * C - 1 - (r * C + c),
    "r * C + c + 1": lambda r, c: r * C + c + 1,
}


class Writer:
    """Writes one random program twice: ``triton`` and ``numpy`` are its lines."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.triton: list[str] = []
        self.numpy: list[str] = []
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def line(self, indent: int, triton: str, numpy: str | None = None) -> None:
        self.triton.append("    " * indent + triton)
        self.numpy.append("    " * indent + (numpy or triton))

    def block(self, indent: int, values: list[str], statements: int, depth: int) -> None:
        values = list(values)
        for _ in range(statements):
            kinds = [self.load, self.store, self.store, self.move, self.atomic, self.arithmetic, self.turn, self.reduce]
            if depth < 2:
                kinds += [self.loop, self.branch]
            self.random.choice(kinds)(indent, values, depth)

    def place(self) -> tuple[str, str]:
        return self.random.choice("AB"), self.random.choice(list(PLACES))

    def load(self, indent: int, values: list[str], depth: int) -> None:
        (array, place), v = self.place(), self.new()
        if self.random.random() < 0.3:
            some = self.random.randint(0, C)
            self.line(
                indent,
                f"{v} = tl.load({array} + {place}, mask=c < {some}, other=-4)",
                f"{v} = np.where(c < {some}, {array}[at['{place}']], -4).astype(np.int32)",
            )
        else:
            self.line(indent, f"{v} = tl.load({array} + {place})", f"{v} = {array}[at['{place}']]")
        values.append(v)

    def store(self, indent: int, values: list[str], depth: int) -> None:
        (array, place), v = self.place(), self.random.choice(values)
        some = self.random.choice([0, R // 2, R, R, R])
        self.line(
            indent,
            f"tl.store({array} + {place}, {v}, mask=r < {some})",
            f"{array}[at['{place}'][:{some}]] = {v}[:{some}]",
        )

    def move(self, indent: int, values: list[str], depth: int) -> None:
        """Load, write something else in between or not, and store elsewhere in the same memory."""
        self.load(indent, values, depth)
        array = self.triton[-1].split("tl.load(")[1][0]
        if self.random.random() < 0.5:
            self.store(indent, values[:-1], depth)
        place = self.random.choice(list(PLACES))
        self.line(indent, f"tl.store({array} + {place}, {values[-1]})", f"{array}[at['{place}']] = {values[-1]}")

    def atomic(self, indent: int, values: list[str], depth: int) -> None:
        (array, place), v, old = self.place(), self.random.choice(values), self.new()
        self.line(indent, f"{old} = tl.atomic_add({array} + {place}, {v})", f"{old} = {array}[at['{place}']]")
        self.line(indent, "pass", f"{array}[at['{place}']] += {v}")
        values.append(old)

    def arithmetic(self, indent: int, values: list[str], depth: int) -> None:
        a, b, v = self.random.choice(values), self.random.choice(values), self.new()
        self.line(indent, f"{v} = {a} {self.random.choice('+-^')} {b}")
        values.append(v)

    def turn(self, indent: int, values: list[str], depth: int) -> None:
        a, v = self.random.choice(values), self.new()
        self.line(indent, f"{v} = tl.reshape(tl.trans({a}), (R, C))", f"{v} = {a}.T.reshape(R, C)")
        values.append(v)

    def reduce(self, indent: int, values: list[str], depth: int) -> None:
        a, v, axis = self.random.choice(values), self.new(), self.random.randint(0, 1)
        name = self.random.choice(["sum", "max", "min"])
        self.line(
            indent,
            f"{v} = z * 0 + tl.{name}({a}, {axis}, keep_dims=True)",
            f"{v} = z * 0 + np.{name}({a}, axis={axis}, keepdims=True).astype(np.int32)",
        )
        values.append(v)

    def loop(self, indent: int, values: list[str], depth: int) -> None:
        v, counter = self.new(), self.new()
        self.line(indent, f"{v} = {self.random.choice(values)} + 0")
        self.line(indent, f"for {counter} in range(n):")
        self.block(indent + 1, [*values, v], self.random.randint(1, 3), depth + 1)
        self.line(indent + 1, f"{v} = {v} + {self.random.choice([*values, v])}")
        values.append(v)

    def branch(self, indent: int, values: list[str], depth: int) -> None:
        (array, _), v, index = self.place(), self.new(), self.random.randrange(SIZE)
        self.line(indent, f"{v} = {self.random.choice(values)} + 0")
        limit = self.random.randint(-50, 50)
        self.line(indent, f"if tl.load({array} + {index}) > {limit}:", f"if {array}[{index}] > {limit}:")
        self.block(indent + 1, values, self.random.randint(1, 3), depth + 1)
        self.line(indent + 1, f"{v} = {self.random.choice(values)} - 1")
        if depth == 0 and self.random.random() < 0.3:
            self.line(indent + 1, "return")
        values.append(v)


@pytest.mark.parametrize("seed", range(24))
def test_random_programs(seed: int) -> None:
    writer = Writer(seed)
    writer.block(1, ["z"], 9, 0)
    source = "\n".join([HEAD, *writer.triton, ""])
    r, c = np.arange(R, dtype=np.int32)[:, None], np.arange(C, dtype=np.int32)[None, :]
    names = {"np": np, "at": {text: place(r, c) for text, place in PLACES.items()}, "R": R, "C": C, "c": c}
    exec("def reference(A, B, n, z):\n" + "\n".join(writer.numpy), names)
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(-99, 99, SIZE).astype(np.int32) for _ in range(2)]
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    with np.errstate(over="ignore"):
        names["reference"](*arrays, 3, r * C + c)
    kernel_from(source)[(1,)](*tensors, 3, R, C)
    for tensor, array in zip(tensors, arrays, strict=True):
        assert torch.equal(tensor, torch.from_numpy(array)), source
