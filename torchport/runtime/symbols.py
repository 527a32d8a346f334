"""Finds addresses of C symbols in torch's libraries and their dependencies, which are already loaded."""

from __future__ import annotations

import ctypes
import functools

__all__ = ["find_symbol"]


@functools.cache
def _scopes() -> tuple[ctypes.CDLL, ...]:
    import torch

    # The order in which the dynamic linker resolves torch's own references: first global symbols of the process (of a
    # preloaded OpenMP runtime, for example), then torch's dependencies breadth first (libtorch_cpu, libgomp, libm,
    # libc ...). torch._C is already loaded, so nothing new is loaded and nothing becomes global.
    return ctypes.CDLL(None), ctypes.CDLL(torch._C.__file__, mode=ctypes.RTLD_LOCAL)


@functools.cache
def find_symbol(name: str) -> int | None:
    """The address of the C function ``name`` as torch would resolve it, or None."""
    for scope in _scopes():
        try:
            return ctypes.cast(getattr(scope, name), ctypes.c_void_p).value
        except AttributeError:
            continue
    return None
