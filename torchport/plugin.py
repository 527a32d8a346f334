"""Backends: vendors' plugins, found by the entry point group ``torchport.backends`` (name -> one object).

docs/plugins.md explains the design, docs/vendor-guide.md how to write one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

from torchport.capabilities import Capabilities
from torchport.container import CorruptContainer, pack, unpack
from torchport.errors import TargetError
from torchport.pipeline import Pass
from torchport.schema import Mismatch, conform
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
    "Page",
    "PageWriter",
    "Registry",
    "Resources",
    "backend_for",
    "page_writer",
    "registry",
]

API_VERSION = 2
GROUP = "torchport.backends"
_SEE = "(see torchport.plugin.Backend)"


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel uses of a chip.

    registers: registers of one lane; None if unknown.
    spill_bytes: bytes of registers spilled to memory.
    scratchpad_bytes: bytes of local (shared) memory.
    """

    registers: int | None = None
    spill_bytes: int = 0
    scratchpad_bytes: int = 0


@dataclass(frozen=True)
class Binary:
    """A compiled kernel.

    data: machine code, or the source from which the driver builds it.
    format: cubin, hsaco, obj, cl ...
    symbol: the kernel's name in ``data``.
    resources: what the kernel uses of the chip.
    metadata: other data for the driver, as JSON values.
    """

    data: bytes
    format: str
    symbol: str
    resources: Resources = field(default_factory=Resources)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def pack(self) -> bytes:
        """Serialize to one string of bytes with a checksum."""
        about = {
            "format": self.format, "symbol": self.symbol, "resources": asdict(self.resources),
            "metadata": dict(self.metadata),
        }  # fmt: skip
        return pack(about, self.data)

    @classmethod
    def unpack(cls, packed: bytes) -> Binary:
        """Read what ``pack`` wrote. Raises CorruptContainer (a ValueError) for damaged bytes."""
        about, data = unpack(packed)
        try:
            known = conform(about, _About)
        except Mismatch as error:
            raise CorruptContainer(f"its metadata: {error}") from error
        return cls(data, known["format"], known["symbol"], known["resources"], known["metadata"])


class _About(TypedDict):
    """A binary's metadata in a container."""

    format: str
    symbol: str
    resources: Resources
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Device:
    """A chip that a backend knows.

    target: the chip's target.
    description: one line about it.
    missing: why kernels do not run on it here, and what to do; empty if they run. A target that kernels can only be
        compiled for is listed too, with the reason why they do not run.
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
        """Return a callable that launches ``function`` over one grid and takes the kernel's arguments only.

        The caller guarantees that tensors are on the right device.
        """


class Compiler(Protocol):
    """Compiles kernels for one target."""

    @property
    def triton(self) -> str:
        """The entry point in the group ``triton.backends`` that compiles: the vendor's, or ``torchport``."""

    def fingerprint(self) -> str:
        """A string that changes whenever the output of ``compile`` may. Part of every cache key; called often."""

    def compile(self, source: Any, options: Mapping[str, Any]) -> Binary:
        """Compile a ``triton.compiler.ASTSource`` with Triton's ``options`` (``num_warps`` among them).

        Raises UnsupportedOperation, CompilationError or Triton's own errors for a kernel that cannot be compiled.
        Must not touch the device: it is also called in a forked process.
        """

    def passes(self) -> Sequence[Pass]:
        """torchport's passes after import of the TTIR, in order, for ``torchport opt``; empty if Triton's are used."""


class Driver(Protocol):
    """Runs kernels on one target's device."""

    device: str
    """The type of the torch device whose tensors its kernels take: ``cpu``, ``cuda`` ..."""

    stock: bool
    """Whether Inductor itself generates code for ``device`` and launches it, as for the GPUs it supports. Otherwise
    torchport chooses block sizes from the capabilities, compiles and launches."""

    def load(self, binary: Binary, types: Sequence[str]) -> tuple[Launcher, int]:
        """Link a kernel compiled for this target; return a launcher and the ``function`` to pass to it.

        ``types``: Triton's type of each argument, ``constexpr`` for one that is compiled in. Raises CompilationError.
        """


@runtime_checkable
class Backend(Protocol):
    """The object that a vendor's entry point names. All seven members are required."""

    name: str
    """The entry point's name; the first word of a target's text form."""

    api_version: int
    """``torchport.plugin.API_VERSION`` of the torchport that it was written for."""

    options: Mapping[str, Any]
    """Inductor options this backend's kernels need, for example ``{"cpu_backend": "triton"}``."""

    def devices(self) -> Sequence[Device]:
        """The devices present and the targets it can compile for without one; the default comes first."""

    def capabilities(self, target: Target) -> Capabilities:
        """The limits and formats of ``target``. Raises TargetError for a target this backend does not know."""

    def compiler(self, target: Target) -> Compiler:
        """The compiler for ``target``. Raises TargetError, saying what to do, if there is none on this machine."""

    def driver(self, target: Target) -> Driver:
        """The driver for ``target``. Raises TargetError, saying why, if its kernels cannot run on this machine."""


class PageWriter(Protocol):
    """What a backend may have besides: it writes pages that run models in browsers."""

    def write_page(self, model: Callable[..., Any], args: Sequence[Any], folder: Path, name: str) -> Page:
        """Compile ``model`` and write a folder of static files, index.html last.

        args: example inputs; the page runs the model on them and compares its results with the CPU's.
        name: the page's title.

        Raises CompilationError for what cannot run there, naming the operation and the model's line.
        """


@dataclass(frozen=True)
class Page:
    """A page that was written.

    path: its index.html.
    kernels, launches: how many kernels it has, and launches a run.
    bytes: of all files.
    """

    path: Path
    kernels: int
    launches: int
    bytes: int


class _ValidatingBackend:
    """A validating proxy around a third-party backend: its exceptions and invalid results become TargetErrors."""

    def __init__(self, backend: Any, where: str, options: Mapping[str, Any]) -> None:
        self._backend = backend
        self._where = where
        self.name: str = backend.name
        self.api_version: int = backend.api_version
        self.options = options

    def devices(self) -> Sequence[Device]:
        devices = self._call("devices")
        if not isinstance(devices, Sequence) or not all(isinstance(device, Device) for device in devices):
            raise self._invalid_return("devices", devices, "a list of torchport.plugin.Device")
        foreign = [str(device.target) for device in devices if getattr(device.target, "backend", None) != self.name]
        if foreign:
            raise TargetError(
                f"{self._where} is not valid: devices() lists {', '.join(foreign)}; its targets must begin with "
                f"{self.name!r}"
            )
        return devices

    def capabilities(self, target: Target) -> Capabilities:
        capabilities = self._call("capabilities", target)
        if not isinstance(capabilities, Capabilities):
            raise self._invalid_return("capabilities", capabilities, "a torchport.capabilities.Capabilities")
        return capabilities

    def compiler(self, target: Target) -> Compiler:
        compiler: Compiler = self._checked("compiler", target, Compiler)
        return compiler

    def driver(self, target: Target) -> Driver:
        driver: Driver = self._checked("driver", target, Driver)
        return driver

    @property
    def page_writer(self) -> PageWriter | None:
        """The backend as a PageWriter; its errors are its own."""
        return self._backend if hasattr(self._backend, "write_page") else None

    def _checked(self, method: str, target: Target, protocol: type) -> Any:
        result = self._call(method, target)
        members = _members(protocol)
        if not all(hasattr(result, member) for member in members):
            raise self._invalid_return(method, result, f"an object with {', '.join(members)}")
        return result

    def _call(self, method: str, *args: Any) -> Any:
        try:
            return getattr(self._backend, method)(*args)
        except TargetError:
            raise
        except (Exception, SystemExit) as error:  # a plugin can raise anything, and must not take the others down
            raise TargetError(
                f"{self._where} failed in {method}({', '.join(map(str, args))}): {type(error).__name__}: {error}"
            ) from error

    def _invalid_return(self, method: str, result: Any, expected: str) -> TargetError:
        return TargetError(f"{self._where} is not valid: {method}() returned {result!r:.80}, not {expected} {_SEE}")


def _members(protocol: type) -> list[str]:
    """The public members that ``protocol`` declares: attributes first, then methods."""
    return [name for name in (*protocol.__annotations__, *vars(protocol)) if not name.startswith("_")]


def _load(point: EntryPoint) -> Backend:
    """Load the backend of an entry point. Raises TargetError, naming backend and package, if it is not valid."""
    where = f"backend {point.name!r} ({point.value}, {_package(point)})"
    try:
        backend = point.load()
        members = {name: getattr(backend, name) for name in _members(Backend) if hasattr(backend, name)}
    except (Exception, SystemExit) as error:  # a plugin can raise anything, and must not take the others down
        raise TargetError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    version = members.get("api_version", API_VERSION)
    if version != API_VERSION:
        raise TargetError(
            f"{where} was written for plugin API {version}, this torchport has {API_VERSION}; "
            "install the release of the package made for this torchport"
        )
    fault = _fault(backend, members, point.name)
    if fault:
        raise TargetError(f"{where} is not valid: {fault} {_SEE}")
    return _ValidatingBackend(backend, where, members["options"])


def _fault(backend: Any, members: Mapping[str, Any], name: str) -> str:
    """The first fault among a backend's members; empty if it is valid."""
    required = _members(Backend)
    missing = [member for member in required if member not in members]
    if missing:
        return f"it has no {', '.join(missing)}"
    if isinstance(backend, type):
        return f"the entry point leads to the class {backend.__name__}, not to an object of it"
    uncallable = [member for member in required if hasattr(Backend, member) and not callable(members[member])]
    if uncallable:
        return f"{', '.join(uncallable)} must be methods"
    if not isinstance(members["options"], Mapping):
        return f"options is {members['options']!r}, not a mapping of Inductor options"
    if members["name"] != name:
        return f"it calls itself {members['name']!r}, its entry point {name!r}"
    return ""


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name}" if point.dist is not None else "an unknown package"


class Registry:
    """Backends by name, from entry points. Each is loaded when it is first used."""

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self._points: dict[str, list[EntryPoint]] = {}
        for point in points:
            claims = self._points.setdefault(point.name, [])
            if point.value not in {claim.value for claim in claims}:  # an editable install may be listed twice
                claims.append(point)
        self._loaded: dict[str, Backend] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the installed backends, sorted. Loads nothing."""
        return tuple(sorted(self._points))

    def package(self, name: str) -> str:
        """The distribution and version that ``name`` comes from. Loads nothing."""
        dists = [point.dist for point in self._points.get(name, ())]
        return " and ".join(f"{dist.name} {dist.version}" for dist in dists if dist is not None)

    def get(self, name: str) -> Backend:
        """The backend called ``name``, behind a proxy that turns what its members raise into TargetErrors.

        Raises TargetError if no backend has the name, if two packages claim it, or if its object cannot be loaded or
        is not a valid backend.
        """
        if name in self._loaded:
            return self._loaded[name]
        claims = self._points.get(name, [])
        if not claims:
            raise TargetError(
                f"no backend is called {name!r}; installed backends: {', '.join(self.names) or 'none'}. "
                f"A backend is a package with an entry point in the group {GROUP!r}"
            )
        if len(claims) > 1:
            owners = " and ".join(f"{point.value} ({_package(point)})" for point in claims)
            raise TargetError(f"backend {name!r} is claimed twice, by {owners}; uninstall one of them")
        self._loaded[name] = _load(claims[0])
        return self._loaded[name]


@functools.cache
def registry() -> Registry:
    """The backends installed in this process's environment."""
    return Registry(entry_points(group=GROUP))


def backend_for(target: Target) -> Backend:
    """The backend of ``target``. Raises TargetError as Registry.get does."""
    return registry().get(target.backend)


def page_writer(target: Target) -> PageWriter:
    """What writes pages for ``target``. Raises TargetError if its backend writes none."""
    found: PageWriter | None = getattr(backend_for(target), "page_writer", None)
    if found is None:
        raise TargetError(f"target {target} runs in no browser, so it has no pages; 'webgpu' has")
    return found
