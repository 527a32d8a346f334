"""The driver of a device with its own memory, built from what its plugin supplies."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from torchport.errors import CompilationError
from torchport.plugin import Binary, Launcher, backend_for
from torchport.runtime.devices.memory import POOL_BYTES, Build, Memory
from torchport.schema import Mismatch, conform
from torchport.target import Target

if TYPE_CHECKING:
    from torchport.runtime.devices.mirrors import Mirrors

__all__ = ["DeviceDriver", "mirrors_of"]

_PARAMETERS = frozenset(("buffer", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "fp32", "fp64"))


class _About(TypedDict):
    """What a kernel's metadata must have, whichever device it is for."""

    access: list[str]
    sites: list[str]


class DeviceDriver:
    """Satisfies ``torchport.plugin.Driver``: takes CPU tensors and copies them to the device.

    grid: the largest grid of work-groups in x, y and z.
    pool_bytes: bytes of unused buffers to keep.

    A plugin makes one per device and always returns the same one, as it holds the copies.
    """

    device = "cpu"
    stock = False

    def __init__(self, memory: Memory, build: Build, grid: tuple[int, int, int], pool_bytes: int = POOL_BYTES) -> None:
        self._memory = memory
        self._build = build
        self._grid = grid
        self._pool_bytes = pool_bytes
        self._mirrors: Mirrors | None = None
        self._lock = threading.Lock()

    @property
    def mirrors(self) -> Mirrors:
        """The copies on the device. Made at first use, as they need PyTorch and a list of devices does not."""
        with self._lock:
            if self._mirrors is None:
                from torchport.runtime.devices.mirrors import Mirrors

                self._mirrors = Mirrors(self._memory, self._pool_bytes)
            return self._mirrors

    def load(self, binary: Binary, types: Sequence[str]) -> tuple[Launcher, int]:
        """Build a kernel's source for the device. Raises CompilationError with the device's own message.

        A kernel may come from a file: one that was compiled for another kind of target is a CompilationError, too.
        """
        from torchport.runtime.devices.assertions import Assertions
        from torchport.runtime.devices.launcher import DeviceLauncher, parameter_types, run_time_arguments

        try:
            known = conform(dict(binary.metadata), _About)
            sites = known["sites"]
            arguments = run_time_arguments(types, known["access"])
            parameters = parameter_types(arguments, bool(sites))
            if unknown := {*parameters} - _PARAMETERS:
                raise ValueError(f"it has an argument of type {min(unknown)[:20]!r}")
        except (Mismatch, ValueError) as error:
            raise CompilationError(
                f"kernel {binary.symbol[:80]} was not compiled for a device with memory of its own: {error}",
                kernel=binary.symbol,
                stage="load",
            ) from error
        with self.mirrors.lock:
            function = self._build(binary, parameters)
        name = str(binary.metadata.get("name", binary.symbol))
        assertions = Assertions(name, sites, self.mirrors) if sites else None
        return DeviceLauncher(name, function, arguments, self.mirrors, self._grid, assertions), 0


def mirrors_of(target: str | Target) -> Mirrors | None:
    """The copies on a target's device; None if its kernels run in the tensors' own memory."""
    parsed = Target.parse(target)
    mirrors: Mirrors | None = getattr(backend_for(parsed).driver(parsed), "mirrors", None)
    return mirrors
