"""``torchport port`` and ``torchport build``: a model's kernels on targets that need not be here."""

from __future__ import annotations

import json
from pathlib import Path

from torchport.cli.model import load_model
from torchport.files import write_whole
from torchport.offline import Artifact, PortReport, capture, write
from torchport.offline import port as compile_all
from torchport.offline.html import page
from torchport.offline.report import size
from torchport.target import Target

__all__ = ["build", "port"]


def port(model: str, targets: str, json_file: Path | None, html_file: Path | None, *, strict: bool) -> int:
    """Compile every kernel of ``model`` (``FILE.py:FUNCTION``) for every target, and show what came of it.

    Returns 0 when every kernel compiled on every target; ``strict``: and none goes beyond a limit.
    """
    report = _report(model, targets)
    _show(report)
    if json_file is not None:
        write_whole(json_file, (json.dumps(report.as_json(), indent=1) + "\n").encode())
    if html_file is not None:
        write_whole(html_file, page(report).encode())
    return int(report.failed(strict=strict))


def build(model: str, targets: str, output: Path) -> int:
    """``port``, with the machine code and its manifest written to the folder ``output``."""
    report = _report(model, targets)
    _show(report)
    manifest = write(output, report.every_artifact, report.about())
    print(f"{sum(a.binary is not None for a in report.every_artifact)} binaries, listed in {manifest}")
    return int(report.failed())


def _report(model: str, targets: str) -> PortReport:
    from rich.console import Console
    from rich.progress import Progress

    chosen = [Target.parse(text) for text in targets.split(",")]
    module, inputs = load_model(model)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("capturing the model", total=None)
        found = capture(module, inputs)
        progress.update(task, description="compiling kernels", total=len(found.kernels) * len(chosen))
        return compile_all(model, found, chosen, lambda: progress.advance(task))


def _show(report: PortReport) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("kernel", caption=_LEGEND, caption_justify="left")
    for state in report.targets:
        table.add_column(state.target, justify="right", no_wrap=True)
    for index, label in enumerate(report.capture.labels()):
        groups = [report.artifacts.get(state.target) for state in report.targets]
        table.add_row(escape(_short(label)), *("[dim]n/a[/dim]" if g is None else _cell(g[index]) for g in groups))
    console.print(table)
    for state in report.targets:
        if state.unavailable:
            console.print(f"[red]{state.target} is not available[/red]: {escape(state.unavailable)}")
        elif state.transfers:
            console.print(f"{state.target}: at most {size(state.transfers)} a run are moved for what the host runs")
    said: dict[tuple[str, str, str], list[str]] = {}
    for artifact in report.every_artifact:
        if artifact.error:
            console.print(f"[red]{escape(artifact.kernel)}[/red] on {artifact.target}: {escape(artifact.error)}")
        for colour, sentences in (("yellow", artifact.limits), ("dim", artifact.notes)):
            for sentence in sentences:
                said.setdefault((colour, artifact.target, sentence), []).append(artifact.kernel)
    for (colour, target, sentence), kernels in said.items():
        which = kernels[0] if len(kernels) == 1 else f"{len(kernels)} kernels"
        console.print(f"[{colour}]{escape(which)}[/{colour}] on {target}: {escape(sentence)}")
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


def _short(kernel: str) -> str:
    """A kernel's name in a column's width: the end tells kernels apart."""
    name = kernel.removeprefix("triton_")
    return name if len(name) <= _WIDTH else f"{name[: _WIDTH // 2]}…{name[-(_WIDTH // 2) + 1 :]}"


_WIDTH = 22
_LEGEND = "K: KiB of code; r: registers of a lane; s: bytes of scratchpad; spill: bytes of spilled registers"


def _cell(artifact: Artifact) -> str:
    """Size of the code, and what it takes of the chip where that is known (_LEGEND)."""
    if artifact.error or artifact.binary is None:
        return "[red]failed[/red]"
    used = artifact.binary.resources
    parts = [f"{len(artifact.binary.data) / 1024:.0f}K"]
    if used.registers is not None:
        parts.append(f"{used.registers}r")
    if used.scratchpad_bytes:
        parts.append(f"{used.scratchpad_bytes}s")
    if used.spill_bytes:
        parts.append(f"[yellow]{used.spill_bytes} spill[/yellow]")
    return " ".join(parts)
