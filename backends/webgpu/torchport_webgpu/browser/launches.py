"""A program as launches of WGSL kernels over buffers: what a page does, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.errors import CompilationError
from torchport.inductor.capture import KernelSource
from torchport.inductor.kernels import compile_kernel
from torchport.plugin import Binary
from torchport.program import Grid, Place
from torchport.program.places import empty
from torchport.runtime import events
from torchport.runtime.devices.launcher import converter, parameter_types, run_time_arguments
from torchport.runtime.devices.products import PRODUCTS, steps
from torchport_webgpu.browser.limits import BROWSER, GROUPS
from torchport_webgpu.kernels import packing

__all__ = ["Kernel", "Launch", "Recorder"]

_FIXED = 3  # a 0, the first group, the number of groups
_OPERATORS = frozenset(str(one).replace("aten::", "aten.") for one in PRODUCTS)


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel and the Triton types of its arguments."""

    name: str
    binary: Binary
    types: tuple[str, ...]


@dataclass(frozen=True)
class Launch:
    """One dispatch.

    buffers: the memories that the kernel's buffer arguments are in; None for one that is missing.
    words: its uniform block but for the offsets of memories in buffers, which ``offsets`` has the places of.
    grid: work-groups in x, y and z.
    """

    kernel: Kernel
    buffers: tuple[str | None, ...]
    words: tuple[int, ...]
    offsets: tuple[int, ...]
    grid: tuple[int, int, int]


class Recorder:
    """Satisfies ``torchport.program.places.Actions``: collects launches.

    launches: in order.
    sizes: bytes of each memory that they need besides inputs and weights.
    """

    def __init__(
        self,
        kernels: Mapping[str, KernelSource],
        fallbacks: Sequence[events.Fallback],
        weights: Mapping[Place, torch.Tensor],
    ) -> None:
        """``fallbacks``: why operators are no kernels. ``weights``: tensors that do not change, by their place."""
        self._weights = weights
        self.launches: list[Launch] = []
        self.sizes: dict[str, int] = {}
        self._sources = kernels
        self._kernels: dict[str, Kernel] = {}
        self._fallbacks = fallbacks

    def allocate(self, nbytes: int) -> str:
        name = f"memory {len(self.sizes)}"
        self.sizes[name] = nbytes
        return name

    def launch(self, kernel: str, arguments: Sequence[Any]) -> None:
        source = self._sources[kernel]
        if kernel not in self._kernels:
            binary = Binary.unpack(compile_kernel(source.function, source.source, str(BROWSER)))
            self._kernels[kernel] = Kernel(source.function, binary, tuple(source.types.values()))
        grid = source.grid.of(arguments) if isinstance(source.grid, Grid) else tuple(source.grid)
        self._add(self._kernels[kernel], arguments, grid)

    def item(self, place: Place) -> Any:
        if place not in self._weights:
            raise CompilationError(
                "the program needs the value of a tensor as a number (.item()), which only a run has"
            )
        return self._weights[place].item()

    def call(self, operator: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        if operator not in _OPERATORS:
            reasons = [one.reason for one in self._fallbacks if operator in one.nodes]
            reasons.append("torchport has no kernel for it, and there is no PyTorch in a browser")
            raise self._refused(operator, reasons[0])
        added = "add" in operator
        bias, a, b = arguments[:3] if added else (None, *arguments[:2])
        alpha, beta = (keywords.get("alpha", 1), keywords.get("beta", 1)) if added else (1, 0)
        shape = (*a.sizes[:-1], b.sizes[-1])
        out = keywords.get("out")
        if out is None:
            strides = (shape[-2] * shape[-1], shape[-1], 1)[-len(shape) :]
            out = empty(self, shape, strides, a.dtype)
        bias = bias.expanded(shape) if bias is not None and beta != 0 else None
        found = steps(BROWSER, a, b, bias, out, alpha, beta)
        if isinstance(found, str):
            raise self._refused(operator, found)
        made, (packed, wide) = found
        operands = {"a": a, "b": b, "bias": bias, "out": out}
        if packed:
            operands["packed"] = empty(self, (packed,), (1,), wide)
        for step in made:
            given = [operands[one] if isinstance(one, str) else one for one in step.arguments]
            self._add(Kernel(step.name, step.binary, step.types), given, step.grid)
        return out

    def _refused(self, operator: str, reason: str) -> CompilationError:
        return CompilationError(f"{operator} cannot run in a browser: {reason}")

    def _add(self, kernel: Kernel, arguments: Sequence[Any], grid: tuple[int, int, int]) -> None:
        if 0 in grid:
            return
        if max(grid[1:]) > GROUPS:
            raise CompilationError(
                f"kernel {kernel.name}: its grid {grid} is beyond a browser's {GROUPS:,} along y and z"
            )
        wanted = run_time_arguments(kernel.types, kernel.binary.metadata["access"])
        parameters = parameter_types(wanted, asserts=False)
        pack, places = packing(parameters)
        buffers: list[str | None] = []
        given: list[Any] = []
        for argument in wanted:
            value = arguments[argument.path[0]]
            convert = converter(argument.type)
            if convert is not None:
                given.append(convert(value))
                continue
            buffers.append(None if value is None else value.buffer)
            given += (None, 0 if value is None else value.offset)
        values = [take(given[place]) for place, take in places]
        words = [
            2 if parameters[place] in ("fp64", "i64", "u64") and not _is_offset(parameters, place) else 1
            for place, _ in places
        ]
        starts = [_FIXED + sum(words[:i]) for i in range(len(words))]
        offsets = tuple(
            start for start, (place, _) in zip(starts, places, strict=True) if _is_offset(parameters, place)
        )
        for base in range(0, grid[0], GROUPS):
            block = pack.pack(0, base, grid[0], *values)
            numbers = tuple(int.from_bytes(block[i : i + 4], "little") for i in range(0, len(block), 4))
            part = min(GROUPS, grid[0] - base), grid[1], grid[2]
            self.launches.append(Launch(kernel, tuple(buffers), numbers, offsets, part))


def _is_offset(parameters: Sequence[str], place: int) -> bool:
    return parameters[place] == "u64" and place > 0 and parameters[place - 1] == "buffer"
