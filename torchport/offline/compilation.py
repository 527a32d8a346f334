"""Compiles one kernel for one target, with or without such a device on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import CompilationError, TorchportError
from torchport.inductor.capture import KernelSource
from torchport.inductor.kernels import Grid, kernel_key
from torchport.offline.demands import demands, exceeded, promotions
from torchport.plugin import Binary, Compiler, backend_for
from torchport.quarantine import active, configuration, identity
from torchport.target import Target
from torchport.triton.source import TritonKernel, triton_kernel

__all__ = ["Artifact", "compile_kernel"]


@dataclass(frozen=True)
class Artifact:
    """The result of compiling one kernel for one target.

    kernel: its name.
    target: the target's text form.
    key: identifies the kernel within the capture, the same for each target.
    error: why it did not compile; empty if it did.
    binary: the output of the target's compiler.
    blocks: its block sizes.
    simd_groups: warps or wavefronts of a program instance.
    types: the Triton type of each argument.
    operations: the operations that it computes.
    grid: how the grid follows from the arguments.
    sizes: elements along the grid's axes in the example.
    limits: limits of the target that it exceeds, in words.
    notes: what the target does differently, in words.
    cache_key: where torch.compile looks for it on this target; empty if that uses other block sizes.
    seconds: the time it took to compile.
    """

    kernel: str
    target: str
    operations: tuple[str, ...]
    key: str = ""
    error: str = ""
    binary: Binary | None = None
    blocks: Mapping[str, int] = field(default_factory=dict)
    simd_groups: int = 1
    types: Mapping[str, str] = field(default_factory=dict)
    grid: Grid | None = None
    sizes: tuple[int, ...] = ()
    limits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cache_key: str = ""
    seconds: float = 0.0


def compile_kernel(kernel: KernelSource, target: Target, name: str = "") -> Artifact:
    """Compile a captured kernel for ``target`` with block sizes that fit it. Raises TargetError for an unknown target.

    If the target's compiler refuses the kernel, the Artifact has an ``error``. ``name``: the kernel's name, if its
    function is not unique in the capture.
    """
    backend = backend_for(target)
    compiler = backend.compiler(target)
    able = backend.capabilities(target)
    loaded = triton_kernel(kernel.function, kernel.source)
    wanted = demands(kernel.source, kernel.function, kernel.types)
    blocks = _fitting(loaded.blocks, wanted.reduced, able)
    groups = able.groups_for(prod(blocks.values()) * wanted.reduced)
    grid = kernel.grid if isinstance(kernel.grid, Grid) else None
    if grid is not None:
        # An axis whose block is 1 may have no argument for it.
        grid = replace(grid, blocks=tuple(blocks.get(n, b) for n, b in zip(_AXES, grid.blocks, strict=False)))
    programs = _programs(grid, kernel.sizes, len(kernel.types))
    cut = [
        f"{axis} cut from {before} to {blocks[axis]}" for axis, before in loaded.blocks.items() if blocks[axis] < before
    ]
    known = identity(kernel.source, kernel.function), configuration({**blocks, "num_warps": 1})
    entry = active(target).get(known)
    avoided = (f"in quarantine on {target}: {entry.reason}",) if entry is not None else ()
    artifact = Artifact(
        name or kernel.function,
        str(target),
        kernel.operations,
        kernel.key,
        blocks=blocks,
        simd_groups=groups,
        types=dict(loaded.signature),
        grid=grid,
        sizes=kernel.sizes,
        limits=(*avoided, *exceeded(wanted, able, blocks, programs, None)),
        notes=(*cut, *promotions(wanted, able)),
        cache_key="" if cut else kernel_key(kernel.source, target),
    )
    started = time.perf_counter()
    try:
        binary = _compiled(compiler, loaded, blocks, groups)
    except TorchportError as error:
        return replace(artifact, error=str(error), seconds=time.perf_counter() - started)
    return replace(
        artifact,
        binary=binary,
        limits=(*avoided, *exceeded(wanted, able, blocks, programs, binary.resources)),
        seconds=time.perf_counter() - started,
    )


_AXES = ("XBLOCK", "YBLOCK", "ZBLOCK")


def _compiled(compiler: Compiler, kernel: TritonKernel, blocks: Mapping[str, int], groups: int) -> Binary:
    """The machine code. An exception of a vendor's compiler becomes a CompilationError."""
    options: dict[str, Any] = {**kernel.options, "num_warps": groups}
    try:
        return compiler.compile(kernel.source(blocks), options)
    except TorchportError:
        raise
    except Exception as error:  # vendors' compilers raise many things, and the other kernels must still compile
        raise CompilationError(_reason(error)) from error


def _programs(grid: Grid | None, sizes: tuple[int, ...], arguments: int) -> tuple[int, int, int]:
    """Program instances in x, y and z in the example; 1 if unknown."""
    if grid is None or not sizes:
        return (1, 1, 1)
    values = [0] * arguments
    for index, size in zip(grid.sizes, sizes, strict=True):
        values[index] = size
    return grid.of(values)


def _fitting(blocks: Mapping[str, int], reduced: int, able: Capabilities) -> dict[str, int]:
    """``blocks`` with the largest halved until a block, times what the source holds whole, fits the target."""
    fitting = dict(blocks)
    while prod(fitting.values()) * reduced > able.block_elements and max(fitting.values(), default=1) > 1:
        largest = max(fitting, key=lambda name: fitting[name])
        fitting[largest] //= 2
    return fitting


def _reason(error: BaseException) -> str:
    """The line of the innermost error that states the problem; Triton puts the kernel's source before it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
