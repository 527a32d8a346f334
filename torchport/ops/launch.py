"""Launches kernels of the operator library on tensors: compiled for the tensors' device, cached, bound to a grid.

In a compiled graph a launch becomes a node of the graph, which Inductor sees (``torch.library.wrap_triton``).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from torchport.config import config
from torchport.errors import CompilationError, TargetError
from torchport.ops.kernel import Kernel
from torchport.plugin import Binary, Launcher, backend_for
from torchport.runtime import events
from torchport.runtime.cache import object_cache
from torchport.target import Target

__all__ = [
    "ELEMENTS",
    "PLAIN",
    "Compiled",
    "Prepared",
    "compiling_elsewhere",
    "compiling_for",
    "launch",
    "running_on",
    "runs_on_host",
    "target_for",
    "target_of",
]

PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
"""Types of tensors with memory; others stand for tensors, as fake ones do while a graph is traced."""

_MAX_BOUND = 64
"""Grids that a kernel remembers."""

_OPTIONS = {"debug": True, "sanitize_overflow": False}
"""Triton's: assertions are kept, arithmetic on integers is not checked."""

ELEMENTS = {
    torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64", torch.bool: "i1",
    torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64", torch.uint8: "u8",
    torch.float8_e4m3fn: "fp8e4nv", torch.float8_e5m2: "fp8e5",
}  # fmt: skip
"""Triton's names of the types that tensors may have."""

Grid = tuple[int, int, int]


@dataclass
class _Loaded:
    """A kernel linked for one device and one set of types. ``bound``: by grid; ``rest``: a None for each constant."""

    launcher: Launcher
    function: int
    rest: tuple[None, ...]
    bound: dict[Grid, Callable[..., None]] = field(default_factory=dict)

    def bind(self, grid: Grid) -> Callable[..., None]:
        if len(self.bound) >= _MAX_BOUND:
            self.bound.clear()
        run = self.bound[grid] = self.launcher.bind(*grid, self.function)
        return run


@dataclass(frozen=True)
class Compiled:
    """A kernel that was compiled and not run: its name, the values that are compiled in, Triton's options, the code."""

    name: str
    constants: Mapping[str, Any]
    tuning: Mapping[str, int]
    binary: Binary


_elsewhere: ContextVar[tuple[Target, list[Compiled]] | None] = ContextVar("torchport_elsewhere", default=None)


@contextmanager
def compiling_for(target: Target) -> Iterator[list[Compiled]]:
    """Launches in this thread compile for ``target``, which need not be here, and run nothing.

    Results are not computed: tensors keep what was in their memory. Yields what was compiled, in order.
    """
    found: list[Compiled] = []
    token = _elsewhere.set((target, found))
    try:
        yield found
    finally:
        _elsewhere.reset(token)


def compiling_elsewhere() -> bool:
    """Whether launches in this thread only compile (``compiling_for``)."""
    return _elsewhere.get() is not None


_there: ContextVar[Target | None] = ContextVar("torchport_there", default=None)


@contextmanager
def running_on(target: Target) -> Iterator[None]:
    """Launches in this thread on CPU tensors run on ``target``: a level of this CPU, or one whose driver has copies of
    them (docs/plugins.md).
    """
    token = _there.set(target)
    try:
        yield
    finally:
        _there.reset(token)


def runs_on_host() -> bool:
    """Whether launches in this thread on CPU tensors run on this CPU."""
    there = _there.get()
    return _elsewhere.get() is None and (there is None or there.backend == "cpu")


_lock = threading.Lock()
_loaded: dict[Any, _Loaded] = {}


_NONE: Mapping[str, int] = {}
_PAIRS: Mapping[str, int] = {"bf16_pairs": True}


def launch(
    kernel: Kernel, grid: Grid, args: Sequence[Any], constants: Mapping[str, Any], tuning: Mapping[str, int] = _NONE,
    *, pairs: bool = False,
) -> Callable[..., None] | None:  # fmt: skip
    """Run ``kernel`` over ``grid``.

    Returns what ran it: a function of ``args`` and a None for each constant, which runs it again on other tensors of
    the same types and device. None if nothing ran.

    args: values of its arguments in order: tensors on one device, ints, floats, None for a missing tensor.
    constants: values of the arguments that are compiled in, in the kernel's order.
    tuning: Triton's ``num_warps`` and ``num_stages``, for GPUs.
    pairs: products of bfloat16 may take denormals for zeros (the CPU's option ``bf16_pairs``); for plain tensors, where
    ``runs_on_host``.

    Raises CompilationError or UnsupportedOperation if the target cannot compile the kernel, TargetError if the device
    belongs to no target of torchport's, ValueError if tensors are on several devices.
    """
    key: list[Any] = [kernel, *constants.values()]
    device = None
    for value in args:
        kind = type(value)
        if kind in PLAIN:
            key.append(value.dtype)
            if device is None:
                device = value.device
                key.append(device)
            elif value.device != device:
                raise ValueError(
                    f"{kernel.name}: its tensors are on {device} and on {value.device}; move them to one device"
                )
        elif kind is int:
            key.append("i32" if -0x80000000 <= value < 0x80000000 else "i64")
        elif kind is float:
            key.append("fp32")
        elif value is None:
            key.append(None)
        elif isinstance(value, torch.Tensor) and kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__:
            return launch(kernel, grid, [_plain(value) for value in args], constants, tuning, pairs=pairs)
        else:  # a tensor or a number of a graph that is traced
            torch.library.wrap_triton(kernel.jit)[grid](*args, **constants, **tuning)
            return None
    if 0 in grid or (device is not None and device.type == "meta"):
        return None
    if (elsewhere := _elsewhere.get()) is not None:
        target, found = elsewhere
        types = [_type(kernel, value) for value in args] + ["constexpr"] * len(constants)
        binary = _compile(target, kernel, types, constants, tuning, _divisible(args))
        found.append(Compiled(kernel.name, constants, tuning, binary))
        return None
    if (there := _there.get()) is not None:
        key.append(there)
    if pairs:
        key.append("pairs")
    loaded = _loaded.get(key := tuple(key))  # type: ignore[assignment]
    if loaded is None:
        loaded = _load(key, kernel, device, args, constants, _PAIRS if pairs else _NONE)
    run = loaded.bound.get(grid) or loaded.bind(grid)
    run(*args, *loaded.rest)
    return run


class Prepared:
    """A launch of which all is known but the tensors: their types and device are the same in each call.

    kernel, grid, constants: as in ``launch``. numbers: its arguments behind the tensors.
    """

    def __init__(self, kernel: Kernel, grid: Grid, numbers: Sequence[Any], constants: Mapping[str, Any]) -> None:
        self._launch = functools.partial(launch, kernel, grid, constants=constants)
        self._numbers = tuple(numbers)
        self._rest = (*numbers, *(None for _ in constants))
        self._run: Callable[..., None] | None = None

    def __call__(self, *tensors: torch.Tensor | None) -> None:
        if self._run is None:
            self._run = self._launch(args=(*tensors, *self._numbers))
        else:
            self._run(*tensors, *self._rest)


def _divisible(args: Sequence[Any]) -> dict[tuple[int, ...], Any]:
    """What Triton and Inductor tell a GPU's compiler about arguments: which are multiples of 16, as addresses are."""
    known = [["tt.divisibility", 16]]
    return {
        (place,): known
        for place, value in enumerate(args)
        if isinstance(value, torch.Tensor) or (type(value) is int and value % 16 == 0)
    }


def _plain(value: Any) -> Any:
    """A tensor without the methods of its subclass."""
    return value.as_subclass(torch.Tensor) if isinstance(value, torch.Tensor) else value


def target_for(device: torch.device) -> Target:
    """The target that computes on tensors of ``device``. Raises TargetError if there is none.

    For CPU tensors it is the CPU, or the level of it that ``TORCHPORT_TARGET`` named when the first kernel was loaded.
    """
    if device.type == "cpu":
        return _there.get() or _of_the_cpu()
    if device.type == "torchport":
        targets = importlib.import_module("torchport.torch_device.targets")  # there where tensors are on such a device
        target: Target = targets.target_of(device.index or 0)
        return target
    raise TargetError(
        f"torchport's operators run on CPU tensors and on torchport's devices, not on {device}; "
        "move the tensors with .cpu(), or compile the model with torch.compile"
    )


@functools.cache
def _of_the_cpu() -> Target:
    named = config().target
    return named if named.backend == "cpu" else Target("cpu")


def target_of(device: torch.device) -> str:
    """The text form of the target that kernels on tensors of ``device`` are compiled for."""
    if (elsewhere := _elsewhere.get()) is not None:
        return str(elsewhere[0])
    if device.type == "cuda":
        return _gpu(device.index)
    return str(target_for(device)) if device.type in ("cpu", "torchport") else device.type


@functools.cache
def _gpu(index: int | None) -> str:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip is not None:
        return f"hip:{properties.gcnArchName.partition(':')[0]}"
    return f"cuda:{properties.major}{properties.minor}"


def _load(
    key: Any, kernel: Kernel, device: torch.device | None, args: Sequence[Any], constants: Mapping[str, Any],
    tuning: Mapping[str, int],
) -> _Loaded:  # fmt: skip
    if device is None or tuple(constants) != kernel.constants or len(args) != len(kernel.arguments):
        raise TypeError(f"{kernel.name} takes {kernel.arguments}, tensors among them, and {kernel.constants}")
    types = [_type(kernel, value) for value in args] + ["constexpr"] * len(constants)
    target = target_for(device)
    started = time.perf_counter()
    backend = backend_for(target)
    parts = [backend.compiler(target).fingerprint(), str(target), kernel.digest, repr(types), repr(constants)]
    parts += [repr(tuning)] if tuning else []
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    with _lock:
        if key in _loaded:
            return _loaded[key]
        packed = object_cache().get(name)
        if packed is None:
            binary = _compile(target, kernel, types, constants, tuning)
            object_cache().put(name, binary.pack())
        else:
            binary = Binary.unpack(packed)
        launcher, function = backend.driver(target).load(binary, types)
        loaded = _loaded[key] = _Loaded(launcher, function, (None,) * len(constants))
    events.record(events.Kernel(kernel.name, time.perf_counter() - started, packed is not None))
    return loaded


def _type(kernel: Kernel, value: Any) -> str:
    """Triton's type of an argument."""
    if value is None:
        return "constexpr"
    if type(value) is float:
        return "fp32"
    if type(value) is int:
        return "i32" if -0x80000000 <= value < 0x80000000 else "i64"
    if value.dtype not in ELEMENTS:
        raise TypeError(f"{kernel.name} takes no tensors of {value.dtype}")
    return f"*{ELEMENTS[value.dtype]}"


def _compile(
    target: Target, kernel: Kernel, types: Sequence[str], constants: Mapping[str, Any],
    tuning: Mapping[str, int] = _NONE, attributes: Mapping[tuple[int, ...], Any] | None = None,
) -> Binary:  # fmt: skip
    from triton.errors import TritonError

    from torchport.triton.compat import ASTSource
    from torchport.triton.source import last_line

    names = (*kernel.arguments, *kernel.constants)
    missing = dict.fromkeys(name for name, kind in zip(names, types, strict=True) if kind == "constexpr")
    source = ASTSource(kernel.jit, dict(zip(names, types, strict=True)), {**missing, **constants}, attributes)
    try:
        return backend_for(target).compiler(target).compile(source, {**_OPTIONS, **tuning})
    except TritonError as error:
        raise CompilationError(
            f"Triton's frontend cannot compile kernel {kernel.name}: {last_line(error)}",
            kernel=kernel.name,
            stage="ttir",
        ) from error
