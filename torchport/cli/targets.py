"""``torchport targets``: the installed backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torchport.errors import TargetError
from torchport.plugin import registry
from torchport.target import Target

__all__ = ["Describes", "Row", "rows", "targets"]


@runtime_checkable
class Describes(Protocol):
    """A backend that can say what it would compile for here; optional."""

    def targets(self) -> Sequence[Target]:
        """Every target it compiles for on this machine, its default first."""

    def describe(self, target: Target) -> str:
        """The device in words, on one line: ``x86_64-avx2, 256-bit vectors``. Raises TargetError as fingerprint."""


class Row(NamedTuple):
    """One backend. ``device`` is a torch device type and what the backend says of it; ``missing`` is empty when it can
    compile here, else the reason and what to do."""

    name: str
    device: str
    package: str
    missing: str
    launches: bool = True


def rows() -> list[Row]:
    """Every backend found by entry point, loaded and asked whether it can compile on this machine."""
    found = []
    for name in registry().names:
        device = package = missing = ""
        launches = True
        try:
            backend = registry().get(name)
            device, package = backend.device, type(backend).__module__.partition(".")[0]
            target = Target(name)
            launches = backend.launches
            if isinstance(backend, Describes):
                target = backend.targets()[0]
                device = f"{device} ({backend.describe(target)})"
            backend.fingerprint(target)
        except TargetError as error:
            missing = str(error)
        found.append(Row(name, device, package, missing, launches))
    return found


def targets() -> None:
    """Print the backends as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    known = rows()
    if not known:
        console.print("No backend is installed: reinstall torchport (its own is `cpu`).", markup=False)
        return
    table = Table("target", "device", "package", "state")
    for row in known:
        state = "[green]ready[/green]" if row.launches else "[green]compiles only[/green]"
        state = f"[red]{escape(row.missing)}[/red]" if row.missing else state
        table.add_row(row.name, row.device, row.package, state)
    console.print(table)
