"""torchport's kernels, compiled for the CPU target in another chip's arithmetic and cached."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from torchport.plugin import Binary, Launcher, backend_for
from torchport.runtime import events
from torchport.runtime.cache import object_cache
from torchport.target import Target

__all__ = ["TYPES", "EmulatedKernel"]

TYPES = {
    torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5", torch.float8_e4m3fnuz: "fp8e4b8", torch.float8_e5m2fnuz: "fp8e5b16",
}  # fmt: skip
"""Triton's names of the types whose arithmetic differs between chips."""

_lock = threading.Lock()
_loaded: dict[EmulatedKernel, tuple[Launcher, int]] = {}


@dataclass(frozen=True)
class EmulatedKernel:
    """One of torchport's kernels in one arithmetic.

    module: of ``torchport.kernels``.
    function: in the module.
    arithmetic: the option of CPU kernels, JSON.
    types: names and Triton's types of its arguments, in order.
    constants: names and values of its constexprs, which come last.
    """

    module: str
    function: str
    arithmetic: str
    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]

    def launch(self, grid: tuple[int, int, int], *arguments: Any) -> None:
        """Run it on CPU tensors; it is compiled once for each process and kept in the object cache."""
        with _lock:
            if self not in _loaded:
                _loaded[self] = self._load()
            launcher, function = _loaded[self]
        launcher.bind(*grid, function)(*arguments, *[None] * len(self.constants))

    def _load(self) -> tuple[Launcher, int]:
        started = time.perf_counter()
        target = Target("cpu")
        backend = backend_for(target)
        compiler = backend.compiler(target)
        types = {**dict(self.types), **dict.fromkeys(dict(self.constants), "constexpr")}
        key = hashlib.sha256("\0".join((compiler.fingerprint(), repr(self), _source(self.module))).encode()).hexdigest()
        packed = object_cache().get(key)
        binary = Binary.unpack(packed) if packed is not None else self._compile(compiler, types)
        if packed is None:
            object_cache().put(key, binary.pack())
        made = backend.driver(target).load(binary, list(types.values()))
        events.record(events.Kernel(self.function, time.perf_counter() - started, packed is not None))
        return made

    def _compile(self, compiler: Any, types: dict[str, str]) -> Binary:
        from torchport.triton.compat import ASTSource

        function = getattr(import_module(f"torchport.kernels.{self.module}"), self.function)
        source = ASTSource(function, types, dict(self.constants))
        made: Binary = compiler.compile(source, {"arithmetic": self.arithmetic})
        return made


@cache
def _source(module: str) -> str:
    files = (Path(__file__), Path(__file__).parents[2] / "kernels" / f"{module}.py")
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
