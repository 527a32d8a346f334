"""Target ``null``: kernels are lowered and written as C, and a launch checks its arguments and returns.

It is the smallest legal backend, and it measures the time that everything except kernels takes. Outputs are not
computed: they hold whatever was in their memory.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torchport_simt import SIMTCompiler, Spelling

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.plugin import API_VERSION, Binary, Device, Launcher
from torchport.target import Target

__all__ = ["NullLauncher", "NullPlugin", "backend"]

_TARGET = Target("null")
_FIXED = 4  # packed_metadata, launch_metadata, enter_hook, exit_hook
_TYPES = frozenset("int1 int8 int16 int32 int64 fp16 bf16 fp32 fp64".split())
_CAPABILITIES = Capabilities(
    simd_width=32,
    simd_groups=(1, 2, 4, 8, 16, 32),
    block_elements=1 << 14,
    grid=(2**31 - 1, 65535, 65535),
    scratchpad_bytes=0,
    dtypes=_TYPES,
    atomics=_TYPES - {"int1", "int8", "int16"},
    dot_precisions=frozenset({"ieee"}),
    denormals=frozenset({"fp16", "bf16", "fp32", "fp64"}),
)


class NullLauncher:
    """Satisfies ``torchport.plugin.Launcher`` for a kernel ``name`` whose arguments have Triton's ``types``."""

    def __init__(self, name: str, types: Sequence[Any]) -> None:
        self.name = name
        run_time = [index for index, type_ in enumerate(types) if type_ != "constexpr"]
        self._checks = [_check(type_) for type_ in types]
        self._least = max(run_time, default=-1) + 1  # generated code omits constexprs at the end

    def __call__(self, grid_x: int, grid_y: int, grid_z: int, stream: Any, function: int, /, *args: Any) -> None:
        """Check the arguments and call the launch hooks. Raises TypeError."""
        _, metadata, enter_hook, exit_hook = args[:_FIXED]
        if enter_hook is not None:
            enter_hook(metadata)
        self._run(args[_FIXED:])
        if exit_hook is not None:
            exit_hook(metadata)

    def bind(self, grid_x: int, grid_y: int, grid_z: int, function: int, /) -> Callable[..., None]:
        """The launch as a function of only the kernel's arguments."""
        return lambda *args: self._run(args)

    def _run(self, args: Sequence[Any]) -> None:
        if not self._least <= len(args) <= len(self._checks):
            raise TypeError(f"kernel {self.name} takes {self._least} arguments, not {len(args)}")
        for index, (check, value) in enumerate(zip(self._checks, args, strict=False)):
            if check is not None and not check(value):
                raise TypeError(f"kernel {self.name}, argument {index}: {value!r:.80} is not of its type")


def _check(type_: Any) -> Callable[[Any], bool] | None:
    """A check of values for an argument of ``type_``; None for a constexpr or a tuple."""
    if type_ == "constexpr" or not isinstance(type_, str):
        return None
    if type_.startswith("*"):
        return lambda value: value is None or isinstance(value, int) or hasattr(value, "data_ptr")
    return _is_float if "f" in type_ else _is_integer


def _is_float(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_integer(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


class NullDriver:
    """Satisfies ``torchport.plugin.Driver``."""

    device = "cpu"
    stock = False

    def __init__(self) -> None:
        self._warned = False

    def load(self, binary: Binary, types: Sequence[str]) -> tuple[Launcher, int]:
        """A launcher that runs nothing. Warns once that outputs are not computed."""
        if not self._warned:
            self._warned = True
            warnings.warn("target null runs no kernels: outputs are not computed", stacklevel=2)
        return NullLauncher(binary.symbol, types), 0


class NullPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "null"
    api_version = API_VERSION
    # Tensors live on the CPU, for which Inductor must generate Triton kernels.
    options: Mapping[str, Any] = MappingProxyType({"cpu_backend": "triton"})

    def devices(self) -> list[Device]:
        """One device, which is no chip."""
        return [Device(_TARGET, "no chip: kernels are compiled and not run, outputs are not computed")]

    def capabilities(self, target: Target) -> Capabilities:
        """Generous limits that no chip sets. Raises TargetError for a target other than ``null``."""
        if target != _TARGET:
            raise TargetError(f"target {target} is not known; the null backend has only {_TARGET}")
        return _CAPABILITIES

    def compiler(self, target: Target) -> SIMTCompiler:
        """torchport's lowering to C. Nothing compiles the C, so the spelling needs no preamble."""
        self.capabilities(target)
        return _COMPILER

    def driver(self, target: Target) -> NullDriver:
        """The driver whose launches run nothing."""
        self.capabilities(target)
        return _DRIVER


_COMPILER = SIMTCompiler(_TARGET, Spelling("C", "c", preamble=""), _CAPABILITIES)
_DRIVER = NullDriver()
backend = NullPlugin()
