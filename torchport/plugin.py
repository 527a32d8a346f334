"""Backends: vendors' plugins, found by the entry point group ``torchport.backends`` (name -> one object)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.target import Target

__all__ = ["API_VERSION", "GROUP", "Backend", "Launcher", "Registry", "Resources", "backend_for", "registry"]

API_VERSION = 1
GROUP = "torchport.backends"


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes of a chip. ``registers``: of one lane, None where that is not known."""

    registers: int | None = None
    spill_bytes: int = 0
    scratchpad_bytes: int = 0


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


@runtime_checkable
class Backend(Protocol):
    """What a vendor's entry point leads to. Every attribute is required."""

    name: str
    """The entry point's name; the first word of a target's text form."""

    api_version: int
    """``torchport.plugin.API_VERSION`` of the torchport it was written for."""

    device: str
    """The type of the torch device its kernels run on: ``cpu``, ``cuda``, ..."""

    inductor_options: Mapping[str, Any]
    """Inductor options this backend's kernels need, for example ``{"cpu_backend": "triton"}``."""

    launches: bool
    """Whether kernels run on this machine. Where they do not, the backend compiles for machines elsewhere."""

    def fingerprint(self, target: Target) -> str:
        """A string that changes whenever the machine code made for ``target`` on this machine may change.

        It becomes part of every cache key. Called often: cache what is costly. Raises TargetError when the backend
        cannot compile for ``target`` here; the message says why and what to do.
        """

    def capabilities(self, target: Target) -> Capabilities:
        """What ``target`` can do. Raises TargetError for a target this backend does not know."""

    def triton_target(self, target: Target) -> tuple[str, str | int, int]:
        """Backend, architecture and SIMD width, as ``triton.backends.compiler.GPUTarget`` takes them."""

    def resources(self, stages: Mapping[str, Any]) -> Resources:
        """What a kernel takes of the chip, from what Triton's stages made of it (``CompiledKernel.asm``)."""

    def load(self, packed: bytes, types: Sequence[str]) -> tuple[Launcher, int]:
        """Link a kernel that this backend compiled (the binary its Triton compiler left).

        ``types``: Triton's type of each argument, ``constexpr`` where it is compiled in. Returns a launcher and the
        ``function`` to hand to it. Raises CompilationError.
        """


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

    def get(self, name: str) -> Backend:
        """The backend called ``name``, loaded.

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
            claims = " and ".join(f"{point.value} ({_owner(point)})" for point in owners)
            raise TargetError(f"backend {name!r} is claimed twice, by {claims}; uninstall one of them")
        backend = _load(owners[0])
        self._loaded[name] = backend
        return backend


_MEMBERS = (
    "name", "api_version", "device", "inductor_options", "launches", "fingerprint", "capabilities", "triton_target",
    "resources", "load",
)  # fmt: skip


def _owner(point: EntryPoint) -> str:
    return f"package {point.dist.name}" if point.dist is not None else "an unknown package"


def _load(point: EntryPoint) -> Backend:
    where = f"backend {point.name!r} ({point.value}, {_owner(point)})"
    try:
        backend = point.load()
    except Exception as error:  # a plugin's import can raise anything, and must not take the other plugins down
        raise TargetError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    missing = [word for word in _MEMBERS if not hasattr(backend, word)]
    if missing:
        raise TargetError(f"{where} is not valid: it has no {', '.join(missing)} (see torchport.plugin.Backend)")
    if backend.api_version != API_VERSION:
        raise TargetError(
            f"{where} was written for plugin API {backend.api_version}, this torchport has {API_VERSION}; "
            "install the release of the package made for this torchport"
        )
    if backend.name != point.name:
        raise TargetError(f"{where} is not valid: it calls itself {backend.name!r}, its entry point {point.name!r}")
    assert isinstance(backend, Backend)
    return backend


@functools.cache
def registry() -> Registry:
    """The backends installed in this process's environment."""
    return Registry(entry_points(group=GROUP))


def backend_for(target: Target) -> Backend:
    """The backend that compiles for ``target``. Raises TargetError as Registry.get does."""
    return registry().get(target.backend)
