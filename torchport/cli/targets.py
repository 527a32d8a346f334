"""``torchport targets``: the installed backends, their devices and capabilities."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchport.capabilities import Capabilities
from torchport.cli.console import standard_output
from torchport.errors import TargetError
from torchport.plugin import Device, registry
from torchport.runtime.devices.device import DeviceDriver
from torchport.runtime.devices.memory import DEVICE_TYPE

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Row", "rows", "targets"]

_COLOURS = {"ready": "green", "compiles only": "yellow", "unusable": "red"}


@dataclass(frozen=True)
class Row:
    """One device of a backend, or a backend without devices.

    backend: the backend's name.
    package: the package that provides it.
    device: the device; None for a backend that cannot list any.
    capabilities: what the device can do, if its backend says so.
    broken: why nothing can be compiled for it; empty if something can.
    torch: the torch device that it is, if torchport makes it one.
    """

    backend: str
    package: str
    device: Device | None = None
    capabilities: Capabilities | None = None
    broken: str = ""
    torch: str = ""

    @property
    def state(self) -> str:
        """``ready``, ``compiles only`` or ``unusable``."""
        if self.device is None or self.broken:
            return "unusable"
        return "compiles only" if self.device.missing else "ready"

    @property
    def summary(self) -> tuple[str, str, str, str]:
        """Target, description, state, and the reason why the target cannot be used or run; for display."""
        target = str(self.device.target) if self.device is not None else self.backend
        description = self.device.description if self.device is not None else ""
        return target, description, self.state, self.broken or (self.device.missing if self.device is not None else "")


def rows() -> list[Row]:
    """Every device of every backend found by entry point. A backend that fails is one row with the reason."""
    table: list[Row] = []
    numbers = itertools.count()
    for name in registry().names:
        package = registry().package(name)
        try:
            backend = registry().get(name)
            devices = backend.devices()
        except TargetError as error:
            table.append(Row(name, package, broken=str(error)))
            continue
        if not devices:
            table.append(Row(name, package, broken=f"backend {name!r} finds no device here"))
        for device in devices:
            capabilities, broken, torch = None, "", ""
            try:
                capabilities = backend.capabilities(device.target)
                backend.compiler(device.target)
                if not device.missing and isinstance(backend.driver(device.target), DeviceDriver):
                    torch = f"{DEVICE_TYPE}:{next(numbers)}"
            except TargetError as error:
                broken = str(error)
            table.append(Row(name, package, device, capabilities, broken, torch))
    return table


def targets(*, all_: bool = False, as_json: bool = False) -> None:
    """Print the devices as a table, or as JSON.

    all_: also each target that is only compiled for, and every target's capabilities.
    """

    known = rows()
    console = standard_output()
    if as_json:
        print(json.dumps([_json(row) for row in known], indent=1))
    elif not known:
        console.print("No backend is installed; reinstall torchport, which brings `cpu`.", markup=False)
    else:
        offline = [] if all_ else [row for row in known if row.state == "compiles only"]
        _show_devices(console, [row for row in known if row not in offline], offline)
        if all_:
            _show_capabilities(console, known)


def _show_devices(console: Console, devices: Sequence[Row], offline: Sequence[Row]) -> None:
    """A table with a line for each of ``devices`` and one for each backend in ``offline``; then the reasons, once."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("target", "device", "torch device", "state", "package")
    notes: list[str] = []
    for row in devices:
        target, description, state, reason = row.summary
        table.add_row(target, escape(description), row.torch, f"[{_COLOURS[state]}]{state}[/]", row.package)
        if reason:
            notes.append(f"{target}: {reason}")
    backends: dict[str, list[Row]] = {}
    for row in offline:
        backends.setdefault(row.backend, []).append(row)
    for backend, group in backends.items():
        names = ", ".join(row.summary[0] for row in group)
        table.add_row(backend, escape(names), "", "[yellow]compiles only[/yellow]", group[0].package)
        notes += [f"{backend}: {row.summary[3]}" for row in group]
    console.print(table)
    for note in dict.fromkeys(notes):
        console.print(note, markup=False, highlight=False)


def _show_capabilities(console: Console, known: Sequence[Row]) -> None:
    for row in known:
        if row.capabilities is not None and row.device is not None:
            console.print(f"\n[bold]{row.device.target}[/bold]")
            for name, value in row.capabilities.as_json().items():
                console.print(f"  {name:18} {_words(value)}", markup=False, highlight=False)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value)


def _json(row: Row) -> dict[str, Any]:
    target, description, state, missing = row.summary
    return {
        "backend": row.backend,
        "package": row.package,
        "target": target if row.device is not None else None,
        "description": description,
        "torch": row.torch or None,
        "state": state,
        "missing": missing,
        "capabilities": row.capabilities.as_json() if row.capabilities is not None else None,
    }
