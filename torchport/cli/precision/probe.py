"""``torchport probe``: a target's passport, beside a profile or an older passport."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchport.errors import OptionError
from torchport.files import write_whole

if TYPE_CHECKING:
    from torchport.precision.passport import Finding

__all__ = ["probe"]


def probe(target: str, emulated: str | None, profile: str | None, old: Path | None, output: Path | None) -> int:
    """Measure ``target`` (the CPU in the arithmetic of profile ``emulated``) and print its passport.

    ``profile``: compare with it; ``old``: a passport to compare with; ``output``: where to write this one. Returns 1
    where something differs.
    """
    from torchport.arithmetic.profile import Profile
    from torchport.precision.passport import Finding, against_passport, against_profile, flat
    from torchport.precision.probe import passport

    before = _read(old) if old is not None else None
    wanted = Profile.load(profile) if profile is not None else None
    found = passport(target, emulated)
    if output is not None:
        write_whole(output, (json.dumps(found, indent=1) + "\n").encode())
    title = f"passport of {target}" + (f" as {emulated}" if emulated else "")
    for place, why in found["unmeasured"].items():
        print(f"not measured: {place}: {why}")
    if before is not None:
        differing = against_passport(found, before)
        _show(f"{title}: what differs from {old}", differing, "before")
        return int(bool(differing))
    if wanted is not None:
        findings = against_profile(found, wanted)
        _show(f"{title}, profile {wanted.name}", findings, "profile")
        return int(not all(one.agrees for one in findings))
    _show(title, [Finding(place, value, None, True) for place, value in flat(found).items()], None)
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise OptionError(f"{path} is no passport: {error}") from None
    if not isinstance(found, dict) or "dot" not in found:
        raise OptionError(f"{path} is no passport: write one with torchport probe --json {path}")
    return found


def _show(title: str, findings: Sequence[Finding], expected: str | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title))
    table.add_column("what")
    table.add_column("measured", justify="right")
    if expected is not None:
        table.add_column(expected, justify="right")
    for one in findings:
        colour = "" if one.agrees else "[red]"
        row = [one.place, f"{colour}{escape(str(one.measured))}"]
        table.add_row(*row, *([escape("" if one.expected is None else str(one.expected))] if expected else []))
    Console().print(table)
