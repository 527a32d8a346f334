"""Launches a kernel of a device with its own memory on CPU tensors."""

from __future__ import annotations

import ctypes
import operator
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.errors import TargetError
from torchport.runtime.devices.assertions import Assertions, check_assertions
from torchport.runtime.devices.memory import DEVICE_TYPE, Function
from torchport.runtime.devices.mirrors import Mirror, Mirrors, every_device, version_of
from torchport.runtime.devices.thread import current

__all__ = ["Argument", "DeviceLauncher", "converter", "parameter_types", "run_time_arguments"]

_FIXED = 4  # packed_metadata, launch_metadata, enter_hook, exit_hook

_PLAIN = (torch.Tensor, torch.nn.Parameter)

_PASSED = {
    "i1": "i8", "u1": "i8", "f32": "fp32", "fp16": "fp32", "bf16": "fp32",
}  # fmt: skip
"""The types as which scalars are passed, if not as their own."""


@dataclass(frozen=True)
class Argument:
    """A run-time argument.

    Its Triton type, how a pointer is used (``r``, ``w``, ``rw``), and its place in a call: the index of the argument
    and, inside tuples, further indices.
    """

    type: str
    access: str
    path: tuple[int, ...]


def run_time_arguments(types: Sequence[Any], access: Sequence[str]) -> list[Argument]:
    """The arguments of a kernel that are not compiled in.

    ``types``: the types of all arguments, as ``Driver.load`` gets them, tuples for tuples. ``access``: how each
    run-time argument is used.
    """

    def walk(types: Sequence[Any], path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        for index, type_ in enumerate(types):
            if isinstance(type_, (tuple, list)):
                yield from walk(type_, (*path, index))
            elif type_ != "constexpr":
                yield str(type_), (*path, index)

    return [Argument(type_, how, path) for (type_, path), how in zip(walk(types, ()), access, strict=True)]


def parameter_types(arguments: Sequence[Argument], asserts: bool) -> list[str]:
    """The types of a kernel's parameters (``torchport.runtime.devices.memory.Build``)."""
    types: list[str] = []
    for argument in arguments:
        pointer = argument.type.startswith("*")
        types += ["buffer", "u64"] if pointer else [_PASSED.get(argument.type, argument.type)]
    return types + (["buffer"] if asserts else [])


class DeviceLauncher:
    """A ``torchport.plugin.Launcher``.

    ``grid_limits``: the largest grid of work-groups in x, y and z. Outside a compiled graph a launch is complete when
    it returns, with its results in the tensors.
    """

    def __init__(
        self,
        name: str,
        function: Function,
        arguments: Sequence[Argument],
        mirrors: Mirrors,
        grid_limits: tuple[int, int, int],
        assertions: Assertions | None = None,
    ) -> None:
        self.name = name
        self._function = function
        self._mirrors = mirrors
        self._limits = grid_limits
        self._assertions = assertions
        self._plan = [(argument, converter(argument.type)) for argument in arguments]
        self._places = [
            (argument.path[0] if len(argument.path) == 1 else -1, convert) for argument, convert in self._plan
        ]
        self._simple = all(place >= 0 for place, _ in self._places)

    def __call__(self, grid_x: int, grid_y: int, grid_z: int, stream: Any, function: int, /, *args: Any) -> None:
        """Launch over a grid, as Triton's launchers do."""
        _, metadata, enter_hook, exit_hook = args[:_FIXED]
        if enter_hook is not None:
            enter_hook(metadata)
        self.bind(grid_x, grid_y, grid_z, function)(*args[_FIXED:])
        if exit_hook is not None:
            exit_hook(metadata)

    def bind(self, grid_x: int, grid_y: int, grid_z: int, function: int, /) -> Callable[..., None]:
        """A function that takes the kernel's arguments only and launches it over that grid."""
        grid = (grid_x, grid_y, grid_z)
        fits = all(0 < count <= most for count, most in zip(grid, self._limits, strict=True))

        def launch(*args: Any) -> None:
            if fits or self._runs(grid):
                self._launch(grid, args)

        return launch

    def _runs(self, grid: tuple[int, int, int]) -> bool:
        """Whether there is anything to run. Raises TargetError for a grid that the device does not take."""
        if any(not 0 <= count <= most for count, most in zip(grid, self._limits, strict=True)):
            raise TargetError(f"kernel {self.name}: the device runs grids up to {self._limits}, not {grid}")
        return 0 not in grid

    def _launch(self, grid: tuple[int, int, int], args: Sequence[Any]) -> None:
        if (values := self._on_device(args)) is not None:
            with self._mirrors.lock:
                self._enqueue(grid, values)
            return
        with self._mirrors.lock:
            session = current()
            if session is not None and session.mirrors is self._mirrors:
                self._run(grid, args)
                return
            pointers = [_tensor(_at(args, arg.path), self.name) for arg, convert in self._plan if convert is None]
            tensors = [tensor for tensor in pointers if tensor is not None and tensor.device.type == "cpu"]
            if not tensors:
                self._run(grid, args)
                return
            for other in every_device(but=self._mirrors):
                for tensor in tensors:
                    other.on_host(tensor, "launch on another device")
            for tensor in tensors:
                self._mirrors.check(tensor)
            written = self._run(grid, args)
            for tensor in tensors:
                self._mirrors.on_host(tensor, "launch outside a graph")
                self._mirrors.agree(tensor, version_of(tensor))
            for other in every_device(but=self._mirrors):
                for tensor in written:
                    other.host_wrote(tensor, "launch on another device")
            check_assertions(self._mirrors)

    def _on_device(self, args: Sequence[Any]) -> list[Any] | None:
        """The parameters' values where all tensors are on the device: the common case, and fast."""
        starts = self._mirrors.starts
        if not starts or not self._simple:
            return None
        values: list[Any] = []
        try:
            for place, convert in self._places:
                value = args[place]
                if convert is not None:
                    values.append(convert(value))
                elif value is None:
                    values += (None, 0)
                elif type(value) not in _PLAIN or value.is_cpu:
                    return None
                else:
                    buffer = starts.get(value.data_ptr())
                    values += (buffer, 0) if buffer is not None else self._place(value)
        except (TypeError, ValueError, OverflowError):
            return None  # the other way names the argument
        return values

    def _enqueue(self, grid: tuple[int, int, int], values: list[Any]) -> None:
        if self._assertions is not None:
            values.append(self._assertions.before())
        self._function(grid, values)
        self._mirrors.statistics.launches += 1

    def _run(self, grid: tuple[int, int, int], args: Sequence[Any]) -> list[torch.Tensor]:
        """Enqueue the kernel. Returns the tensors it may have written."""
        mirrors = self._mirrors
        mirrors.begin_launch()
        values: list[Any] = []
        changed: list[tuple[torch.Tensor, Mirror]] = []
        for argument, convert in self._plan:
            value = _at(args, argument.path)
            if convert is not None:
                values.append(self._scalar(convert, value, argument))
                continue
            tensor = _tensor(value, self.name)
            if tensor is None:
                values += (None, 0)
                continue
            if not tensor.is_cpu:
                values += self._place(tensor)
                continue
            mirror = mirrors.on_device(tensor)
            values += (mirror.buffer, tensor.data_ptr() - mirror.address if tensor.numel() else 0)
            if "w" in argument.access:
                changed.append((tensor, mirror))
        self._enqueue(grid, values)
        for _, mirror in changed:
            mirror.device, mirror.host = True, False
        return [tensor for tensor, _ in changed]

    def _place(self, tensor: torch.Tensor) -> tuple[Any, int]:
        """The buffer of a tensor on the device, and its offset there."""
        try:
            return self._mirrors.storages.buffer(tensor)
        except KeyError:
            raise ValueError(
                f"kernel {self.name}: the tensor is on {tensor.device}, which is another device than the kernel's; "
                "move it with .to(device)"
            ) from None

    def _scalar(self, convert: Callable[[Any], Any], value: Any, argument: Argument) -> Any:
        try:
            return convert(value)
        except (TypeError, ValueError, OverflowError) as error:
            where = ".".join(map(str, argument.path))
            raise type(error)(
                f"kernel {self.name}, argument {where}: {value!r} is no {argument.type} ({error})"
            ) from error


def _at(args: Sequence[Any], path: tuple[int, ...]) -> Any:
    value: Any = args
    for index in path:
        value = value[index]
    return value


def _tensor(value: Any, kernel: str) -> torch.Tensor | None:
    """The tensor behind a pointer argument; None for a null pointer."""
    if value is None:
        return None
    if not isinstance(value, torch.Tensor):
        inner = getattr(value, "base", None)  # triton.reinterpret's wrapper
        if not isinstance(inner, torch.Tensor):
            raise TypeError(
                f"kernel {kernel}: {type(value).__name__} given for a pointer; this device has its own memory and "
                "takes CPU tensors, not addresses"
            )
        value = inner
    tensor: torch.Tensor = value
    if tensor.device.type == DEVICE_TYPE and type(tensor) in _PLAIN:
        return tensor
    if tensor.is_meta or (tensor.numel() > 0 and not tensor.untyped_storage().data_ptr()):
        raise ValueError(
            f"kernel {kernel}: the tensor has {tensor.numel()} elements and no memory: its storage was resized to 0, "
            "as sharding of parameters does, or it is a fake or meta tensor; give it its memory back first"
        )
    if tensor.device.type not in ("cpu", DEVICE_TYPE):
        raise ValueError(f"kernel {kernel}: the tensor is on {tensor.device}, not in CPU memory; move it with .cpu()")
    return tensor


def _integer(bits: int) -> Callable[[Any], int]:
    """The signed value of an integer of ``bits`` bits that was written with or without a sign."""

    def convert(value: Any) -> int:
        number = operator.index(value)
        if not -(1 << (bits - 1)) <= number < 1 << bits:
            raise OverflowError(f"it does not fit {bits} bits")
        return number - (1 << bits) if number >> (bits - 1) > 0 else number

    return convert


def _unsigned(bits: int) -> Callable[[Any], int]:
    signed = _integer(bits)
    return lambda value: signed(value) & ((1 << bits) - 1)


def _half(value: Any) -> float:
    """Round once, as the native launcher does. Raises OverflowError beyond fp16."""
    packed: float = struct.unpack("e", struct.pack("e", float(value)))[0]
    return packed


def _bfloat(value: Any) -> float:
    """Round to fp32 and then to nearest even, as Triton does."""
    return float(torch.tensor(_single(value), dtype=torch.bfloat16))


def _single(value: Any) -> float:
    """Round to fp32, to infinity beyond its range."""
    return ctypes.c_float(float(value)).value


def converter(type_: str) -> Callable[[Any], Any] | None:
    """The function that converts an argument of Triton type ``type_`` to a parameter; None for pointers."""
    if type_.startswith("*"):
        return None
    floats: dict[str, Callable[[Any], Any]] = {
        "fp16": _half, "bf16": _bfloat, "fp32": _single, "f32": _single, "fp64": float,
    }  # fmt: skip
    if type_ in ("i1", "u1"):
        return lambda value: operator.index(value) & 1
    if type_ in floats:
        return floats[type_]
    bits = int(type_[1:])
    return _unsigned(bits) if type_[0] == "u" else _integer(bits)
