"""Compiles, links and loads the kernels of a compiled graph.

Generated code holds one ``load_kernel`` call for each kernel. Where the kernel's object is in torchport's cache, as
after a warm start, it is linked and called directly: Triton is not imported. Otherwise the source is compiled.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from torchport.errors import CompilationError, TorchportError
from torchport.inductor.ahead import BackgroundCompiler
from torchport.inductor.scope import Scope
from torchport.phases import Phase, phase
from torchport.plugin import Binary, Launcher, backend_for
from torchport.program.grid import MAX_GRID_Y, Grid, bound_launch
from torchport.runtime import artifacts, events, observation
from torchport.runtime.cache import object_cache
from torchport.target import Target
from torchport.triton.source import arithmetic_of, last_line, triton_kernel

__all__ = [
    "MAX_GRID_Y",
    "Grid",
    "LoadedKernel",
    "attempt",
    "compile_ahead",
    "compile_in_background",
    "compile_kernel",
    "import_compiler",
    "kernel_key",
    "load_kernel",
    "prepare",
]


class LoadedKernel:
    """A linked kernel. ``launch(*args)`` runs it over the grid that follows from its size arguments.

    ``key``, ``target``, ``types``, ``grid``, ``source``: as in ``load_kernel``, for observers of launches
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
    """The cache key of a kernel's object: from its source, its compiler, and the version of torch's helpers."""
    parts = (backend_for(target).compiler(target).fingerprint(), str(target), torch.__version__, source)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def compile_in_background(scope: Scope, key: str, name: str, source: str) -> None:
    """Start compiling a kernel in the second process, if its object is not there already."""
    if scope.background is not None and key not in _native and object_cache().get(key) is None:
        scope.background.submit(key, name, source)


def prepare(
    key: str,
    name: str,
    target: str,
    types: Mapping[str, str],
    source: str,
) -> tuple[Launcher, int]:
    """Compile (unless the object is cached) and link a kernel; returns its launcher and the function's address.

    Where another process compiles it, waits for that. Raises UnsupportedOperation or CompilationError when the target
    cannot compile it.
    """
    native = attempt(key, name, target, types, source, wait=True)
    assert native is not None
    return native


def attempt(
    key: str,
    name: str,
    target: str,
    types: Mapping[str, str],
    source: str,
    operations: tuple[str, ...] = (),
    background: BackgroundCompiler | None = None,
    *,
    wait: bool = False,
) -> tuple[Launcher, int] | None:
    """``prepare``, unless another process is compiling the kernel just now: then None, without ``wait``.

    ``operations``: what the kernel computes, for the events.
    ``background``: may have compiled it already.
    """
    started = time.perf_counter()
    made = False

    def make() -> bytes:
        nonlocal made
        made = True
        return compile_kernel(name, source, target)

    with _lock, phase(Phase.LOADING, name):
        native = _native.get(key)
        packed = object_cache().get(key) if native is None else None
        if packed is not None:
            native = _load_cached(packed, target, types)
        if native is None:
            refused = packed is not None
            if packed := background.result(key) if background is not None else None:
                made = True
                object_cache().keep(key, packed)
            elif refused:
                object_cache().put(key, packed := make())
            else:
                packed = object_cache().made_once(key, make, wait=wait)
            if packed is None:
                return None
            native = _load(packed, target, types)
        if packed is not None:
            artifacts.record(key, packed)
        _native[key] = native
    events.record(events.Kernel(name, time.perf_counter() - started, not made, operations))
    return native


def _load(packed: bytes, target: str, types: Mapping[str, str]) -> tuple[Launcher, int]:
    parsed = Target.parse(target)
    return backend_for(parsed).driver(parsed).load(Binary.unpack(packed), list(types.values()))


def _load_cached(packed: bytes, target: str, types: Mapping[str, str]) -> tuple[Launcher, int] | None:
    """A kernel from the object cache; None if the driver refuses it, as another machine's."""
    try:
        return _load(packed, target, types)
    except CompilationError:
        return None


def load_kernel(
    name: str, key: str, target: str, types: Mapping[str, str], grid: Grid | tuple[int, int, int], source: str
) -> LoadedKernel:
    """Load a kernel; generated code calls this once for each.

    ``types``: Triton's type of each argument.
    ``grid``: program instances if all sizes are known, otherwise how to compute them.

    Raises as ``prepare`` does.
    """
    launcher, function = _native.get(key) or prepare(key, name, target, types, source)
    return LoadedKernel(name, bound_launch(launcher, function, grid), key, target, types, grid, source)


def compile_ahead(key: str, name: str, source: str, target: str) -> bytes | None:
    """The object of a kernel from a helper; None where it fails, or another process is compiling the kernel just now.

    None, too, where this process would make another kernel of that key: one that was started anew may lack what the
    one that asks has set or registered.
    """
    if kernel_key(source, Target.parse(target)) != key:
        return None
    try:
        return object_cache().made_once(key, lambda: compile_kernel(name, source, target), wait=False)
    except TorchportError:
        return None  # the parent compiles it again and reports why


def import_compiler(target: str) -> None:
    """Import what ``compile_kernel`` needs, which takes a quarter of a second."""
    from torchport.triton.compat import PyCodeCache, code_generator  # noqa: F401

    parsed = Target.parse(target)
    backend_for(parsed).compiler(parsed).passes()


def compile_kernel(name: str, source: str, target: str) -> bytes:
    """Run Triton and the target's compiler on a kernel's source. Returns the packed object."""
    from triton.errors import TritonError

    with phase(Phase.FRONTEND, name):
        kernel = triton_kernel(name, source)
        parsed = Target.parse(target)
        options = dict(kernel.options)
        if arithmetic := arithmetic_of(source):
            options["arithmetic"] = arithmetic
        try:
            return backend_for(parsed).compiler(parsed).compile(kernel.source(kernel.blocks), options).pack()
        except TritonError as error:
            raise CompilationError(
                f"Triton's frontend cannot compile kernel {name}: {last_line(error)}", kernel=name, stage="ttir"
            ) from error
