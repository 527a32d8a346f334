"""One benchmark: a Triton kernel bound to its arguments, torch's way to the same result, and the right result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

MEMORY, TRANSCENDENTAL, DOT, ATTENTION, OTHER = "memory", "transcendental", "dot", "attention", "other"


@dataclass(frozen=True)
class Sizes:
    """What a job measures. `working_sets`: bytes that a kernel reads and writes, in ascending order; `quick`: only the
    smallest of the matrix products and attentions."""

    working_sets: tuple[int, ...]
    quick: bool


class Launch:
    """A compiled kernel bound to a grid and arguments; called, it runs.

    Constructing it compiles the kernel and runs it once. A call goes to the kernel's launcher as Triton's own `run`
    does, without what Triton's dispatch does in Python before (10 us or more; compiled graphs do not pay it either).
    """

    def __init__(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        bound = inspect.signature(kernel.fn).bind(*arguments, **constants)
        bound.apply_defaults()
        self.kernel = kernel
        self.constants = constants
        self.compiled = kernel[grid](*arguments, **constants)
        x, y, z = (*grid, 1, 1)[:3]
        values = tuple(bound.arguments.values())
        run, function, packed = self.compiled.run, self.compiled.function, self.compiled.packed_metadata
        self._call = lambda: run(x, y, z, 0, function, packed, None, None, None, *values)

    def __call__(self) -> None:
        self._call()


@dataclass(frozen=True)
class Case:
    """`steps` write `outputs`; `eager(*inputs)` computes the same with torch; `expected()` is the right result, in
    float64 or in integers.

    `moved`: bytes that have to be read and written, each once. `operations`: floating-point (or integer) operations.
    `compiled`: whether Inductor generates code for `eager` (else it would call the same library as eager).
    `roundings`: how often a value is rounded to the output's type on its way; more than once where an intermediate
    result is stored in that type.
    """

    kernel: str
    label: str
    kind: str
    steps: Sequence[Callable[[], Any]]
    outputs: Sequence[torch.Tensor]
    eager: Callable[..., Any]
    inputs: Sequence[Any]
    expected: Callable[[], Sequence[torch.Tensor]]
    moved: int
    operations: int = 0
    compiled: bool = True
    roundings: int = 1

    def run(self) -> None:
        """Run the kernels."""
        for step in self.steps:
            step()

    def check(self) -> None:
        """Run the kernels and compare. Raises ValueError that names the output with the largest error.

        A result may differ by the roundings of its type and by 32 float32 roundings of the largest value: sums of up to
        8192 terms stay well below that, a wrong element does not.
        """
        for output in self.outputs:
            output.fill_(77)  # what no kernel wrote must not look right
        self.run()
        for index, (output, right) in enumerate(zip(self.outputs, self.expected(), strict=True)):
            if not right.is_floating_point():
                wrong = int((output != right).sum())
                if wrong:
                    raise ValueError(f"{self.kernel} {self.label}: {wrong} elements of output {index} are wrong")
                continue
            largest = right.abs().max().item()
            own = torch.finfo(output.dtype).eps / 2 if output.dtype != torch.float32 else 0.0
            allowed = (own * self.roundings + 32 * torch.finfo(torch.float32).eps) * largest
            error = (output.double() - right).abs().max().item()
            if not error <= allowed:
                raise ValueError(
                    f"{self.kernel} {self.label}: output {index} is off by {error:.2e}, {allowed:.2e} is allowed"
                )


def rows_of(working_set: int, bytes_a_row: int) -> int:
    """Rows that fill a working set: at least 1."""
    return max(1, working_set // bytes_a_row)


def normal(count: int, *shape: int) -> list[torch.Tensor]:
    """`count` float32 tensors with normally distributed elements, each aligned as torch aligns its memory."""
    return [torch.randn(shape) for _ in range(count)]


def size_of(*tensors: torch.Tensor) -> int:
    """Bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


def bytes_text(count: int) -> str:
    """`count` bytes as text: 24 KiB, 256 MiB."""
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"
