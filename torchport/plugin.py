"""Backends: vendors' plugins, found by the entry point group ``torchport.backends`` (name -> one object).

docs/plugins.md explains the design, docs/vendor-guide.md how to write one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

from torchport.capabilities import Capabilities
from torchport.container import pack, unpack
from torchport.errors import TargetError
from torchport.guarded import load, owner
from torchport.pipeline import Pass
from torchport.target import Target

__all__ = [
    "API_VERSION",
    "GROUP",
    "Backend",
    "Binary",
    "Compiler",
    "Device",
    "Driver",
    "Launcher",
    "Registry",
    "Resources",
    "backend_for",
    "registry",
]

API_VERSION = 2
GROUP = "torchport.backends"


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes of a chip. ``registers``: of one lane, None where that is not known."""

    registers: int | None = None
    spill_bytes: int = 0
    scratchpad_bytes: int = 0


@dataclass(frozen=True)
class Binary:
    """A compiled kernel. ``data``: machine code, or what the driver makes it from; ``format``: cubin, hsaco, obj, cl;
    ``symbol``: the kernel's name in it; ``metadata``: what the driver must know besides, JSON values.
    """

    data: bytes
    format: str
    symbol: str
    resources: Resources = field(default_factory=Resources)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def pack(self) -> bytes:
        """All of it as one string of bytes, with a checksum."""
        about = {
            "format": self.format, "symbol": self.symbol, "resources": asdict(self.resources),
            "metadata": dict(self.metadata),
        }  # fmt: skip
        return pack(about, self.data)

    @classmethod
    def unpack(cls, packed: bytes) -> Binary:
        """What ``pack`` made. Raises CorruptContainer (a ValueError) for bytes that are not whole."""
        about, data = unpack(packed)
        return cls(data, about["format"], about["symbol"], Resources(**about["resources"]), about["metadata"])


@dataclass(frozen=True)
class Device:
    """A chip that a backend knows: its target and a line about it.

    ``missing``: why kernels do not run on it here, and what to do; empty where they do. A target whose kernels can be
    compiled all the same is listed with the reason that they do not run.
    """

    target: Target
    description: str
    missing: str = ""


class Launcher(Protocol):
    """Runs kernels of one signature."""

    def __call__(self, grid_x: int, grid_y: int, grid_z: int, stream: Any, function: int, /, *args: Any) -> None:
        """Launch ``function``, as Triton's launchers do: ``args`` are packed_metadata, launch_metadata, enter_hook,
        exit_hook and the kernel's arguments, constexprs included.
        """

    def bind(self, grid_x: int, grid_y: int, grid_z: int, function: int, /) -> Callable[..., None]:
        """``function`` over one grid, as a callable that takes the kernel's arguments alone.

        The caller knows that tensors are on the right device.
        """


class Compiler(Protocol):
    """Makes machine code (or what the driver makes it from) for one target."""

    @property
    def triton(self) -> str:
        """The entry point of the group ``triton.backends`` that compiles: the vendor's, or ``torchport``."""

    def fingerprint(self) -> str:
        """A string that changes whenever what ``compile`` makes may change. Part of every cache key; called often."""

    def compile(self, source: Any, options: Mapping[str, Any]) -> Binary:
        """Compile a ``triton.compiler.ASTSource`` with Triton's ``options`` (``num_warps`` among them).

        Raises UnsupportedOperation, CompilationError or Triton's own errors for a kernel that cannot be compiled.
        Must not touch the device: it is called in a forked process too.
        """

    def passes(self) -> Sequence[Pass]:
        """torchport's passes from imported TTIR on, in order, for ``torchport opt``; none where Triton has its own."""


class Driver(Protocol):
    """Runs kernels on one target's device."""

    device: str
    """The type of the torch device whose tensors its kernels take: ``cpu``, ``cuda`` ..."""

    stock: bool
    """Whether Inductor's own code generation and launching serve for ``device``, as for GPUs that it knows. Otherwise
    torchport chooses block sizes from the capabilities, compiles and launches."""

    def load(self, binary: Binary, types: Sequence[str]) -> tuple[Launcher, int]:
        """Link a kernel that this target's compiler made.

        ``types``: Triton's type of each argument, ``constexpr`` where it is compiled in. Returns a launcher and the
        ``function`` to hand to it. Raises CompilationError.
        """


@runtime_checkable
class Backend(Protocol):
    """What a vendor's entry point leads to: these seven members, every one required."""

    name: str
    """The entry point's name; the first word of a target's text form."""

    api_version: int
    """``torchport.plugin.API_VERSION`` of the torchport it was written for."""

    options: Mapping[str, Any]
    """Inductor options this backend's kernels need, for example ``{"cpu_backend": "triton"}``."""

    def devices(self) -> Sequence[Device]:
        """What it knows, its default first: devices that are here, and targets it compiles for without one."""

    def capabilities(self, target: Target) -> Capabilities:
        """What ``target`` can do. Raises TargetError for a target this backend does not know."""

    def compiler(self, target: Target) -> Compiler:
        """What compiles for ``target``. Raises TargetError where nothing here can; the message says what to do."""

    def driver(self, target: Target) -> Driver:
        """What runs kernels on ``target``. Raises TargetError where they cannot run here; the message says why."""


class Registry:
    """The backends that some entry points lead to. Each is loaded when it is first asked for, and only then."""

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self._points: dict[str, list[EntryPoint]] = {}
        for point in points:
            owners = self._points.setdefault(point.name, [])
            if point.value not in {known.value for known in owners}:  # an editable install may be listed twice
                owners.append(point)
        self._loaded: dict[str, Backend] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the installed backends, sorted; nothing is loaded."""
        return tuple(sorted(self._points))

    def package(self, name: str) -> str:
        """The distribution and version that ``name`` comes from; nothing is loaded."""
        dists = [point.dist for point in self._points.get(name, ())]
        return " and ".join(f"{dist.name} {dist.version}" for dist in dists if dist is not None)

    def get(self, name: str) -> Backend:
        """The backend called ``name``, loaded. Whatever its members raise that is no error of torchport's becomes a
        TargetError that names backend and member.

        Raises TargetError when there is none (listing those there are), when two packages claim the name (naming
        both), or when its object cannot be loaded or is not a valid backend (naming what is wrong with it).
        """
        if name in self._loaded:
            return self._loaded[name]
        owners = self._points.get(name, [])
        if not owners:
            raise TargetError(
                f"no backend is called {name!r}; installed backends: {', '.join(self.names) or 'none'}. "
                f"A backend is a package with an entry point in the group {GROUP!r}"
            )
        if len(owners) > 1:
            claims = " and ".join(f"{point.value} ({owner(point)})" for point in owners)
            raise TargetError(f"backend {name!r} is claimed twice, by {claims}; uninstall one of them")
        self._loaded[name] = load(owners[0], API_VERSION, Device)
        return self._loaded[name]


@functools.cache
def registry() -> Registry:
    """The backends installed in this process's environment."""
    return Registry(entry_points(group=GROUP))


def backend_for(target: Target) -> Backend:
    """The backend that compiles for ``target``. Raises TargetError as Registry.get does."""
    return registry().get(target.backend)
