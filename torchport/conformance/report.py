"""A certificate as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchport.conformance.case import AREAS
from torchport.signing import fingerprint

__all__ = ["markdown"]

_SHOWN = 15


def _signed(signature: Mapping[str, str] | None) -> list[str]:
    return [f"Signed with the key {fingerprint(signature['public_key'])}."] if signature is not None else []


def markdown(certificate: Mapping[str, Any]) -> str:
    """The certificate as a page of Markdown."""
    environment = certificate["environment"]
    lines = [
        f"# Certificate of `{certificate['target']}`: {certificate['grade']}",
        "",
        f"{certificate['device']}. Suite {certificate['suite']}, level {certificate['level']}, "
        f"{certificate['issued']}.",
        ", ".join(f"{name} {value}" for name, value in environment.items() if name != "toolchain") + ".",
        *(
            f'Compiled with {name}="{value}" (docs/options.md).'
            for name, value in certificate.get("options", {}).items()
        ),
        *(
            [f"Signed with the key {fingerprint(certificate['signature']['public_key'])}."]
            if "signature" in certificate
            else []
        ),
        "",
        "| area | grade | pass | fail | refused | untested | largest error, in its bound |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, area in certificate["areas"].items():
        worst = f"{area['worst']['error']} (`{area['worst']['case']}`)" if area["worst"] else "-"
        counts = " | ".join(str(area[verdict]) for verdict in ("pass", "fail", "refused", "untested"))
        lines.append(f"| {name}: {AREAS[name]} | {area['grade']} | {counts} | {worst} |")
    lines += ["", "The largest allowed error is 1 (docs/conformance.md)."]
    for name, area in certificate["areas"].items():
        if area["limits"]:
            lines += ["", f"## Limits: {name}", "", *(f"- {limit}" for limit in area["limits"])]
    if certificate["failures"]:
        lines += ["", "## Failures"]
    for failure in certificate["failures"]:
        bound = f", {failure['of_bound']} of its bound" if failure["of_bound"] is not None else ""
        lines += [
            "",
            f"- **{failure['operation']}**, {failure['dtype']}, {failure['shape']}, {failure['distribution']}: "
            f"{failure['error']}{bound}",
            "",
            f"      {failure['command']}",
        ]
    if certificate["refused"]:
        lines += ["", "## Refused with a clear error", ""]
        lines += [f"- `{case}`: {why}" for case, why in certificate["refused"].items()]
    ranked = sorted(
        ((float(value), case) for case, value in certificate["worst"].items() if value != "inf"), reverse=True
    )
    if ranked:
        lines += ["", "## Closest to their bounds", "", "| case | error in its bound |", "|---|---|"]
        lines += [f"| `{case}` | {value:.3g} |" for value, case in ranked[:_SHOWN] if value > 0]
    return "\n".join([*lines, "", f"SHA-256 of the content: `{certificate['sha256']}`", ""])
