"""The kernels of a compiled graph: from Triton source to something that is called with the graph's buffers.

Generated code holds one ``load_kernel`` call for each kernel. Where the kernel's object is in torchport's cache, as
after a warm start, it is linked and called directly: Triton is not imported. Otherwise the source is compiled.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from torchport.errors import CompilationError
from torchport.inductor.ahead import Ahead
from torchport.plugin import Binary, Launcher, backend_for
from torchport.runtime import events, observation
from torchport.runtime.cache import object_cache
from torchport.target import Target

if TYPE_CHECKING:
    from torchport.inductor.scope import Scope

__all__ = [
    "MAX_GRID_Y",
    "Grid",
    "LoadedKernel",
    "TritonKernel",
    "arithmetic_of",
    "begin_ahead",
    "in_arithmetic",
    "in_configuration",
    "kernel_key",
    "load_kernel",
    "prepare",
    "triton_kernel",
]

MAX_GRID_Y = 65535
"""Program instances in y; Inductor's kernels made for larger sizes continue in z."""

MAX_BOUND = 64
"""Sizes for which a kernel of changing sizes remembers its grid."""


@dataclass(frozen=True)
class Grid:
    """The grid of a kernel: for x, y and z, which argument is the size and how large a block is.

    ``overflow``: y continues in z beyond MAX_GRID_Y, as the kernel's source expects.
    """

    sizes: tuple[int, ...]
    blocks: tuple[int, ...]
    overflow: bool = False

    def of(self, args: Sequence[Any]) -> tuple[int, int, int]:
        """Program instances in x, y and z for the arguments of a launch."""
        x, y, z = (*(-(-args[i] // b) for i, b in zip(self.sizes, self.blocks, strict=True)), 1, 1)[:3]
        if self.overflow and y > MAX_GRID_Y:
            z = -(-y // MAX_GRID_Y)
            y = -(-y // z)
        return x, y, z


class LoadedKernel:
    """A kernel that is ready. ``launch(*args)`` runs it over the grid that its size arguments say.

    ``key``, ``target``, ``types``, ``grid``, ``source``: as ``load_kernel`` got them, for who observes launches
    (``torchport.runtime.observation``).
    """

    __slots__ = ("__weakref__", "grid", "key", "launch", "name", "source", "target", "types")

    def __init__(
        self,
        name: str,
        launch: Callable[..., None],
        key: str,
        target: str,
        types: Mapping[str, str],
        grid: Grid | tuple[int, int, int],
        source: str,
    ) -> None:
        self.name = name
        self.launch = launch
        self.key = key
        self.target = target
        self.types = types
        self.grid = grid
        self.source = source
        observation.add(self)

    def run(self, *args: Any, stream: Any = None) -> None:
        """``launch`` with the call shape of Inductor's own kernels."""
        self.launch(*args)


_lock = threading.Lock()
_native: dict[str, tuple[Launcher, int]] = {}  # key -> launcher, address: linked code stays linked


def kernel_key(source: str, target: Target) -> str:
    """The cache key of a kernel's object: its source, what compiles it, and torch, whose helpers it calls."""
    parts = (backend_for(target).compiler(target).fingerprint(), str(target), torch.__version__, source)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def begin_ahead(scope: Scope, key: str, name: str, source: str) -> None:
    """Start compiling a kernel in the second process, if its object is not there already."""
    if not Ahead.useful() or key in _native or object_cache().get(key) is not None:
        return
    if scope.ahead is None:
        scope.ahead = Ahead(functools.partial(_compile, target=scope.target))
    scope.ahead.add(key, name, source)


def prepare(
    key: str,
    name: str,
    target: str,
    types: Mapping[str, str],
    source: str,
    operations: tuple[str, ...] = (),
    ahead: Ahead | None = None,
) -> tuple[Launcher, int]:
    """Compile (unless the object is cached) and link a kernel; returns its launcher and the function's address.

    ``operations``: what the kernel computes, for the events. ``ahead``: where it may be compiled already.

    Raises UnsupportedOperation or CompilationError when the
    target cannot compile it.
    """
    started = time.perf_counter()
    with _lock:
        native = _native.get(key)
        packed = None if native is not None else object_cache().get(key)
        cached = native is not None or packed is not None
        if native is None:
            if packed is None:
                packed = (ahead.take(key) if ahead is not None else None) or _compile(name, source, target)
                object_cache().put(key, packed)
            parsed = Target.parse(target)
            native = _native[key] = backend_for(parsed).driver(parsed).load(Binary.unpack(packed), list(types.values()))
    events.record(events.Kernel(name, time.perf_counter() - started, cached, operations))
    return native


def load_kernel(
    name: str, key: str, target: str, types: Mapping[str, str], grid: Grid | tuple[int, int, int], source: str
) -> LoadedKernel:
    """What generated code calls for each kernel.

    ``types``: Triton's type of each argument; ``grid``: its value where all sizes are known, otherwise how to compute
    it. Raises as ``prepare`` does.
    """
    launcher, function = _native.get(key) or prepare(key, name, target, types, source)
    if not isinstance(grid, Grid):
        return LoadedKernel(name, launcher.bind(*grid, function), key, target, types, grid, source)

    sizes = operator.itemgetter(*grid.sizes)
    bound: dict[Any, Callable[..., None]] = {}

    def launch(*args: Any) -> None:
        key = sizes(args)
        if (found := bound.get(key)) is None:
            if len(bound) >= MAX_BOUND:
                bound.clear()
            found = bound[key] = launcher.bind(*grid.of(args), function)
        found(*args)

    return LoadedKernel(name, launch, key, target, types, grid, source)


@dataclass(frozen=True)
class TritonKernel:
    """A kernel's source, executed: the Triton function and what it is compiled with.

    ``signature``: Triton's type of each argument; ``constants``: values of those that are compiled in; ``blocks``: the
    block sizes chosen for it, the rest of these; ``options``: Triton's, for any target.
    """

    function: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    blocks: Mapping[str, int]
    attributes: Any
    options: Mapping[str, Any]

    def source(self, blocks: Mapping[str, int]) -> Any:
        """What ``triton.compile`` takes, for these block sizes."""
        from triton.compiler import ASTSource

        return ASTSource(self.function, dict(self.signature), {**self.constants, **blocks}, self.attributes)


def triton_kernel(name: str, source: str) -> TritonKernel:
    """Execute a kernel's source. Triton's active driver is what it was afterwards.

    Raises CompilationError for a source with several configurations where it is not known which one is meant.
    """
    from torch._inductor.codecache import PyCodeCache
    from triton.runtime import driver

    before = driver.active
    try:
        # Sources set a driver; those of a GPU are read where there is none, too.
        kernel = getattr(PyCodeCache.load(source.replace("triton_helpers.set_driver_to_gpu()\n", "")), name)
    finally:
        driver.set_active(before)
    meta, options = kernel.triton_meta, {}
    candidates = [dict(one.kwargs) for one in kernel.configs]
    if (chosen := _configuration_of(source)) is not None:
        candidates = [{one: value for one, value in chosen.items() if one in kernel.fn.arg_names}] if chosen else []
        options = {one: value for one, value in chosen.items() if one not in kernel.fn.arg_names}
    if len(candidates) != 1:
        raise CompilationError(f"kernel {name}: which of its configurations is meant is not known", kernel=name)
    (blocks,) = candidates
    options |= {
        "debug": kernel.inductor_meta.get("assert_indirect_indexing", True),
        "sanitize_overflow": False,
        "enable_fp_fusion": meta.get("enable_fp_fusion", True),
    }
    return TritonKernel(kernel.fn, meta["signature"], meta["constants"], blocks, meta["configs"][0], options)


_CONFIGURATION = "# torchport configuration: "


def in_configuration(source: str, configuration: str) -> str:
    """A kernel's source with the one of its configurations that is meant in a comment before it: JSON of block sizes
    and other arguments that are compiled in, and of Triton's options; null where it is not known."""
    return f"{_CONFIGURATION}{configuration}\n{source}"


def _configuration_of(source: str) -> dict[str, Any] | None:
    """The configuration a source says, empty where that is not known; None where the source does not say one."""
    first = source.partition("\n")[0]
    return dict(json.loads(first.removeprefix(_CONFIGURATION)) or {}) if first.startswith(_CONFIGURATION) else None


_ARITHMETIC = "# torchport arithmetic: "


def in_arithmetic(source: str, arithmetic: str) -> str:
    """A kernel's source with the option ``arithmetic`` it is to be compiled with, in a comment before it."""
    return f"{_ARITHMETIC}{arithmetic}\n{source}" if arithmetic else source


def arithmetic_of(source: str) -> str:
    """The option ``arithmetic`` that a kernel's source says, empty where it says none.

    Generated code holds the source behind a line break, and compiles it from there where no cache has the kernel.
    """
    first = source.lstrip("\n").partition("\n")[0]
    return first.removeprefix(_ARITHMETIC) if first.startswith(_ARITHMETIC) else ""


def _compile(name: str, source: str, target: str) -> bytes:
    """Run Triton and the target's compiler on a kernel's source. Returns the packed object."""
    from triton.errors import TritonError

    kernel = triton_kernel(name, source)
    parsed = Target.parse(target)
    options = dict(kernel.options)
    if arithmetic := arithmetic_of(source):
        options["arithmetic"] = arithmetic
    try:
        return backend_for(parsed).compiler(parsed).compile(kernel.source(kernel.blocks), options).pack()
    except TritonError as error:
        raise CompilationError(
            f"Triton's frontend cannot compile kernel {name}: {_last_line(error)}", kernel=name, stage="ttir"
        ) from error


def _last_line(error: BaseException) -> str:
    """The line of Triton's innermost error that says what is wrong; the kernel's source stands before it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
