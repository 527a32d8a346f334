"""Runs exported kernels on this machine."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import threading
from collections.abc import Callable, Sequence
from typing import Any

from torchport.errors import CompilationError
from torchport.plugin import Binary, Launcher
from torchport_handoff.lowering import lower
from torchport_handoff.wrapper import ENTRY, SET_ARENA, wrapped

__all__ = ["OracleDriver"]

_LONG = 800  # lines of a kernel from which on LLVM's passes take longer than they save: a sort, nine seconds
_ARENA_BYTES = 1 << 32  # of address space; pages are taken when they are touched
_lock, _running = threading.Lock(), threading.RLock()
_loaded: dict[str, tuple[Any, int]] = {}
_arena: list[mmap.mmap] = []


class OracleDriver:
    """Satisfies ``torchport.plugin.Driver``: program instances run one after the other, on the host's memory."""

    device = "cpu"
    stock = False

    def load(self, binary: Binary, types: Sequence[str]) -> tuple[Launcher, int]:
        """Lower a kernel by upstream's passes, compile it with upstream's execution engine, and bind the launcher.

        Raises CompilationError if upstream does not take the text.
        """
        from torchport.runtime.launcher import Launcher as NativeLauncher
        from torchport.runtime.launcher import flatten_signature

        signature, positions = flatten_signature(types)
        digest = hashlib.sha256(binary.data).hexdigest()
        with _lock:
            if digest not in _loaded:
                _loaded[digest] = _compiled(binary)
        native = NativeLauncher(binary.symbol, signature, positions, 0.0, True)
        return _OneAtATime(native), _loaded[digest][1]


class _OneAtATime:
    """Satisfies ``torchport.plugin.Launcher``: kernels share the memory for local buffers, so threads wait."""

    def __init__(self, native: Launcher) -> None:
        self._native = native

    def __call__(self, grid_x: int, grid_y: int, grid_z: int, stream: Any, function: int, /, *args: Any) -> None:
        with _running:
            self._native(grid_x, grid_y, grid_z, stream, function, *args)

    def bind(self, grid_x: int, grid_y: int, grid_z: int, function: int, /) -> Callable[..., None]:
        """The launch as a function of only the kernel's arguments."""
        launch = self._native.bind(grid_x, grid_y, grid_z, function)

        def locked(*args: Any) -> None:
            with _running:
                launch(*args)

        return locked


def _compiled(binary: Binary) -> tuple[Any, int]:
    """The engine, which owns the code, and the address of the entry point."""
    from mlir import ir
    from mlir.execution_engine import ExecutionEngine

    from torchport.runtime.launcher import KERNEL_FUNCTIONS

    arguments = [(element, bool(pointer)) for element, pointer in binary.metadata["arguments"]]
    try:
        module = lower(wrapped(binary.data.decode(), binary.symbol, arguments))
        engine = ExecutionEngine(module, opt_level=0 if binary.data.count(b"\n") > _LONG else 2)
    except (ir.MLIRError, RuntimeError, ValueError) as error:
        message = f"upstream MLIR does not lower its linalg: {error}"
        raise CompilationError(message, kernel=binary.symbol, stage="oracle") from error
    for name, address in KERNEL_FUNCTIONS.items():
        engine.raw_register_runtime(name, ctypes.c_void_p(address))
    entry, set_arena = engine.raw_lookup(ENTRY), engine.raw_lookup(SET_ARENA)
    if not entry or not set_arena:
        raise CompilationError("a function it calls is missing", kernel=binary.symbol, stage="oracle")
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(set_arena)(*_range())
    return engine, entry


def _range() -> tuple[int, int]:
    """First and last address of the memory for local buffers, which all kernels share: launches are one at a time."""
    if not _arena:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        _arena.append(mmap.mmap(-1, _ARENA_BYTES, flags=flags))
    first = ctypes.addressof(ctypes.c_char.from_buffer(_arena[0]))
    return first, first + _ARENA_BYTES
