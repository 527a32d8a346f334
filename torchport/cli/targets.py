"""``torchport targets``: the installed backends, their devices and capabilities."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.plugin import Device, registry

__all__ = ["Row", "rows", "targets"]


@dataclass(frozen=True)
class Row:
    """One device of one backend, or a backend without any.

    backend: the backend's name.
    package: the package it comes from.
    device: the device, if there is one.
    capabilities: its capabilities, if known.
    broken: why nothing compiles for it; empty if kernels compile.
    """

    backend: str
    package: str
    device: Device | None = None
    capabilities: Capabilities | None = None
    broken: str = ""

    @property
    def state(self) -> str:
        """``ready``, ``compiles only`` or ``unusable``."""
        if self.device is None or self.broken:
            return "unusable"
        return "compiles only" if self.device.missing else "ready"

    @property
    def summary(self) -> tuple[str, str, str, str]:
        """Target, description, state and what is missing, in words."""
        target = str(self.device.target) if self.device is not None else self.backend
        described = self.device.description if self.device is not None else ""
        return target, described, self.state, self.broken or (self.device.missing if self.device is not None else "")


def rows() -> list[Row]:
    """All devices of all installed backends. A backend that fails is one row with the reason."""
    found = []
    for name in registry().names:
        package = registry().package(name)
        try:
            backend = registry().get(name)
            devices = backend.devices()
        except TargetError as error:
            found.append(Row(name, package, broken=str(error)))
            continue
        if not devices:
            found.append(Row(name, package, broken=f"backend {name!r} finds no device here"))
        for device in devices:
            capabilities, broken = None, ""
            try:
                capabilities = backend.capabilities(device.target)
                backend.compiler(device.target)
                if not device.missing:
                    backend.driver(device.target)
            except TargetError as error:
                broken = str(error)
            found.append(Row(name, package, device, capabilities, broken))
    return found


def targets(*, all_: bool = False, as_json: bool = False) -> None:
    """Print the devices as a table; ``all_``: also each compile-only target, and capabilities."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    known = rows()
    if as_json:
        print(json.dumps([_json(row) for row in known], indent=1))
        return
    console = Console()
    if not known:
        console.print("No backend is installed; reinstall torchport, which brings `cpu`.", markup=False)
        return
    table = Table("target", "device", "state", "package")
    notes: dict[str, None] = {}
    offline: dict[str, list[Row]] = {}
    for row in known:
        if row.state == "compiles only" and not all_:
            offline.setdefault(row.backend, []).append(row)
            continue
        target, description, _, reason = row.summary
        colour = {"ready": "green", "compiles only": "yellow", "unusable": "red"}[row.state]
        table.add_row(target, escape(description), f"[{colour}]{row.state}[/{colour}]", row.package)
        if reason:
            notes[f"{target}: {reason}"] = None
    for backend, group in offline.items():
        names = ", ".join(str(row.device.target) for row in group if row.device is not None)
        table.add_row(backend, escape(names), "[yellow]compiles only[/yellow]", group[0].package)
        notes.update((f"{backend}: {row.device.missing}", None) for row in group if row.device is not None)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    if all_:
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
        "state": state,
        "missing": missing,
        "capabilities": row.capabilities.as_json() if row.capabilities is not None else None,
    }
