"""One kernel compiled for one target, whether or not a device of that kind is here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

from torchport.capabilities import Capabilities
from torchport.errors import CompilationError, UnsupportedOperation
from torchport.inductor.kernels import triton_kernel
from torchport.inductor.scope import KernelSource
from torchport.plugin import Resources, backend_for
from torchport.target import Target

__all__ = ["Artifact", "compile_kernel"]


@dataclass(frozen=True)
class Artifact:
    """What came of one kernel on one target. ``error`` is empty when it compiled.

    ``kernel``: its name; ``binary``: machine code in ``format`` (cubin, hsaco, obj); ``blocks``: its block sizes;
    ``simd_groups``: warps or wavefronts of a program instance; ``types``: Triton's type of each argument.
    ``limits``: limits of the target that it exceeds, in words.
    """

    kernel: str
    target: str
    operations: tuple[str, ...]
    error: str = ""
    binary: bytes = b""
    format: str = ""
    symbol: str = ""
    blocks: Mapping[str, int] = field(default_factory=dict)
    simd_groups: int = 1
    types: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    limits: tuple[str, ...] = ()
    seconds: float = 0.0


def compile_kernel(kernel: KernelSource, target: Target) -> Artifact:
    """Compile a captured kernel for ``target`` with block sizes that fit it. Raises TargetError for an unknown target.

    A kernel that the target's compiler refuses is an Artifact with an ``error``.
    """
    from triton.errors import TritonError

    backend = backend_for(target)
    compiler = backend.compiler(target)
    able = backend.capabilities(target)
    loaded = triton_kernel(kernel.function, kernel.source)
    blocks = _fitting(loaded.blocks, able)
    groups = able.groups_for(prod(blocks.values()))
    artifact = Artifact(
        kernel.function, str(target), kernel.operations, blocks=blocks, simd_groups=groups, types=dict(loaded.signature)
    )
    started = time.perf_counter()
    try:
        binary = compiler.compile(loaded.source(blocks), {**loaded.options, "num_warps": groups})
    except (TritonError, UnsupportedOperation, CompilationError, RuntimeError) as error:
        # a vendor's compiler reports refusals as RuntimeError
        return replace(artifact, error=_first_line(error))
    return replace(
        artifact,
        binary=binary.data,
        format=binary.format,
        symbol=binary.symbol,
        resources=binary.resources,
        limits=_limits(binary.resources, able),
        seconds=time.perf_counter() - started,
    )


def _fitting(blocks: Mapping[str, int], able: Capabilities) -> dict[str, int]:
    """``blocks`` with the largest halved until a block fits the target."""
    fitting = dict(blocks)
    while prod(fitting.values()) > able.block_elements:
        largest = max(fitting, key=lambda name: fitting[name])
        fitting[largest] //= 2
    return fitting


def _limits(resources: Resources, able: Capabilities) -> tuple[str, ...]:
    exceeded = []
    if resources.scratchpad_bytes > able.scratchpad_bytes:
        exceeded.append(f"{resources.scratchpad_bytes} bytes of scratchpad, the target has {able.scratchpad_bytes}")
    if resources.spill_bytes:
        exceeded.append(f"{resources.spill_bytes} bytes of registers spilled")
    return tuple(exceeded)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
