"""``torchport probe``: measures a target's passport and compares it with a profile or an older passport."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchport.cli.console import standard_output
from torchport.errors import OptionError
from torchport.files import read_json, write_whole

if TYPE_CHECKING:
    from torchport.precision.passport import Finding

__all__ = ["probe"]


def probe(
    target: str,
    emulated: str | None,
    profile: str | None,
    old: Path | None,
    output: Path | None,
    bf16_products: str = "auto",
) -> int:
    """Measure a target and print its passport. Returns 1 if it differs from ``profile`` or ``old``.

    target: the target to measure
    emulated: the profile whose emulation on the CPU is measured
    profile: the profile to compare with
    old: the passport to compare with
    output: where to write the passport
    bf16_products: the option that is in force
    """
    from torchport.arithmetic.profile import Profile
    from torchport.precision.passport import Finding, against_passport, against_profile, flat
    from torchport.precision.probe import passport

    before = _read(old) if old is not None else None
    wanted = Profile.load(profile) if profile is not None else None
    measured = passport(target, emulated, bf16_products)
    if output is not None:
        write_whole(output, (json.dumps(measured, indent=1) + "\n").encode())
    title = f"passport of {target}" + (f" as {emulated}" if emulated else f', bf16_products="{bf16_products}"')
    for place, why in measured["unmeasured"].items():
        print(f"not measured: {place}: {why}")
    if before is not None:
        differing = against_passport(measured, before)
        _show(f"{title}: what differs from {old}", differing, "before")
        return int(bool(differing))
    if wanted is not None:
        findings = against_profile(measured, wanted)
        _show(f"{title}, profile {wanted.name}", findings, "profile")
        return int(not all(finding.agrees for finding in findings))
    _show(title, [Finding(place, value, None, True) for place, value in flat(measured).items()], None)
    return 0


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path, dict[str, Any], OptionError)
    if "dot" not in content:
        raise OptionError(f"{path} is no passport: write one with torchport probe --json {path}")
    return content


def _show(title: str, findings: Sequence[Finding], expected: str | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title))
    table.add_column("what")
    table.add_column("measured", justify="right")
    if expected is not None:
        table.add_column(expected, justify="right")
    for finding in findings:
        row = [finding.place, ("" if finding.agrees else "[red]") + escape(str(finding.measured))]
        if expected is not None:
            row.append(escape("" if finding.expected is None else str(finding.expected)))
        table.add_row(*row)
    standard_output().print(table)
