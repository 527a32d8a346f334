"""Plugins, loaded and asked with distrust: a vendor's mistake ends that vendor's work, in one clear sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.target import Target

__all__ = ["Guarded", "load", "owner"]

_METHODS = ("devices", "capabilities", "compiler", "driver")
_MEMBERS = ("name", "api_version", "options", *_METHODS)
_COMPILER = ("triton", "fingerprint", "compile", "passes")
_DRIVER = ("device", "stock", "load")
_SEE = "(see torchport.plugin.Backend)"


def owner(point: EntryPoint) -> str:
    """The package of an entry point, in words."""
    return f"package {point.dist.name}" if point.dist is not None else "an unknown package"


def load(point: EntryPoint, api_version: int, device: type) -> Guarded:
    """The backend that ``point`` leads to. ``api_version``: of this torchport; ``device``: ``torchport.plugin.Device``.

    Raises TargetError, naming backend and package, where it cannot be loaded or lacks something.
    """
    where = f"backend {point.name!r} ({point.value}, {owner(point)})"
    try:
        backend = point.load()
        members = {word: getattr(backend, word) for word in _MEMBERS if hasattr(backend, word)}
    except (Exception, SystemExit) as error:  # a plugin can raise anything, and must not take the others down
        raise TargetError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    version = members.get("api_version", api_version)
    if version != api_version:
        raise TargetError(
            f"{where} was written for plugin API {version}, this torchport has {api_version}; "
            "install the release of the package made for this torchport"
        )
    wrong = _faults(backend, members, point.name)
    if wrong:
        raise TargetError(f"{where} is not valid: {wrong} {_SEE}")
    return Guarded(backend, where, members["options"], device)


def _faults(backend: Any, members: Mapping[str, Any], name: str) -> str:
    """What is wrong with a backend's members; empty where nothing is."""
    missing = [word for word in _MEMBERS if word not in members]
    if missing:
        return f"it has no {', '.join(missing)}"
    if isinstance(backend, type):
        return f"the entry point leads to the class {backend.__name__}, not to an object of it"
    uncalled = [word for word in _METHODS if not callable(members[word])]
    if uncalled:
        return f"{', '.join(uncalled)} must be methods"
    if not isinstance(members["options"], Mapping):
        return f"options is {members['options']!r}, not a mapping of Inductor options"
    if members["name"] != name:
        return f"it calls itself {members['name']!r}, its entry point {name!r}"
    return ""


class Guarded:
    """Satisfies ``torchport.plugin.Backend``: a vendor's, whose errors and nonsense become TargetErrors."""

    def __init__(self, backend: Any, where: str, options: Mapping[str, Any], device: type) -> None:
        self._backend = backend
        self._where = where
        self._device = device
        self.name: str = backend.name
        self.api_version: int = backend.api_version
        self.options = options

    def devices(self) -> Sequence[Any]:
        """As the vendor's. Raises TargetError."""
        found = self._ask("devices", self._backend.devices)
        if not isinstance(found, Sequence) or not all(isinstance(one, self._device) for one in found):
            raise self._nonsense("devices", found, "a list of torchport.plugin.Device")
        strangers = [str(one.target) for one in found if getattr(one.target, "backend", None) != self.name]
        if strangers:
            raise TargetError(
                f"{self._where} is not valid: devices() lists {', '.join(strangers)}; its targets must begin with "
                f"{self.name!r}"
            )
        return found

    def capabilities(self, target: Target) -> Capabilities:
        """As the vendor's. Raises TargetError."""
        found = self._ask("capabilities", self._backend.capabilities, target)
        if not isinstance(found, Capabilities):
            raise self._nonsense("capabilities", found, "a torchport.capabilities.Capabilities")
        return found

    def compiler(self, target: Target) -> Any:
        """As the vendor's. Raises TargetError."""
        return self._with("compiler", self._ask("compiler", self._backend.compiler, target), _COMPILER)

    def driver(self, target: Target) -> Any:
        """As the vendor's. Raises TargetError."""
        return self._with("driver", self._ask("driver", self._backend.driver, target), _DRIVER)

    def _ask(self, member: str, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except TargetError:
            raise
        except (Exception, SystemExit) as error:  # a plugin can raise anything, and must not take the others down
            raise TargetError(
                f"{self._where} failed in {member}({', '.join(map(str, args))}): {type(error).__name__}: {error}"
            ) from error

    def _with(self, member: str, found: Any, wanted: Sequence[str]) -> Any:
        missing = [word for word in wanted if not hasattr(found, word)]
        if missing:
            raise self._nonsense(member, found, f"an object with {', '.join(wanted)}")
        return found

    def _nonsense(self, member: str, found: Any, wanted: str) -> TargetError:
        return TargetError(f"{self._where} is not valid: {member}() returned {found!r:.80}, not {wanted} {_SEE}")
