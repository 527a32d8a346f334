"""``torchport quarantine``: the list of kernels to avoid because they gave wrong results."""

from __future__ import annotations

import json
from dataclasses import asdict

from torchport import quarantine
from torchport.cli.console import standard_output
from torchport.config import config
from torchport.errors import OptionError, TargetError
from torchport.target import Target

__all__ = ["add", "clear", "show"]


def show(*, as_json: bool) -> None:
    """Print all entries, and whether each is in force on this machine."""
    from rich.markup import escape
    from rich.table import Table

    rows = [(entry, _state(entry)) for entry in quarantine.entries()]
    if as_json:
        print(json.dumps([{**asdict(entry), "state": state} for entry, state in rows], indent=1))
        return
    console = standard_output()
    if not rows:
        console.print(f"Nothing is in quarantine ({config().quarantine}).", markup=False, soft_wrap=True)
        return
    table = Table("target", "kernel", "configuration", "state", "since", "reason")
    for entry, state in rows:
        colour = {"avoided": "yellow"}.get(state, "dim")
        kernel = f"{entry.kernel}\n{entry.name}" if entry.name else entry.kernel
        table.add_row(
            *(entry.target, escape(kernel), entry.config),
            *(f"[{colour}]{state}[/{colour}]", entry.since, escape(entry.reason)),
        )
    console.print(table)


def add(target: str, kernel: str, blocks: str, reason: str) -> None:
    """Put a kernel with a configuration into quarantine. Raises OptionError for an invalid configuration."""
    sizes = {}
    for word in blocks.replace(",", " ").split():
        name, equals, size = word.partition("=")
        if not equals or not size.isdecimal():
            raise OptionError(f"{word!r} is no block size; expected --config 'XBLOCK=1024 num_warps=1'")
        sizes[name] = int(size)
    if not sizes:
        raise OptionError("the configuration is empty; expected --config 'XBLOCK=1024 num_warps=1'")
    entry = quarantine.add(Target.parse(target), kernel, quarantine.configuration({"num_warps": 1, **sizes}), reason)
    print(f"avoided on {entry.target}: kernel {entry.kernel} with {entry.config}")


def clear(target: str | None, *, expired: bool) -> None:
    """Remove entries and print how many."""
    count = quarantine.clear(Target.parse(target) if target is not None else None, expired=expired)
    print(f"forgot {count} of the kernels in {config().quarantine}")


def _state(entry: quarantine.Entry) -> str:
    """``avoided``; ``expired``: found with other versions; ``not here``: a target of another machine."""
    try:
        return "avoided" if entry.versions == quarantine.versions(Target.parse(entry.target)) else "expired"
    except TargetError:
        return "not here"
