"""``torchport port`` and ``torchport build``: a model's kernels compiled for targets without their hardware."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from torchport.cli.console import standard_output
from torchport.cli.model import load_model
from torchport.files import write_whole
from torchport.offline import Artifact, PortReport, capture, write
from torchport.offline import port as compile_all
from torchport.offline.html import page
from torchport.offline.report import size, used
from torchport.target import Target

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["build", "port"]


def port(model: str, targets: str, json_file: Path | None, html_file: Path | None, *, strict: bool) -> int:
    """Compile every kernel of ``model`` (``FILE.py:FUNCTION``) for every target, and print a table.

    Returns 0 if every kernel compiled for every target; ``strict``: and none exceeds a limit.
    """
    report = _report(model, targets)
    _show(report)
    if json_file is not None:
        write_whole(json_file, (json.dumps(report.as_json(), indent=1) + "\n").encode())
    if html_file is not None:
        write_whole(html_file, page(report).encode())
    return int(report.failed(strict=strict))


def build(model: str, targets: str, output: Path, precision: str | None = None) -> int:
    """Compile as ``port`` does, and write the machine code and a manifest to the folder ``output``."""
    report = _report(model, targets, precision)
    _show(report)
    manifest = write(output, report.every_artifact, report.about())
    print(f"{sum(a.binary is not None for a in report.every_artifact)} binaries, listed in {manifest}")
    return int(report.failed())


def _report(model: str, targets: str, precision: str | None = None) -> PortReport:
    from torchport.cli.working import working

    chosen = [Target.parse(text) for text in targets.split(",")]
    module, inputs = load_model(model)
    with working("capturing the model") as work:
        found = capture(module, inputs, precision)
        work.begin("compiling kernels", len(found.kernels) * len(chosen))
        return compile_all(model, found, chosen, work.step)


def _show(report: PortReport) -> None:
    console = standard_output()
    console.print(_table(report))
    _show_targets(console, report)
    _show_notes(console, report.every_artifact)
    for library in report.capture.libraries:
        console.print(f"not a kernel: {escape(library.operation)}, {library.calls} a run", highlight=False)
    for fallback in report.capture.fallbacks:
        console.print(f"not a kernel: {escape(str(fallback))}")
    artifacts = report.every_artifact
    failed = sum(bool(artifact.error) for artifact in artifacts)
    absent = sum(bool(state.unavailable) for state in report.targets)
    console.print(
        f"{len(report.capture.kernels)} kernels on {len(report.targets)} targets: {len(artifacts) - failed} compiled, "
        f"{failed} failed" + (f"; {absent} of the targets not available" if absent else "")
    )


def _table(report: PortReport) -> Table:
    """One row a kernel, one column a target."""
    from rich.table import Table

    table = Table("kernel", caption=_LEGEND, caption_justify="left")
    for state in report.targets:
        table.add_column(state.target, justify="right", no_wrap=True)
    for index, label in enumerate(report.capture.labels()):
        columns = [report.artifacts.get(state.target) for state in report.targets]
        cells = ("[dim]n/a[/dim]" if column is None else _cell(column[index]) for column in columns)
        table.add_row(escape(_short(label)), *cells)
    return table


def _show_targets(console: Console, report: PortReport) -> None:
    """Targets that are not available, and the copies that the host's operations need on the others."""
    for state in report.targets:
        if state.unavailable:
            console.print(f"[red]{state.target} is not available[/red]: {escape(state.unavailable)}")
        elif state.transfers:
            moved = size(state.transfers)
            console.print(f"{state.target}: at most {moved} a run are copied for operations that the host runs")


def _show_notes(console: Console, artifacts: Sequence[Artifact]) -> None:
    """Errors, then limits and notes: each sentence once a target, with its kernel or the number of its kernels."""
    kernels: dict[tuple[str, str, str], list[str]] = {}
    for artifact in artifacts:
        if artifact.error:
            console.print(f"[red]{escape(artifact.kernel)}[/red] on {artifact.target}: {escape(artifact.error)}")
        for colour, sentences in (("yellow", artifact.limits), ("dim", artifact.notes)):
            for sentence in sentences:
                kernels.setdefault((colour, artifact.target, sentence), []).append(artifact.kernel)
    for (colour, target, sentence), names in kernels.items():
        which = names[0] if len(names) == 1 else f"{len(names)} kernels"
        console.print(f"[{colour}]{escape(which)}[/{colour}] on {target}: {escape(sentence)}")


def _short(kernel: str) -> str:
    """A kernel's name in a column's width: the end tells kernels apart."""
    name = kernel.removeprefix("triton_")
    return name if len(name) <= _WIDTH else f"{name[: _WIDTH // 2]}…{name[-(_WIDTH // 2) + 1 :]}"


_WIDTH = 22
_LEGEND = "code size; r: registers of a lane; s: bytes of local (shared) memory; spill: bytes of spilled registers"


def _cell(artifact: Artifact) -> str:
    """Size of the code and the resources it uses (_LEGEND)."""
    if artifact.error or artifact.binary is None:
        return "[red]failed[/red]"
    *parts, last = used(artifact.binary)
    return " ".join([*parts, f"[yellow]{last}[/yellow]" if artifact.binary.resources.spill_bytes else last])
