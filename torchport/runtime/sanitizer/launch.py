"""Launches kernels that were compiled with checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchport.errors import KernelAssertionError
from torchport.runtime import _native
from torchport.runtime.launcher import Launcher
from torchport.runtime.sanitizer import active
from torchport.runtime.sanitizer.report import Finding, Frame, as_error, index_of
from torchport.runtime.sanitizer.shadow import shadow_of

__all__ = ["SanitizedLauncher"]

_FIXED = 9  # arguments of a launch before the kernel's own
_CHECKS = {"address": 1, "uninitialized": 2, "race": 4}  # as in csrc/sanitizer.cpp
_ATOMICS = {"fadd": "add", "umax": "max", "umin": "min", "exch": "xchg"}  # as tl spells them
_READS, _WRITES, _ATOMIC, _SYNCHRONIZES, _VOLATILE = 1, 2, 4, 8, 16


def _effects(access: str) -> int:
    kind, _, rest = access.partition(" ")
    if kind == "load":
        return _READS | (_VOLATILE if rest == "volatile" else 0)
    if kind == "store":
        return _WRITES
    operation, _, order = rest.partition(" ")
    reads = 0 if operation == "exch" else _READS
    return reads | _WRITES | _ATOMIC | (0 if order == "relaxed" else _SYNCHRONIZES)


class SanitizedLauncher:
    """Launches one kernel over a grid as ``Launcher`` does, then raises SanitizerError if its checks found something.

    ``info`` is what compilation with checks recorded: ``arguments`` (names), ``always`` and ``sites`` (``access``,
    ``bytes``, ``roots``, ``frames`` of each memory operation). Program instances run in order on one thread, so that
    findings are the same in every run. The checks are those of ``always``, or, where that is empty, those that are on
    at the launch.
    """

    def __init__(
        self,
        name: str,
        signature: Sequence[str],
        positions: Sequence[int | tuple[int, ...]],
        cost: float,
        info: dict[str, Any],
    ) -> None:
        self.name = name
        self.names: list[str] = info["arguments"]  # elements of a tuple all have the tuple's name
        self.sites: list[dict[str, Any]] = info["sites"]
        self.always: tuple[str, ...] = tuple(info["always"])
        self.positions = [(p,) if isinstance(p, int) else p for p in positions]
        self.pointers = [type_.startswith("*") for type_ in signature]
        self.argument_count = 1 + max((path[0] for path in self.positions), default=-1)
        self.launcher = Launcher(name, [*signature, "u64"], [*positions, self.argument_count], cost, True)
        same: dict[str, int] = {}  # an unrolled loop has copies of one line
        self.native_sites = [
            (
                same.setdefault(repr((site["access"], site["frames"] or number)), number),
                _effects(site["access"]),
                site["bytes"],
                tuple(site["roots"] or ()),
            )
            for number, site in enumerate(self.sites)
        ]

    def __call__(self, *call: Any) -> None:
        fixed, args = call[:_FIXED], call[_FIXED : _FIXED + self.argument_count]
        values = [
            _at(args, path) if pointer else None for path, pointer in zip(self.positions, self.pointers, strict=True)
        ]
        checks = self.always or active()
        launch = _Launch(self, values, checks, fixed[:3])
        try:
            self.launcher(*fixed, *args, launch.address)
        except KernelAssertionError as error:
            if findings := launch.findings():
                raise as_error(self.name, fixed[:3], findings) from error
            raise
        if findings := launch.findings():
            raise as_error(self.name, fixed[:3], findings)

    def argument(self, number: int) -> str:
        """The name of a pointer, with an index if a tuple holds several."""
        name = self.names[number]
        several = sum(pointer and other == name for other, pointer in zip(self.names, self.pointers, strict=True)) > 1
        return name + "".join(f"[{i}]" for i in self.positions[number][1:]) if several else name

    def bind(self, grid_x: int, grid_y: int, grid_z: int, function: int, /) -> Callable[..., None]:
        """Return a function that launches over the grid and takes only the kernel's arguments."""

        def launch(*args: Any) -> None:
            self(grid_x, grid_y, grid_z, None, function, None, None, None, None, *args)

        return launch


def _at(args: Sequence[Any], path: Sequence[int]) -> Any:
    value: Any = args
    for index in path:
        value = value[index]
    return value


def _storage(value: Any) -> torch.UntypedStorage | None:
    """The storage of an argument; None if unknown (an address, a tensor of another class)."""
    plain = isinstance(value, torch.Tensor) and type(value) in (torch.Tensor, torch.nn.Parameter)
    return value.untyped_storage() if plain and value.device.type == "cpu" else None


class _Launch:
    """The state of one launch, in Python and native code."""

    def __init__(
        self, kernel: SanitizedLauncher, values: list[Any], checks: Sequence[str], grid: tuple[int, int, int]
    ) -> None:
        self.kernel, self.values, self.grid = kernel, values, grid
        self.memory: dict[tuple[int, int], int] = {}  # address and size of a storage -> its number
        self.storages: list[torch.UntypedStorage] = []
        self.arguments: list[tuple[int, int, int]] = []
        self.shadows: list[torch.Tensor | None] = []  # kept alive while the kernel writes them
        for value in values:
            self.arguments.append(self._argument(value, "extent" in checks))
        memory = [self._memory(number) for number in range(len(self.storages))]
        mask = sum(_CHECKS[name] for name in {"address" if c == "extent" else c for c in checks})
        self.capsule = _native.sanitizer_begin(kernel.native_sites, memory, self.arguments, mask, grid[0], grid[1])
        self.address = _native.sanitizer_address(self.capsule)

    def _argument(self, value: Any, extent: bool) -> tuple[int, int, int]:
        """(number of its memory or -1, lowest address, end) of an argument."""
        storage = _storage(value)
        if storage is None:
            return -1, 0, 0
        low, size = storage.data_ptr(), storage.nbytes()
        if (low, size) not in self.memory:
            self.memory[low, size] = len(self.storages)
            self.storages.append(storage)
        number = self.memory[low, size]
        if extent:
            last = sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True)) if value.numel() else -1
            low, size = value.data_ptr(), (last + 1) * value.element_size()
        return number, low, low + size

    def _memory(self, number: int) -> tuple[int, int, int, int]:
        """(begin, end, address of the shadow, granule of races) of a storage."""
        storage = self.storages[number]
        shadow = shadow_of(storage)
        self.shadows.append(shadow)
        mine = {i for i, argument in enumerate(self.arguments) if argument[0] == number}
        sites = [
            (effects, size) for _, effects, size, roots in self.kernel.native_sites if not roots or mine & set(roots)
        ]
        written = any(effects & _WRITES for effects, _ in sites)  # memory that is only read has no races
        granule = min((size for _, size in sites), default=0) if written else 0
        begin = storage.data_ptr()
        return begin, begin + storage.nbytes(), 0 if shadow is None else shadow.data_ptr(), granule

    def findings(self) -> list[Finding]:
        """The findings, in the order of the kernel's source."""
        raw = _native.sanitizer_findings(self.capsule)
        return [self._finding(*values) for values in sorted(raw, key=lambda values: (values[1], values[0]))]

    def _finding(
        self,
        check: int,
        site: int,
        argument: int,
        other_site: int,
        address: int,
        program: tuple[int, int, int],
        other_program: int,
        elements: int,
        programs: int,
    ) -> Finding:
        kernel, value = self.kernel, self.values[argument]
        address -= (address >> 63) << 64  # negative before the data of an empty tensor, whose address is 0
        name = next(name for name, bit in _CHECKS.items() if bit == check)
        this, other = kernel.sites[site], kernel.sites[other_site] if other_site >= 0 else None
        element = (address - value.data_ptr()) // value.element_size()
        return Finding(
            check=name,
            kernel=kernel.name,
            access=_spelled(this["access"]),
            program=program,
            argument=kernel.argument(argument),
            element=element,
            index=index_of(element, value.shape, value.stride()),
            elements=elements,
            programs=programs,
            frames=_frames(this),
            tensor=_described(value),
            problem=self._problem(name, argument, address, this, other, other_program),
            other_access=_spelled(other["access"]) if other is not None else "",
            other_program=self._ids(other_program) if other is not None else None,
            other_frames=_frames(other) if other is not None else (),
        )

    def _problem(
        self, check: str, argument: int, address: int, site: dict[str, Any], other: dict[str, Any] | None, program: int
    ) -> str:
        if check == "uninitialized":
            return "nothing has written it"
        if other is not None:
            return f"not ordered after the {_spelled(other['access'])} there by program {self._ids(program)}"
        number, low, high = self.arguments[argument]
        storage = self.storages[number]
        what = "storage" if (low, high - low) == (storage.data_ptr(), storage.nbytes()) else "view"
        if address < low:
            return f"starts {low - address} bytes before its {what}"
        return f"reaches {address + site['bytes'] - high} bytes beyond its {what}"

    def _ids(self, linear: int) -> tuple[int, int, int]:
        x, y, _ = self.grid
        return linear % x, linear // x % y, linear // (x * y)


def _spelled(access: str) -> str:
    """``load``, ``store``, ``atomic add``: the access without details that only the checks use."""
    kind, _, rest = access.partition(" ")
    operation = rest.partition(" ")[0]
    return f"atomic {_ATOMICS.get(operation, operation)}" if kind == "atomic" else kind


def _frames(site: dict[str, Any]) -> tuple[Frame, ...]:
    return tuple(Frame(*frame) for frame in site["frames"])


def _described(value: torch.Tensor) -> str:
    kind = str(value.dtype).removeprefix("torch.")
    offset = f", offset {value.storage_offset()}" if value.storage_offset() else ""
    return (
        f"{kind} {tuple(value.shape)}, strides {tuple(value.stride())}{offset}, "
        f"storage of {value.untyped_storage().nbytes()} bytes"
    )
