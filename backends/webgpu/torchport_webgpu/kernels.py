"""Builds kernels for a WebGPU device and launches them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from torchport_simt.wgsl.program import in_fours, program, uneven

from torchport.errors import CompilationError
from torchport.plugin import Binary
from torchport.runtime.devices import Function
from torchport_webgpu.memory import WINDOW, Buffer, WebGPUMemory

__all__ = ["build", "packing"]


def build(memory: WebGPUMemory, binary: Binary, parameters: Sequence[str]) -> Function:
    """Build a kernel for buffers that are all different; others are built when they are first launched with.

    Raises CompilationError with the adapter's message, or if it runs no such kernel.
    """
    kernel = _Kernel(memory, binary, parameters)
    kernel.variant(tuple(range(kernel.buffers)))
    return kernel


class _Kernel:
    def __init__(self, memory: WebGPUMemory, binary: Binary, parameters: Sequence[str]) -> None:
        self.memory = memory
        self.binary = binary
        lanes = binary.metadata.get("lanes")
        if type(lanes) is not int or lanes < 1:  # a kernel may come from a file
            reason = f"kernel {binary.symbol[:80]} was not compiled for WebGPU: it has {lanes!r:.20} lanes"
            raise CompilationError(reason, kernel=binary.symbol, stage="load")
        self._lanes = lanes
        self.buffers = sum(kind == "buffer" for kind in parameters)
        self._packing, self._places = packing(parameters)
        if self._packing.size > WINDOW:
            raise CompilationError(
                f"kernel {binary.symbol} has {len(parameters)} parameters, more than fit {WINDOW} bytes",
                kernel=binary.symbol,
                stage="load",
            )
        self._buffer_places = [i for i, kind in enumerate(parameters) if kind == "buffer"]
        self._text = binary.data.decode()
        self._fours = in_fours(self._text)
        # A buffer of arguments is followed by the offset in it.
        self._offset_places = [
            i + 1 if i + 1 < len(parameters) and parameters[i + 1] == "u64" else None for i in self._buffer_places
        ]
        self._variants: dict[Any, tuple[Any, Any, tuple[int, ...]]] = {}

    def variant(self, shared: tuple[int, ...], scattered: tuple[int, ...] = ()) -> tuple[Any, Any, tuple[int, ...]]:
        """The pipeline for buffers of which some are the same, its layout, and the numbers of what it binds.

        ``scattered``: those whose arguments do not start at vectors of four words.
        """
        found = self._variants.get((shared, scattered))
        if found is None:
            found = self._variants[shared, scattered] = self._build(shared, scattered)
        return found

    def _build(self, shared: tuple[int, ...], scattered: tuple[int, ...]) -> tuple[Any, Any, tuple[int, ...]]:
        import wgpu

        binary, memory = self.binary, self.memory
        complete = program(self._text, self._lanes, shared, memory.device.language, scattered)
        most = memory.device.limits["max-storage-buffers-per-shader-stage"]
        if len(complete.bound) > most:
            raise CompilationError(
                f"kernel {binary.symbol} uses {len(complete.bound)} buffers, {memory.device.name} binds {most}",
                kernel=binary.symbol,
                stage="load",
            )
        kinds = tuple("storage" if writes else "read-only-storage" for writes in complete.writable)
        layout = memory.layout(kinds)
        try:
            module = memory.gpu.create_shader_module(code=complete.text)
            pipeline = memory.gpu.create_compute_pipeline(
                layout=memory.gpu.create_pipeline_layout(bind_group_layouts=[layout, memory.uniform_layout]),
                compute={"module": module, "entry_point": binary.symbol},
            )
        except wgpu.GPUError as error:
            raise CompilationError(
                f"{memory.device.name} does not build kernel {binary.symbol}: {str(error).strip()}",
                kernel=binary.symbol,
                stage="webgpu",
            ) from error
        return pipeline, layout, complete.bound

    def __call__(self, grid: tuple[int, int, int], arguments: Sequence[Any], /) -> None:
        """Add a launch over ``grid`` work-groups to the device's commands."""
        memory = self.memory
        given: list[Buffer] = [arguments[i] or memory.nothing for i in self._buffer_places]
        first: dict[int, int] = {}
        shared = tuple(first.setdefault(buffer.serial, i) for i, buffer in enumerate(given))
        pipeline, layout, bound = self.variant(shared, uneven(self._fours, self._offsets(arguments)))
        values = [convert(arguments[place]) for place, convert in self._places]
        buffers = [given[number] for number in bound]
        most = memory.device.limits["max-compute-workgroups-per-dimension"]
        with memory.checked(f"kernel {self.binary.symbol} cannot be launched over {grid}"):
            for base in range(0, grid[0], most):
                words = self._packing.pack(0, base, grid[0], *values)
                memory.launch(pipeline, layout, buffers, words, (min(most, grid[0] - base), grid[1], grid[2]))

    def _offsets(self, arguments: Sequence[Any]) -> list[int]:
        """Where in its buffer each argument starts, in bytes."""
        return [0 if place is None else int(arguments[place]) for place in self._offset_places]


def packing(parameters: Sequence[str]) -> tuple[struct.Struct, list[tuple[int, Callable[[Any], Any]]]]:
    """How the uniform block is packed, in words of 32 bits, wide numbers as two.

    A 0, the first group, the number of groups, then offsets and scalars.
    """
    format_ = "<III"
    places: list[tuple[int, Callable[[Any], Any]]] = []
    for place, kind in enumerate(parameters):
        if kind == "buffer":
            continue
        if kind == "u64" and place and parameters[place - 1] == "buffer":
            format_ += "I"
            places.append((place, int))
        elif kind in ("fp32", "fp64"):
            format_ += "f" if kind == "fp32" else "d"
            places.append((place, float))
        else:
            bits = int(kind[1:])
            format_ += "Q" if bits == 64 else "I"
            places.append((place, _masked(bits)))
    return struct.Struct(format_), places


def _masked(bits: int) -> Callable[[Any], int]:
    return lambda value: int(value) & ((1 << bits) - 1)
