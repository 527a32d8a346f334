"""Triton kernels of the operator library, made when they are first compiled."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

__all__ = ["Kernel"]


class Kernel:
    """A function in Triton's language; used as a decorator in the place of ``triton.jit``.

    Triton is not imported until ``jit`` is asked for: an operator whose objects are cached starts without it. So the
    module of a kernel names ``tl`` for type checkers only, and the kernel finds Triton's when it is compiled.

    Arguments that are compiled in (``tl.constexpr``) come last.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not isinstance(function, FunctionType):
            raise TypeError(f"a kernel is a Python function, not {function!r}")
        self.function = function
        self.name = f"{function.__module__.rpartition('.')[2]}_{function.__name__.lstrip('_')}"
        code = function.__code__
        names = code.co_varnames[: code.co_argcount]
        fixed = [name for name in names if "constexpr" in str(function.__annotations__.get(name, ""))]
        self.arguments = names[: len(names) - len(fixed)]
        """Names of the arguments that a launch passes."""
        self.constants = names[len(self.arguments) :]
        """Names of those that are compiled in."""
        if self.constants != tuple(fixed):
            raise TypeError(f"kernel {self.name}: arguments that are compiled in must come last")

    def __call__(self, *args: Any) -> Any:
        """For kernels that call this one, as type checkers see it; Python code uses ``torchport.ops.launch``."""
        raise TypeError(f"{self.name} is a kernel: run it with torchport.ops.launch.launch")

    @functools.cached_property
    def jit(self) -> Any:
        """Triton's function. Kernels that it calls become Triton's functions too."""
        import triton
        import triton.language as tl

        helpers = {name: other.jit for name, other in self._helpers()}
        scope = {**self.function.__globals__, "triton": triton, "tl": tl, **helpers}
        copied = FunctionType(self.function.__code__, scope, self.function.__name__, self.function.__defaults__)
        copied.__annotations__ = self.function.__annotations__
        copied.__doc__ = self.function.__doc__
        return triton.jit(copied)

    @functools.cached_property
    def digest(self) -> str:
        """A hash of the source files of the kernel and of the kernels that it calls, and of its name."""
        files = sorted(set(self._files()))
        parts = (self.name.encode(), *(Path(file).read_bytes() for file in files))
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def _files(self) -> Iterator[str]:
        yield self.function.__code__.co_filename
        for _, helper in self._helpers():
            yield from helper._files()

    def _helpers(self) -> Iterator[tuple[str, Kernel]]:
        """Kernels that this one calls, by name."""
        known: Mapping[str, Any] = self.function.__globals__
        for name in self.function.__code__.co_names:
            if isinstance(other := known.get(name), Kernel):
                yield name, other
